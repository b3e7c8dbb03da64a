"""Rows for the tables of the pages: records of the books and of a quote, as cells with the figures in words.

No Streamlit here. A table's cells are shown as they are, so nothing in them needs an escape; what leaves as CSV does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pages.components.format import (
    ROUTES,
    charged,
    estimate,
    exact_usd,
    latency,
    percent,
    quality,
    seconds,
    usd,
    when,
)
from router.config import Endpoint
from router.corpora.export import safe_cell
from router.corpora.quote import CorpusCandidate
from router.dispatch.lane import Health
from router.domain.money import parse_usd
from router.domain.pricing import price_on
from router.domain.values import Avoided, Model, Price
from router.reports import Day
from router.request.results import Quote, Result
from router.store.reconcile import Unconfirmed
from router.store.usage import Usage

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
            "cost": charged(row["charged"], row["unconfirmed"]),
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
            "": "chosen" if line.verdict.chosen else "",
            "model": line.verdict.model.id,
            "cost now": estimate(line.verdict.cost),
            "cached": f"{line.verdict.cached:,} of {line.verdict.texts:,}",
            "time": seconds(line.verdict.seconds),
            "quality": quality(line.verdict.quality),
            "why": "" if line.verdict.chosen else line.verdict.reason,
            "cost of all": estimate(line.full_cost),
            "space": line.verdict.model.space,
        }
        for line in lines
    ]


def considered(candidates: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The candidates that a request of the books was decided among."""
    ordered = sorted(candidates, key=lambda c: (not c["chosen"], not c["eligible"]))
    return [
        {
            "": "chosen" if c["chosen"] else "",
            "model": c["model"],
            "cost": estimate(None if c["cost_usd"] is None else parse_usd(c["cost_usd"])),
            "cached": c["cached"],
            "time": seconds(c["seconds"]),
            "quality": quality(c["quality"]),
            "why": c["reason"],
        }
        for c in ordered
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


def cosines(vectors: NDArray[np.float32]) -> list[list[float]]:
    """The cosine of each pair of unit vectors `(n, d)`."""
    return [[round(float(x), 3) for x in row] for row in vectors @ vectors.T]


def closest(vectors: NDArray[np.float32]) -> tuple[int, int, float]:
    """The two of at least two unit vectors that are most alike, and their cosine."""
    table = np.array(vectors @ vectors.T)
    np.fill_diagonal(table, -2.0)
    i, j = np.unravel_index(int(table.argmax()), table.shape)
    return int(i), int(j), float(table[i, j])


def by_day(report: Sequence[Day], by: str) -> list[Record]:
    """A row a day and group, newest day first; days without requests have none."""
    return [
        {
            "day": f"{day.day:%Y-%m-%d}",
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


def by_day_csv(report: Sequence[Day], by: str) -> str:
    """The same as CSV with exact dollars; no cell of it is taken for a formula by a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    amounts = ("spent_usd", "unconfirmed_usd", "avoided_usd")
    writer.writerow(["day", by, "requests", "texts", "tokens", *amounts, "errors"])
    for day in report:
        for name, s in day.groups.items():
            money = [exact_usd(a)[1:] for a in (s.charged, s.unconfirmed, s.avoided)]
            counts = (s.requests, s.texts + s.repeated, s.tokens)
            writer.writerow([f"{day.day:%Y-%m-%d}", safe_cell(name), *counts, *money, s.errors])
    return out.getvalue()


def by_day_parquet(report: Sequence[Day], by: str) -> bytes:
    """The same as Parquet; amounts are whole nanodollars."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "day": day.day, by: name, "requests": s.requests, "texts": s.texts + s.repeated, "tokens": s.tokens,
            "spent_nanodollars": s.charged, "unconfirmed_nanodollars": s.unconfirmed,
            "avoided_nanodollars": s.avoided, "errors": s.errors,
        }
        for day in report
        for name, s in day.groups.items()
    ]  # fmt: skip
    amounts = [f"{word}_nanodollars" for word in ("spent", "unconfirmed", "avoided")]
    counts = [(name, pa.int64()) for name in ("requests", "texts", "tokens", *amounts, "errors")]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema([("day", pa.date32()), (by, pa.string()), *counts])), out)
    return out.getvalue()


