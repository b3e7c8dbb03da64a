"""The pickers for the columns of an uploaded table."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from pages.components.background import kept
from pages.components.format import md
from router.domain.errors import BadInput
from router.ingest.columns import AS_USUAL, Columns, choose
from router.ingest.extract import ROWS
from router.ingest.extract import columns as columns_of

NUMBERED = "row number"


def chooser(upload: Any) -> Columns:
    """The columns of the texts and their ids; the default where there is nothing to choose."""
    ending = Path(upload.name).suffix.lower()
    if ending not in ROWS or ending == ".txt":
        return AS_USUAL
    found = kept(f"columns {upload.file_id}", ending, partial(_found, upload, ending))
    if len(found) < 2:
        return AS_USUAL
    try:
        usual = choose(upload.name, found)
    except BadInput:
        usual = Columns(texts=tuple(found[:1]))
    name, key = md(Path(upload.name).name), upload.file_id
    unique = list(dict.fromkeys(found))
    one, other = st.columns(2)
    texts = one.multiselect(
        f"Texts of {name}", unique, default=[c for c in usual.texts if c in unique] or unique[:1], key=f"texts {key}",
        help="Several are joined, each with its name before it.",
    )  # fmt: skip
    ids = [NUMBERED, *unique]
    id_ = other.selectbox("Ids", ids, index=ids.index(usual.id) if usual.id in unique else 0, key=f"ids {key}")
    return Columns(texts=tuple(texts), id=None if id_ == NUMBERED else id_)


def _found(upload: Any, ending: str) -> list[str]:
    """The table's columns."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table{ending}"
        with path.open("wb") as file:
            shutil.copyfileobj(upload, file)
        upload.seek(0)
        try:
            return columns_of(path)
        except Exception:  # it is reported when the file is read
            return []
