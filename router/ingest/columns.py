"""Which columns of a table hold the texts and their ids, and how several columns make one text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.domain.errors import BadInput

TEXT_COLUMNS = ("text", "content", "body", "passage", "abstract", "description", "title")
"""Where a table's texts are looked for, in this order, when nobody says."""
ID_COLUMNS = ("id", "_id", "doc_id", "key", "url", "name")
_NESTING = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns to read. Several `texts` are joined, each after its name; `id` None: rows are numbered.

    As what somebody asks for, no `texts` and an `id` of None mean the usual names: see `choose`.
    """

    texts: tuple[str, ...] = ()
    id: str | None = None


AS_USUAL = Columns()


def choose(name: str, there: Sequence[str], asked: Columns = AS_USUAL, *, complete: bool = True) -> Columns:
    """The columns that were asked for, or the usual ones of those that are `there` (none are in a list of strings).

    `complete`: no row can have other columns than those that are there; False for JSON, whose rows say what they lack.

    Raises:
        BadInput: a column that was asked for, or the only one that may hold the texts, is missing or there twice.
    """
    counts = Counter(there)
    wanted = asked.texts or (next((c for c in TEXT_COLUMNS if c in counts), TEXT_COLUMNS[0]),)
    for column in [*wanted, *([asked.id] if asked.id is not None else [])]:
        if counts[column] > 1:
            raise BadInput(
                f"{name} has {counts[column]} columns '{column}'.", "Rename all but one, or choose another column."
            )
        if complete and there and not counts[column]:
            names = ", ".join(there)
            raise BadInput(
                f"{name}: there is no column '{column}'.", f"There are: {names}. Choose the one with the texts."
            )
    usual = next((c for c in ID_COLUMNS if counts[c] == 1 and c not in wanted), None)
    return Columns(texts=wanted, id=usual if asked.id is None else asked.id)


def joined(parts: Sequence[tuple[str, str]]) -> str:
    """One text of (column, text): a single column's text is taken as it is, several stand under their names."""
    if len(parts) == 1:
        return parts[0][1]
    return "\n".join(f"{column}: {text}" for column, text in parts if text and not text.isspace())


def nested(item: Any, column: str) -> Any:
    """The value of `column` in an object; `a.b` is also the key `b` of the object `a`, and `a.0` a list's first item.

    Raises:
        KeyError: there is none.
    """
    parts = column.split(_NESTING)
    for n in range(len(parts), 0, -1):  # the longest first: a key may have dots of its own
        key, rest = _NESTING.join(parts[:n]), _NESTING.join(parts[n:])
        if isinstance(item, Mapping) and key in item:
            value = item[key]
        elif isinstance(item, list) and n == 1 and key.isdecimal() and int(key) < len(item):
            value = item[int(key)]
        else:
            continue
        return nested(value, rest) if rest else value
    raise KeyError(column)


class Ids:
    """Names for the rows of one output: each is given once, and rows without an id take none that is a number."""

    def __init__(self) -> None:
        self._taken: set[int] = set()  # hashes of 64 bits: a million ids take 60 MB, and not their own size
        self.doubled = 0
        self.first: list[str] = []

    def take(self, key: str, number: int, line: int) -> str:
        """`key`, or a name like it where it was taken; for a row without an id (""), `row` and its number."""
        wanted = key or f"row {number}"
        given, n = wanted, 1
        while hash(given) in self._taken:
            n += 1
            given = f"{wanted} ({n})"
        self._taken.add(hash(given))
        if n > 1:
            self.doubled += 1
            if len(self.first) < _MOST_NAMED:
                self.first.append(f"'{wanted}' of line {line} is kept as '{given}'")
        return given

    def note(self) -> str:
        """What was done with ids that stand twice, in a sentence; "" where none does."""
        if not self.doubled:
            return ""
        more = f", and {self.doubled - len(self.first):,} more" if self.doubled > len(self.first) else ""
        many = "1 id stands" if self.doubled == 1 else f"{self.doubled:,} ids stand"
        return f"{many} twice: {', '.join(self.first)}{more}."


_MOST_NAMED = 5
