"""Rows for the tables of the pages: records of the books and of a quote, as cells with the figures in words.

No Streamlit here. A table's cells are shown as they are, so nothing in them needs an escape; what leaves as CSV does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
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
from router.domain.values import Avoided
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


def requests(rows: Iterable[Mapping[str, Any]], zone: str) -> list[Record]:
    """Requests of the books, as they come (newest first)."""
    return [
        {
            "time": when(row["at"], zone),
            "texts": row["texts"],
            "answered by": routes_of(row),
            # Behind a bar: what of it counts there.
            "cost": charged(row.get("paid", row["charged"]), row.get("unsure", row["unconfirmed"])),
            "avoided": usd(row["avoided"]),
            "took": latency(row["latency_ms"]),
            "policy": row["policy"],
            "model": row["model"] or "–",
            "why": row["error"] or row["decision"],
        }
        for row in rows
    ]


def routes_of(row: Mapping[str, Any]) -> list[str]:
    """The words of the routes that answered a request, with `refused` where texts were."""
    names = [name for name in ("cache", "local", "api", "batch") if row[name]]
    if row["status"] == "open":
        return ["running"]
    return [ROUTES[name].word for name in (*names, *(["refused"] if row["refused"] else []))]


def quoted(quote: Quote) -> list[Record]:
    """The candidates of a quote: the chosen one first, then those that could serve, then the rest."""
    lines = sorted(quote.lines, key=lambda line: (not line.verdict.chosen, not line.verdict.eligible))
    return [
        {
            "model": line.verdict.model.id,
            **estimates("likely", line.verdict.expected, line.verdict.cost),
            "": "chosen" if line.verdict.chosen else "",
            "cached": f"{line.verdict.cached:,} of {line.verdict.texts:,}",
            "time": seconds(line.verdict.seconds),
            "quality": quality(line.verdict.quality),
            "why": "" if line.verdict.chosen else line.verdict.reason,
            **estimates("all of them", line.full_expected, line.full_cost),
            "space": line.verdict.model.space,
        }
        for line in lines
    ]


def considered(candidates: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The candidates that a request of the books was decided among."""
    ordered = sorted(candidates, key=lambda c: (not c["chosen"], not c["eligible"]))
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
        for c in ordered
    ]


def _nanodollars(written: str | None) -> int | None:
    return None if written is None else parse_usd(written)


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


def cosines(vectors: NDArray[np.float32]) -> list[list[float]]:
    """The cosine of each pair of unit vectors `(n, d)`."""
    return [[round(float(x), 3) for x in row] for row in vectors @ vectors.T]


def closest(vectors: NDArray[np.float32]) -> tuple[int, int, float]:
    """The two of at least two unit vectors that are most alike, and their cosine."""
    table = np.array(vectors @ vectors.T)
    np.fill_diagonal(table, -2.0)
    i, j = np.unravel_index(int(table.argmax()), table.shape)
    return int(i), int(j), float(table[i, j])


def by_day(report: Sequence[Day], by: str, step: str = "day") -> list[Record]:
    """A row a day (or hour) and group, the newest first; those without requests have none."""
    return [
        {
            step: _place(day.day),
            by: ROUTES[name].word if by == "route" else name or "(none)",
            "requests": s.requests,
            "texts": s.texts + s.repeated,
            "tokens": s.tokens,
            "spent": usd(s.charged),
            "unconfirmed": usd(s.unconfirmed),
            "avoided": usd(s.avoided),
            "errors": s.errors,
        }
        for day in reversed(report)
        for name, s in day.groups.items()
    ]


def _place(start: date) -> str:
    return f"{start:%Y-%m-%d %H:%M}" if isinstance(start, datetime) else start.isoformat()


