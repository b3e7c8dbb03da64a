"""Ticks in a table: they mean what was ticked, not the place where it stood.

The browser tells a tick as the number of a row. So every list of rows is a widget of its own: a number can only mean
the row that it was put at. Where the rows have changed since, what is still there keeps its tick, wherever it now is.
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
    """The table of a name as it was drawn last: its widget, the rows in it, and after how many actions."""

    key: str
    ids: Sequence[Any]
    turn: int


def key(name: str, ids: Iterable[object]) -> str:
    """The key of a widget that is about exactly these things, in this order."""
    return f"{name} {blake2b(repr(list(ids)).encode(), digest_size=8).hexdigest()}"


def table(
    name: str,
    rows: Mapping[T, Mapping[str, Any]],
    mode: Literal["single-row", "multi-row"] = "multi-row",
    *,
    gone: str = "",
    **options: Any,
) -> list[T]:
    """A table of records by their ids; the ids of those that are ticked, in the order of the rows.

    `gone` is said of each that was ticked and is not in the table any more: "no longer here".
    """
    before = _drawn(name)
    kept = _ticked(before)
    lost = [one for one in kept if one not in rows]
    if lost and gone:
        them = "One that was ticked is" if len(lost) == 1 else f"{len(lost):,} that were ticked are"
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
    """Take every tick away: the table of this name is drawn as a new one."""
    st.session_state[_place(name)] = _Drawn(key="", ids=(), turn=_drawn(name).turn + 1)


def _place(name: str) -> str:
    return f"ticks {name}"


def _drawn(name: str) -> _Drawn:
    drawn: _Drawn = st.session_state.get(_place(name), _Drawn(key="", ids=(), turn=0))
    return drawn


def _ticked(drawn: _Drawn) -> list[Any]:
    """What is ticked in a table; nothing, once it is off the screen."""
    state = st.session_state.get(drawn.key) if drawn.key else None
    return [] if state is None else [drawn.ids[at] for at in sorted(state["selection"]["rows"])]
