"""Row selection in tables, by the rows' ids and not by their places.

The browser reports a ticked row by its number. So each list of rows is a widget of its own, and a number always refers
to the list that it was ticked in. When the rows change, those that are still there stay ticked, wherever they are now.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, TypeVar

import streamlit as st

from pages.components.format import md

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """A table as it was last drawn: its widget's key, the ids of its rows, and how often it was cleared."""

    key: str
    ids: Sequence[Any]
    turn: int


def key(name: str, ids: Iterable[object]) -> str:
    """A widget key that is specific to these things in this order."""
    return f"{name} {blake2b(repr(list(ids)).encode(), digest_size=8).hexdigest()}"


def table(
    name: str,
    rows: Mapping[T, Mapping[str, Any]],
    mode: Literal["single-row", "multi-row"] = "multi-row",
    *,
    gone: str = "",
    **options: Any,
) -> list[T]:
    """Draw a table of records by their ids; returns the ids of the ticked ones, in the order of the rows.

    `gone` ends the sentence about ticked rows that are not in the table any more: "no longer here".
    """
    before = _drawn(name)
    kept = _ticked(before)
    lost = [one for one in kept if one not in rows]
    if lost and gone:
        them = "One ticked row is" if len(lost) == 1 else f"{len(lost):,} ticked rows are"
        st.toast(md(f"{them} {gone}."), icon=":material/info:", duration="long")
    ids = list(rows)
    this = _Drawn(key=key(f"{name} {before.turn}", ids), ids=ids, turn=before.turn)
    st.session_state[_place(name)] = this
    if not rows:
        return []
    st.dataframe(
        list(rows.values()),
        on_select="rerun",
        selection_mode=mode,
        selection_default={"selection": {"rows": [at for at, one in enumerate(ids) if one in kept]}},
        hide_index=True,
        key=this.key,
        **options,
    )
    return _ticked(this)


def clear(name: str) -> None:
    """Untick every row: the table is drawn as a new widget."""
    st.session_state[_place(name)] = _Drawn(key="", ids=(), turn=_drawn(name).turn + 1)


def _place(name: str) -> str:
    return f"ticks {name}"


def _drawn(name: str) -> _Drawn:
    drawn: _Drawn = st.session_state.get(_place(name), _Drawn(key="", ids=(), turn=0))
    return drawn


def _ticked(drawn: _Drawn) -> list[Any]:
    """The ids of the ticked rows; none where the table is not on the screen."""
    state = st.session_state.get(drawn.key) if drawn.key else None
    return [] if state is None else [drawn.ids[at] for at in sorted(state["selection"]["rows"])]
