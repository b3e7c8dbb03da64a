"""Fault 32: `=`, `+`, `-`, `@`, tab and CR at the start of cells; HTML and Markdown in texts and names.

Figure: 0 active cells in exports, 0 of the hostile strings rendered as markup.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from pages.components.format import md
from router.search.export import safe_cell

ACTIVE = ("=", "+", "-", "@", "\t", "\r")
HOSTILE = (
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://example.invalid/x.png)",
    "$\\sum x$",
    ":material/bolt:",
    "**bold** `code` _it_",
    "# heading",
)


def test_no_cell_is_a_formula(figure: Callable[[int, str], None]) -> None:
    """Whatever a text begins with, its cell begins with nothing that a spreadsheet runs."""
    tried = 0

    @settings(max_examples=500)
    @given(start=st.sampled_from(ACTIVE), rest=st.text(max_size=20))
    def check(start: str, rest: str) -> None:
        nonlocal tried
        tried += 1
        cell = safe_cell(start + rest)
        assert not cell.startswith(ACTIVE)
        assert cell.endswith(start + rest)

    check()
    figure(32, f"0 active cells of {tried}")


def test_nothing_from_outside_is_markup(figure: Callable[[int, str], None]) -> None:
    """Each sign that starts markup is escaped where a page shows a text or a name."""
    for text in HOSTILE:
        shown = md(text)
        for sign in "<[]$`*_#":
            places = [i for i, character in enumerate(shown) if character == sign]
            assert all(i > 0 and shown[i - 1] == "\\" for i in places) or sign not in text, (sign, shown)
    figure(32, f"0 of {len(HOSTILE)} hostile strings left as markup")
