"""Rows of budgets to edit: amount, window, hard or soft.

Plain fields, since the output of `st.data_editor` must not be written back as its input. Amounts are text that is
parsed to exact nanodollars, never a float.
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
    """The budgets in the fields, or what is wrong with an amount. Another `key` starts with other rows."""
    rows = st.session_state.setdefault(f"rows {key}", list(range(len(saved))))
    out: list[Budget] = []
    wrong: RouterError | None = None
    for row in list(rows):
        usual = saved[row] if row < len(saved) else Budget(amount=1_000_000_000, window="month")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            plain = to_json(usual.amount).rstrip("0").removesuffix(".")  # `5`, `0.25`
            amount = st.text_input("Dollars", plain, key=f"amount {row} {key}", icon=":material/attach_money:")
            window = widgets.pick(st, "Per", WINDOWS, usual.window, _PER, key=f"window {row} {key}")
            hard = widgets.pick(
                st, "Kind", (True, False), usual.hard, _KIND, key=f"hard {row} {key}",
                help="A hard budget is never exceeded; a soft one only makes the goal `balanced` spend less.",
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
        "Add a budget", icon=":material/add:", key=f"add {key}",
        on_click=lambda: rows.append(max(rows, default=len(saved) - 1) + 1),
    )  # fmt: skip
    return wrong or tuple(out)