def by_day_csv(report: Sequence[Day], by: str, step: str = "day") -> str:
    """The same as CSV with exact dollars; no cell of it is taken for a formula by a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    amounts = ("spent_usd", "unconfirmed_usd", "avoided_usd")
    writer.writerow([step, by, "requests", "texts", "tokens", *amounts, "errors"])
    for day in report:
        start = day.day.isoformat()
        for name, s in day.groups.items():
            money = [exact_usd(a)[1:] for a in (s.charged, s.unconfirmed, s.avoided)]
            counts = (s.requests, s.texts + s.repeated, s.tokens)
            writer.writerow([start, safe_cell(name), *counts, *money, s.errors])
    return out.getvalue()


def by_day_parquet(report: Sequence[Day], by: str, step: str = "day") -> bytes:
    """The same as Parquet; amounts are whole nanodollars, hours are in UTC."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            step: day.day, by: name, "requests": s.requests, "texts": s.texts + s.repeated, "tokens": s.tokens,
            "spent_nanodollars": s.charged, "unconfirmed_nanodollars": s.unconfirmed,
            "avoided_nanodollars": s.avoided, "errors": s.errors,
        }
        for day in report
        for name, s in day.groups.items()
    ]  # fmt: skip
    amounts = [f"{word}_nanodollars" for word in ("spent", "unconfirmed", "avoided")]
    counts = [(name, pa.int64()) for name in ("requests", "texts", "tokens", *amounts, "errors")]
    kind = pa.date32() if step == "day" else pa.timestamp("s", tz="UTC")
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([(step, kind), (by, pa.string()), *counts])), out)
    return out.getvalue()


def collections(groups: Mapping[str, Slice], most: int = 10) -> list[Record]:
    """The collections that cost most, by name; those that cost nothing by what they avoided."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1].charged - item[1].unconfirmed, -item[1].avoided))
    return [
        {
            "collection": name,
            "spent": charged(s.charged, s.unconfirmed),
            "avoided": usd(s.avoided),
            "texts": count(s.texts + s.repeated),
            "requests": s.requests,
        }
        for name, s in ordered
        if name
    ][:most]


def latencies(usage: Usage, *, since: float, until: float, where: Mapping[str, str]) -> list[Record]:
    """How long requests took, by the route of those that have any."""
    found = usage.latencies(since=since, until=until, shares=(0.5, 0.95), where=where)
    return [
        {"route": [ROUTES[route].word], "half within": latency(half), "p95": latency(p95)}
        for route, (half, p95) in sorted(found.items(), key=lambda one: list(ROUTES).index(one[0]))
    ]


def unconfirmed(rows: Iterable[Unconfirmed]) -> list[Record]:
    """Charges that nobody has reconciled yet. Times in UTC, as on the providers' invoices."""
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


def causes(avoided: Avoided) -> list[Record]:
    """Avoided money by cause, largest first, with its share."""
    amounts, total = asdict(avoided), avoided.total
    return [
        {"cause": CAUSES[cause], "avoided": usd(amount), "share": percent(amount / total), "nanodollars": amount}
        for cause, amount in sorted(amounts.items(), key=lambda item: -item[1])
        if amount
    ]


# ---- collections -------------------------------------------------------------------------------


def corpus(candidates: Iterable[CorpusCandidate]) -> list[Record]:
    """The candidates of a collection's quote: the chosen one first, then those that could serve, then the rest."""
    ordered = sorted(candidates, key=lambda c: (not c.verdict.chosen, not c.verdict.eligible))
    return [
        {
            "model": c.model.id,
            **estimates("likely", c.now_expected, c.now_cost),
            "": "chosen" if c.verdict.chosen else "",
            **estimates("batch", c.batch_expected, c.batch_cost),
            **({"batch": "–"} if c.batch_cost is None else {}),
            **estimates("a year", c.year_expected, c.year_cost),
            "cached": percent(c.verdict.cached / c.verdict.texts if c.verdict.texts else None),
            "time": seconds(c.verdict.seconds),
            "quality": quality(c.verdict.quality),
            "why": "" if c.verdict.chosen else c.verdict.reason,
            "note": c.warning,
            "space": c.model.space,
        }
        for c in ordered
    ]


def estimated(candidates: Iterable[EstimatedCandidate]) -> list[Record]:
    """The candidates of an estimate, in the order of `corpus`; "from" and "to" are empty where there is no interval."""
    ordered = sorted(candidates, key=lambda c: (not c.likely.verdict.chosen, not c.likely.verdict.eligible))
    return [
        {
            "model": c.likely.model.id,
            **_between(c, "now_expected"),
            "": "chosen" if c.likely.verdict.chosen else "",
            "quality": quality(c.likely.verdict.quality),
            "why": "" if c.likely.verdict.chosen else c.likely.verdict.reason,
        }
        for c in ordered
    ]


def _between(candidate: EstimatedCandidate, cost: str) -> dict[str, str]:
    found = candidate.range(cost)
    if found is None or candidate.likely.model.local:
        return {"likely": "free" if candidate.likely.model.local else "price unknown", "from": "", "to": ""}
    ends = {"from": found.low, "to": found.high}
    return {"likely": usd(found.likely), **{name: "" if end is None else usd(end) for name, end in ends.items()}}
