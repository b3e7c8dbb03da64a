"""Options that several commands have, and what is wrong with a value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from router.domain.errors import BadInput
from router.domain.policy import LONG_TEXTS
from router.domain.values import LongTexts

VECTOR_FILES = (".parquet", ".npz", ".jsonl")
Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILE",
        help=".txt (a text a line), .jsonl, .csv, .parquet, .md, .pdf, .docx, .html, .eml and more; folders, zips.",
    ),
]
PolicyName = Annotated[str, typer.Option("--policy", help="The policy that decides.")]
ModelId = Annotated[str | None, typer.Option("--model", metavar="PROVIDER/NAME", help="Use this model's space.")]
RoleName = Annotated[
    str, typer.Option("--role", metavar="document|query", help="Some models embed the two differently.")
]
Dimensions = Annotated[int | None, typer.Option("--dimensions", help="Fewer than the model's full size.")]
LongTextsName = Annotated[
    str | None, typer.Option("--long-texts", metavar="split|refuse|cut", help="Instead of the policy's own.")
]
TextColumns = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="Of tables and JSON; again for several, a.b for nested keys."),
]
IdColumn = Annotated[str | None, typer.Option("--id-column", metavar="NAME", help="Of tables and JSON.")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Documents may take the place of others of their name, from another folder.")
]
WithText = Annotated[bool, typer.Option("--with-text", help="Write the texts beside the vectors.")]


def long_texts_of(name: str | None) -> LongTexts | None:
    """The option's value as the engine wants it.

    Raises:
        BadInput: another word.
    """
    for choice in (None, *LONG_TEXTS):
        if choice == name:
            return choice
    raise BadInput(f"--long-texts cannot be '{name}'.", f"Choose one of: {', '.join(LONG_TEXTS)}.")


def check_out(out: Path, *files: Path) -> None:
    """Find out before anything is spent whether the vectors could be written.

    Raises:
        BadInput: they could not.
    """
    if out.suffix.lower() not in VECTOR_FILES:
        raise BadInput(f"Vectors cannot be written as '{out.name}'.", f"End its name in {' or '.join(VECTOR_FILES)}.")
    if not out.parent.is_dir():
        raise BadInput(f"There is no folder {out.parent}.", "Create it first.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise BadInput(f"{out} cannot be written.", "Choose another place.")
    if out.exists() and any(file.exists() and out.samefile(file) for file in files):
        raise BadInput(f"{out} is the file to read.", "Write the vectors to another one.")
