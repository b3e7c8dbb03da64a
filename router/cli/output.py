"""What the shell prints: one JSON object on stdout for machines, plain lines and tables for people.

Problems and progress go to stderr, so that stdout can be piped. Whatever comes from a file is printed without
control characters: an id must not be able to drive a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from router.domain.money import to_json

if TYPE_CHECKING:
    from router.domain.values import Verdict

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Report = Callable[[int, int], None]
_WIDE = 200
"""Columns of a table that goes into a file or a pipe."""
_MOST_NAMED = 20


def emit(data: Mapping[str, object]) -> None:
    """Print one JSON object on stdout. ASCII only, so that any locale and half a surrogate pair can pass."""
    print(json.dumps(data))


def answer(as_json: bool, data: Mapping[str, object], line: str) -> None:
    """The object for machines, or the line for people."""
    emit(data) if as_json else say(line)


def pick(one: object, names: str) -> dict[str, object]:
    """Attributes for machines, by their names with spaces between; of None, a null each."""
    return {name: None if one is None else getattr(one, name) for name in names.split()}


def say(line: str) -> None:
    """A line for people, on stdout."""
    print(printable(line))


def warn(line: str) -> None:
    """A line for people, on stderr."""
    print(printable(line), file=sys.stderr)


def printable(text: str) -> str:
    """The text with everything escaped that is not for printing (line ends stay)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def named(ids: Sequence[str]) -> str:
    """Ids for people: the first ones by name, the rest by number."""
    more = len(ids) - _MOST_NAMED
    return ", ".join(ids[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def usd_or_none(cost: int | None) -> str | None:
    """A cost for machines; None where the price is unknown."""
    return None if cost is None else to_json(cost)


def verdict_as_json(verdict: Verdict, cost: int | None, expected: int | None) -> dict[str, object]:
    """A candidate of any quote, for machines; the most and the likely cost are those of what is not cached."""
    return {
        "model": verdict.model.id,
        "space": verdict.model.space,
        **pick(verdict, "quality cached"),
        "expected_usd": usd_or_none(expected),
        "cost_usd": usd_or_none(cost),
        "seconds": round(verdict.seconds, 3),
        **pick(verdict, "eligible reason"),
        "legacy": verdict.model.legacy,
        "retires": verdict.model.retires and verdict.model.retires.isoformat(),
    }


def _cell(value: str | float | None) -> str:
    """A value for people, in a table."""
    if isinstance(value, str):
        return printable(value)
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:g}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str | float | None]], *, right: Sequence[int] = ()) -> None:
    """A table on stdout; `right` are the columns of numbers, which are never broken, as the first column is not."""
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, show_edge=False)
    for at, header in enumerate(headers):
        cells = [line for cell in (header, *(row[at] for row in rows)) for line in _cell(cell).split("\n")]
        least = max(map(cell_len, cells)) if at == 0 or at in right else None
        grid.add_column(header, justify="right" if at in right else "left", overflow="fold", min_width=least)
    for row in rows:
        grid.add_row(*map(_cell, row))
    console = Console(width=None if sys.stdout.isatty() else _WIDE, markup=False, highlight=False, emoji=False)
    # A terminal too narrow breaks the lines; that is ugly, but rich would leave out digits.
    console.width = max(console.width, console.measure(grid, options=console.options.update(max_width=_WIDE)).minimum)
    console.print(grid)


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """A bar on stderr while a block runs, where stderr is a terminal; the block reports (done, total)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
