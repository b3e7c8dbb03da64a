"""What all readers share: how they refuse a file, and the words of their notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Read = Callable[[str, str, list[str]], Iterator[str]]
"""(path, codec that the bytes seem to be in, notes to add to) -> blocks of text, in order. A note is a sentence on what
of the file is not in the text."""

NO_CONTROLS = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), " ")
"""For `str.translate`: control characters that no text needs become spaces."""


class Unreadable(Exception):
    """The file cannot be read; the message is the reason."""


def plural(number: int, one: str, many: str = "") -> str:
    """`1 image`, `3 images`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def which(numbers: Sequence[int], one: str) -> str:
    """Numbers in order, as people say them: `page 3`, `pages 2 to 10 and 12`."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    shown: list[str] = []
    for first, *more in spans[:20]:
        shown += [f"{first} to {more[0]}"] if more and more[0] > first + 1 else map(str, [first, *more])
    if len(spans) > 20:
        shown.append("more")
    said = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"{one}{'s' * (len(numbers) > 1)} {said}"
