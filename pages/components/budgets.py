"""Rows of budgets to edit: amount, window, hard or soft.

Plain fields and not `st.data_editor`, whose output must not be written back as its input. Amounts are text, read as
exact nanodollars; a float never holds money.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pages.components import widgets
from pages.components.format import md
from router.domain.errors import RouterError
from router.domain.money import parse_usd, to_json
from router.domain.policy import WINDOWS
from router.domain.values import Budget

_PER = {"request": "a request", "day": "a day", "week": "a week", "month": "a month", "total": "in total"}
_KIND = {True: "hard", False: "soft"}


def budget_rows(saved: Sequence[Budget], *, key: str) -> tuple[Budget, ...] | RouterError:
    """The budgets as the fields have them, or what is wrong with an amount. `key` starts the rows afresh."""
    rows = st.session_state.setdefault(f"rows {key}", list(range(len(saved))))
    out: list[Budget] = []
    wrong: RouterError | None = None
    for row in list(rows):
        usual = saved[row] if row < len(saved) else Budget(amount=1_000_000_000, window="month")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            amount = st.text_input(
                "Dollars", _plain(usual.amount), key=f"amount {row} {key}", icon=":material/attach_money:"
            )
            window = widgets.pick(st, "Per", WINDOWS, usual.window, _PER, key=f"window {row} {key}")
            hard = widgets.pick(
                st, "Kind", (True, False), usual.hard, _KIND, key=f"hard {row} {key}",
                help="A hard budget is never passed; a soft one only slows the goal `balanced` down.",
            )  # fmt: skip
            st.button(
                "Remove", icon=":material/close:", key=f"remove {row} {key}", on_click=rows.remove, args=(row,),
                help="Takes effect when you save.",
            )  # fmt: skip
        try:
            out.append(Budget(amount=parse_usd(amount), window=window, hard=hard))
        except RouterError as error:
            st.markdown(f":small[:red[:material/error: {md(error.message)}]]")
            wrong = wrong or error
    st.button(
        "Add a budget",
        icon=":material/add:",
        key=f"add {key}",
        on_click=lambda: rows.append(max(rows, default=len(saved) - 1) + 1),
    )
    return wrong or tuple(out)


def _plain(amount: int) -> str:
    """`5`, `0.25`: the exact amount without idle zeros."""
    return to_json(amount).rstrip("0").removesuffix(".")