def latencies(usage: Usage, *, since: float, until: float, where: Mapping[str, str]) -> list[Record]:
    """How long requests took, by the route of those that have any."""
    rows = []
    for route in ("cache", "local", "api", "batch"):
        found = {
            word: usage.latency(since=since, until=until, share=share, where={**where, "route": route})
            for word, share in (("half within", 0.5), ("p95", 0.95))
        }
        if any(found.values()):
            rows.append({"route": [ROUTES[route].word]} | {word: latency(ms) for word, ms in found.items()})
    return rows


def unconfirmed(rows: Iterable[Unconfirmed]) -> list[Record]:
    """Charges that nobody has reconciled yet."""
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


# ---- models ------------------------------------------------------------------------------------

STATES = {"ready": "ready", "key": "no key", "weights": "not installed"}
OTHER_SCALE = "MTEB-v2-en"


def models(shown: Iterable[Model], *, today: date, configured: Callable[[Model], bool], scale: str) -> list[Record]:
    """The catalog: what is ready first shown as such, price, scores, limits, and where each was read."""
    return [_model(model, price_on(model, today), configured(model), scale) for model in shown]


def _model(model: Model, price: Price | None, ready: bool, scale: str) -> Record:
    limits, hand = model.limits, " *"
    return {
        "model": model.id,
        "state": [STATES["ready" if ready else "weights" if model.local else "key"]],
        "now": per_million(price and price.now) + (hand if price and price.second_hand else ""),
        "batch": "–" if model.local or price is None or price.batch is None
        else per_million(price.batch) + (hand if price.batch_second_hand else ""),
        "read": "–" if model.local or price is None else f"{price.checked:%-d %b %Y}",
        scale: _score(model, scale),
        OTHER_SCALE: _score(model, OTHER_SCALE),
        "dimensions": f"{model.dimensions:,}{_sizes(model)}",
        "space": model.space,
        "languages": "English" if model.languages == "en" else "many",
        "tokens a text": _limit(limits.tokens_per_text),
        "texts a call": _limit(limits.texts_per_call),
        "tokens a call": _limit(limits.tokens_per_call),
        "price from": price.source if price else "unknown, so it is never paid for",
    }  # fmt: skip


def per_million(price: Decimal | None) -> str:
    """A price in dollars per million tokens, as it was read: `$0.02`, `free`."""
    if price is None:
        return "unknown"
    return f"${price:f}" if price else "free"


def _score(model: Model, scale: str) -> str:
    score = next((s for s in model.scores if s.scale == scale), None)
    return "–" if score is None else quality(score.value) + (" *" if score.second_hand else "")


def _sizes(model: Model) -> str:
    if model.sizes == "any":
        return ", any lower"
    return "".join(f", {size:,}" for size in sorted(model.sizes, reverse=True))


def _limit(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def providers(lanes: Iterable[Health], endpoints: Iterable[Endpoint], *, now: float) -> list[Record]:
    """The way to each paid provider: whether it has a key, whether it is left alone just now, and why."""
    keyed = {endpoint.name for endpoint in endpoints if endpoint.key is not None}
    return [
        {
            "provider": lane.provider,
            "state": state_of(lane, configured=lane.provider in keyed, now=now),
            "calls at once": f"{lane.in_flight:,} of {lane.width:,}",
            "failures in a row": lane.failures_in_row,
            "last error": lane.last_error or "–",
        }
        for lane in lanes
    ]


def state_of(lane: Health, *, configured: bool, now: float) -> str:
    """A provider's state in words."""
    if not configured:
        return "no key"
    if lane.open_until > now:
        return f"left alone until {when(lane.open_until, 'UTC')}"
    if lane.failures_in_row:
        return "failing, still tried"
    return "ready"


# ---- collections -------------------------------------------------------------------------------


def corpus(candidates: Iterable[CorpusCandidate]) -> list[Record]:
    """The candidates of a collection's quote: the chosen one first, then those that could serve, then the rest."""
    ordered = sorted(candidates, key=lambda c: (not c.verdict.chosen, not c.verdict.eligible))
    return [
        {
            "": "chosen" if c.verdict.chosen else "",
            "model": c.model.id,
            "cost now": estimate(c.now_cost),
            "batch": "–" if c.batch_cost is None else estimate(c.batch_cost),
            "a year": estimate(c.year_cost),
            "cached": percent(c.verdict.cached / c.verdict.texts if c.verdict.texts else None),
            "time": seconds(c.verdict.seconds),
            "quality": quality(c.verdict.quality),
            "why": "" if c.verdict.chosen else c.verdict.reason,
            "note": c.warning,
            "space": c.model.space,
        }
        for c in ordered
    ]
