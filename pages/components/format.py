"""How figures, times and words look on every page, and the one escape for what comes from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from router.domain import money
from router.domain.policy import find_zone
from router.domain.values import ROUTES as ROUTE_NAMES
from router.domain.values import Window

Colour = Literal["green", "blue", "orange", "violet", "red", "gray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a route looks everywhere: its word, its icon, its hue, and that hue's name in .streamlit/config.toml."""

    word: str
    icon: str
    hue: str
    colour: Colour


ROUTES = {
    "cache": Look(word="cache", icon=":material/bolt:", hue="#0B9A8D", colour="green"),
    "local": Look(word="local", icon=":material/computer:", hue="#3D6FD6", colour="blue"),
    "api": Look(word="API", icon=":material/cloud:", hue="#D97A00", colour="orange"),
    "batch": Look(word="batch", icon=":material/schedule:", hue="#8557D3", colour="violet"),
    "repeated": Look(word="repeated", icon=":material/content_copy:", hue="#7A868C", colour="gray"),
    "refused": Look(word="refused", icon=":material/block:", hue="#C0392B", colour="red"),
}
PER: dict[Window, str] = {
    "request": "a request", "day": "a day", "week": "a week", "month": "a month", "total": "in total",
}  # fmt: skip
AMBER, RED = ROUTES["api"].hue, ROUTES["refused"].hue
EXPORTS = {"Parquet": ".parquet", "NPZ": ".npz", "JSON lines": ".jsonl"}
"""The formats in which vectors are downloaded, with the ending of each."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&\"'^=@/])")
_JOINER = "\u2060"
"""Word joiner, an invisible character that breaks up what Markdown would take for a directive or a link."""
_UNITS = re.compile(r"(?<=\d) (?=%)|(?<=[<≈]) (?=\$)")


def md(text: object) -> str:
    """Text from outside so that Markdown shows it as it is: no formatting, formula, icon, emoji, link or HTML."""
    plain = re.sub(r"\s+", " ", str(text))
    escaped = _MARKDOWN.sub(r"\\\1", unbroken(plain))
    return re.sub(r"(\\:(?=\\?[A-Za-z+\-/])|\\@|[wW]{3}(?=\\\.))", rf"\1{_JOINER}", escaped)


def unbroken(text: str) -> str:
    """With no-break spaces, so that a figure and its unit stay on one line."""
    return _UNITS.sub("\u00a0", text)


def usd(nanodollars: int) -> str:
    """Dollars with as many digits as the amount needs, for plain text; in Markdown: `md(usd(...))`."""
    return money.show(nanodollars)


def exact_usd(nanodollars: int) -> str:
    """All nine decimals, for tooltips."""
    return f"${money.to_json(nanodollars)}"


def estimate(expected: int | None, most: int | None) -> str:
    """A cost before it is spent: `likely $0.0350, at most $0.19`; `≈ $0.0031` where both read the same; `free`."""
    if most is None or expected is None:
        return "price unknown"
    shown = money.show_likely(expected, most)
    return "free" if most == 0 else f"≈ {shown}" if shown.startswith("$") else shown


def estimates(name: str, expected: int | None, most: int | None) -> dict[str, str]:
    """The same as two cells of a table: `name` and its "at most", which is empty where both read the same.

    Old records have only the most.
    """
    if not most:
        return {name: estimate(expected, most), most_of(name): ""}
    likely, bound = "–" if expected is None else usd(expected), usd(most)
    return {name: likely, most_of(name): "" if likely == bound else bound}


def most_of(name: str) -> str:
    """The name of the "at most" column beside a column of likely costs."""
    return f"{name}, at most" if name != "likely" else "at most"


def charged(settled: int, unconfirmed: int) -> str:
    """An amount that was spent, with `?` after it where a part is unconfirmed."""
    return usd(settled + unconfirmed) + (" ?" if unconfirmed else "")


def cost(settled: int, unconfirmed: int) -> str:
    """The same of one request, or `free`."""
    return charged(settled, unconfirmed) if settled + unconfirmed else "free"


def count(number: int) -> str:
    """`812`, `51.2 k`, `1.24 M`."""
    for size, unit, digits in ((1_000_000_000, "G", 2), (1_000_000, "M", 2), (10_000, "k", 1)):
        if number >= size:
            return f"{number / (1_000 if unit == 'k' else size):,.{digits}f} {unit}"
    return f"{number:,}"


def size(number: int) -> str:
    """`812 B`, `51.2 kB`, `1.24 MB`."""
    return f"{count(number)}B" if number >= 10_000 else f"{number:,} B"


def percent(share: float | None) -> str:
    """`84 %`, `0.4 %`, `< 0.1 %`; a dash for None."""
    if share is None:
        return "–"
    value = 100 * share
    number = f"{value:.0f}" if not 0 < value < 1 else f"{value:.1f}" if value >= 0.05 else "< 0.1"
    return f"{number} %"


def seconds(value: float) -> str:
    """`38 ms`, `1.2 s`, `17 s`, `4 min`, `2.5 h`."""
    if value < 0.9995:
        return f"{1000 * value:.0f} ms" if value >= 0.0005 else "< 1 ms"
    number, unit = (value, "s") if value < 99.5 else (value / 60, "min") if value < 5_970 else (value / 3600, "h")
    return f"{number:,.0f} {unit}" if number >= 9.95 or unit == "min" else f"{number:.1f} {unit}"


def latency(milliseconds: float) -> str:
    """`38 ms`, `1.2 s`; a dash for zero, which is no measurement."""
    return seconds(milliseconds / 1000) if milliseconds else "–"


def when(epoch: float, zone: str) -> str:
    """`21 Nov 14:03` in the zone; the page names the zone once."""
    return f"{datetime.fromtimestamp(epoch, find_zone(zone)):%-d %b %H:%M}"


def day(value: date) -> str:
    """`21 November`."""
    return f"{value:%-d %B}"


def moment(start: date) -> str:
    """A day, or the start of an hour: `20 November`, `20 November 14:00`."""
    return f"{day(start)} {start:%H:%M}" if isinstance(start, datetime) else day(start)


def plural(number: int, one: str, many: str = "") -> str:
    """`1 text`, `2 texts`, `1,240 texts`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def tokens(number: int) -> str:
    """`1 token`, `51.2 k tokens`."""
    return f"{count(number)} token{'' if number == 1 else 's'}"


def quality(value: float | None) -> str:
    """A score; a dash for None."""
    return "–" if value is None else f"{value:.1f}"


def listed(names: Sequence[str], most: int) -> list[str]:
    """The first names, with `and 3 more` after them where there are others."""
    return [*names[:most], *([f"and {len(names) - most:,} more"] if names[most:] else [])]


def route_shares(texts: Mapping[Any, int]) -> list[tuple[str, str, float]]:
    """(word, hue, share 0-1) of each route, from the number of distinct texts that it answered."""
    total = sum(texts.values())
    return [(ROUTES[r].word, ROUTES[r].hue, texts[r] / total if total else 0.0) for r in ROUTE_NAMES]
