"""Table rows: usage, quotes and charges as cells of text. No Streamlit here.

Tables show their cells as they are, so nothing in them needs an escape; cells of a CSV file do.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pages.components.format import (
    ROUTES,
    charged,
    count,
    estimates,
    exact_usd,
    latency,
    percent,
    quality,
    seconds,
    usd,
    when,
)
from router.domain.money import parse_usd
from router.domain.values import ROUTES as ROUTE_NAMES
from router.domain.values import Saved, Verdict
from router.jobs.estimate import EstimatedCandidate
from router.jobs.quote import CorpusCandidate
from router.pipeline.results import Quote, Result
from router.reporting.figures import Day
from router.search.export import safe_cell
from router.store.reconcile import Unconfirmed
from router.store.usage import Slice, Usage

Record = dict[str, Any]

CAUSES = {
    "cache": "Embedded before",
    "repeats": "Repeats in a request",
    "dimensions": "Cut from larger vectors",
    "local": "Local model",
    "batch": "Batch discount",
}

SUMS = ("requests", "texts", "tokens", "spent", "unconfirmed", "saved", "errors")
MONEY = {"spent": "spent", "unconfirmed": "unconfirmed", "saved": "avoided"}
"""Those that are amounts, with their names in files."""


def requests(rows: Iterable[Mapping[str, Any]], zone: str) -> list[Record]:
    """Recorded requests, in the order given."""
    return [
        {
            "time": when(row["at"], zone),
            "texts": row["texts"],
            "answered by": ["running"]
            if row["status"] == "open"
            else [ROUTES[name].word for name in (*ROUTE_NAMES, "refused") if row[name]],
            # Behind a bar, `paid` and `unsure` are the part that the bar counts.
            "cost": charged(row.get("paid", row["charged"]), row.get("unsure", row["unconfirmed"])),
            "saved": usd(row["avoided"]),
            "took": latency(row["latency_ms"]),
            "policy": row["policy"],
            "model": row["model"] or "–",
            "why": row["error"] or row["decision"],
        }
        for row in rows
    ]


def answers(texts: Sequence[str], result: Result) -> list[Record]:
    """Each text of a result with its route and the first numbers of its vector."""
    return [
        {
            "text": text if len(text) <= 300 else f"{text[:300]}…",
            "answered by": [ROUTES[route].word],
            "vector": "–" if i in result.problems else f"[{', '.join(f'{x:.4f}' for x in result.vectors[i, :4])}, …]",
            "note": str(result.problems[i]) if i in result.problems else "cut to fit" if i in result.cut else "",
        }
        for i, (text, route) in enumerate(zip(texts, result.routes, strict=True))
    ]


def closest(vectors: NDArray[np.float32]) -> tuple[int, int, float]:
    """The two of at least two unit vectors that are most alike, and their cosine."""
    table = np.array(vectors @ vectors.T)
    np.fill_diagonal(table, -2.0)
    i, j = np.unravel_index(int(table.argmax()), table.shape)
    return int(i), int(j), float(table[i, j])


# ---- candidates: the chosen one first, then the eligible ones, then the rest -------------------


def quoted(quote: Quote) -> list[Record]:
    """The candidates of a quote."""
    return [
        {
            "model": line.verdict.model.id,
            **estimates("likely", line.verdict.expected, line.verdict.cost),
            "": "chosen" if line.verdict.chosen else "",
            "cached": f"{line.verdict.cached:,} of {line.verdict.texts:,}",
            "time": seconds(line.verdict.seconds),
            **_why(line.verdict),
            **estimates("all of them", line.full_expected, line.full_cost),
            "space": line.verdict.model.space,
        }
        for line in sorted(quote.lines, key=lambda line: _rank(line.verdict))
    ]


def considered(candidates: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The candidates of a recorded request."""
    return [
        {
            "model": c["model"],
            **estimates("likely", _nanodollars(c.get("expected_usd")), _nanodollars(c["cost_usd"])),
            "": "chosen" if c["chosen"] else "",
            "cached": c["cached"],
            "time": seconds(c["seconds"]),
            "quality": quality(c["quality"]),
            "why": c["reason"],
        }
        for c in sorted(candidates, key=lambda c: (not c["chosen"], not c["eligible"]))
    ]


def _nanodollars(written: str | None) -> int | None:
    return None if written is None else parse_usd(written)


def corpus(candidates: Iterable[CorpusCandidate]) -> list[Record]:
    """The candidates of a collection's quote."""
    return [
        {
            "model": c.model.id,
            **estimates("likely", c.now_expected, c.now_cost),
            "": "chosen" if c.verdict.chosen else "",
            **estimates("batch", c.verdict.expected_batch, c.verdict.batch_cost),
            **({"batch": "–"} if c.verdict.batch_cost is None else {}),
            **estimates("a year", c.year_expected, c.year_cost),
            "cached": percent(c.verdict.cached / c.verdict.texts if c.verdict.texts else None),
            "time": seconds(c.verdict.seconds),
            **_why(c.verdict),
            "note": c.warning,
            "space": c.model.space,
        }
        for c in sorted(candidates, key=lambda c: _rank(c.verdict))
    ]


def estimated(candidates: Iterable[EstimatedCandidate]) -> list[Record]:
    """The candidates of an estimate; "from" and "to" are empty where there is no interval."""
    return [
        {
            "model": c.likely.model.id,
            **_between(c),
            "": "chosen" if c.likely.verdict.chosen else "",
            **_why(c.likely.verdict),
        }
        for c in sorted(candidates, key=lambda c: _rank(c.likely.verdict))
    ]


def _rank(verdict: Verdict) -> tuple[bool, bool]:
    return not verdict.chosen, not verdict.eligible


def _why(verdict: Verdict) -> Record:
    return {"quality": quality(verdict.quality), "why": "" if verdict.chosen else verdict.reason}


def _between(candidate: EstimatedCandidate) -> dict[str, str]:
    found, local = candidate.range("now_expected"), candidate.likely.model.local
    if found is None or local:
        return {"likely": "free" if local else "price unknown", "from": "", "to": ""}
    low, high = ("" if end is None else usd(end) for end in (found.low, found.high))
    return {"likely": usd(found.likely), "from": low, "to": high}


# ---- the spend report --------------------------------------------------------------------------


def by_group(report: Sequence[Day], names: Iterable[str], of: Callable[[Slice], int]) -> dict[str, list[int]]:
    """An amount of each group in each day or hour; groups without any are left out."""
    amounts = {name: [of(d.groups[name]) if name in d.groups else 0 for d in report] for name in names}
    return {name: values for name, values in amounts.items() if any(values)}


def by_day(report: Sequence[Day], by: str, step: str = "day") -> list[Record]:
    """A row for each day (or hour) and group with requests, the newest first."""
    return [
        {
            step: f"{start:%Y-%m-%d %H:%M}" if isinstance(start, datetime) else start.isoformat(),
            by: ROUTES[group].word if by == "route" else group or "(none)",
            **{name: usd(number) if name in MONEY else number for name, number in sums.items()},
        }
        for start, group, sums in _sums(reversed(report))
    ]


def by_day_csv(report: Sequence[Day], by: str, step: str = "day") -> str:
    """The same as CSV, the oldest first, with exact dollars; no cell can act as a formula in a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([step, by, *_names("usd")])
    for start, group, sums in _sums(report):
        numbers = [exact_usd(number)[1:] if name in MONEY else number for name, number in sums.items()]
        writer.writerow([start.isoformat(), safe_cell(group), *numbers])
    return out.getvalue()


def by_day_parquet(report: Sequence[Day], by: str, step: str = "day") -> bytes:
    """The same as Parquet; amounts are whole nanodollars, hours are in UTC."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _names("nanodollars")
    rows = [
        {step: start, by: group, **dict(zip(names, sums.values(), strict=True))} for start, group, sums in _sums(report)
    ]
    kind = pa.date32() if step == "day" else pa.timestamp("s", tz="UTC")
    schema = pa.schema([(step, kind), (by, pa.string()), *((name, pa.int64()) for name in names)])
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), out)
    return out.getvalue()


def _sums(report: Iterable[Day]) -> Iterator[tuple[date, str, dict[str, int]]]:
    """(start, group, sums by the names of `SUMS`) of each day or hour and group; money in nanodollars."""
    for day in report:
        for group, s in day.groups.items():
            sums = (s.requests, s.texts + s.repeated, s.tokens, s.charged, s.unconfirmed, s.saved, s.errors)
            yield day.day, group, dict(zip(SUMS, sums, strict=True))


def _names(unit: str) -> list[str]:
    """The names of the sums in files."""
    return [f"{MONEY[name]}_{unit}" if name in MONEY else name for name in SUMS]


def collections(groups: Mapping[str, Slice], most: int = 10) -> list[Record]:
    """The most expensive collections; those that cost nothing by what they saved."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1].charged - item[1].unconfirmed, -item[1].saved))
    return [
        {
            "collection": name,
            "spent": charged(s.charged, s.unconfirmed),
            "saved": usd(s.saved),
            "texts": count(s.texts + s.repeated),
            "requests": s.requests,
        }
        for name, s in ordered
        if name
    ][:most]


def latencies(usage: Usage, *, since: float, until: float, where: Mapping[str, str]) -> list[Record]:
    """How long requests took, for each route that answered any."""
    found = usage.latencies(since=since, until=until, shares=(0.5, 0.95), where=where)
    return [
        {"route": [ROUTES[route].word], "p50": latency(half), "p95": latency(p95)}
        for route, (half, p95) in sorted(found.items(), key=lambda one: list(ROUTES).index(one[0]))
    ]


def unconfirmed(rows: Iterable[Unconfirmed]) -> list[Record]:
    """Charges to be confirmed or struck. Times in UTC, as on the providers' invoices."""
    return [
        {
            "time": when(row.at, "UTC"),
            "amount": charged(0, row.amount),
            "model": row.model,
            "route": [ROUTES[row.route].word],
            "policy": row.policy,
            "collection": row.collection or "–",
            "request": row.request,
            "why": row.reason,
        }
        for row in rows
    ]


def causes(saved: Saved) -> list[Record]:
    """Saved money by cause, largest first, with its share."""
    return [
        {"cause": CAUSES[cause], "saved": usd(amount), "share": percent(amount / saved.total), "nanodollars": amount}
        for cause, amount in sorted(asdict(saved).items(), key=lambda item: -item[1])
        if amount
    ]
