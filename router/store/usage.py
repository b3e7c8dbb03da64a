"""Usage: a row a request, and rollups that dashboards read instead of the rows (rollups.py).

Sums and a latency histogram add up, so a page over ten million requests reads as many rows as one over ten thousand.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from router.domain.values import Route, RouteCounts, Saved
from router.store import drilldown, rollups
from router.store.database import Connection, Database, insert, marks

QUARTER_S = rollups.QUARTER_S
REPLAY_DAYS = 35
SETTLE_PATIENCE_S = 600.0
MOST_ROWS = 500
"""The longest list of requests; the rest is read page by page."""
Place = drilldown.Place
Order = Literal["newest", "cost"]
FEW = 20_000
"""Up to this many requests are sorted by cost; among more, the index is walked."""
_COST = "charged + unconfirmed"

LATENCY_BOUNDS_MS = tuple(round(2 ** (i / 2), 3) for i in range(40))
"""Upper bounds of the latency histogram's buckets: 1 ms to about 12 minutes, a factor of 1.41 apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended. Money in nanodollars; `candidates` is what became of each model, for the drill-down."""

    status: str
    model: str = ""
    space: str = ""
    dimensions: int = 0
    texts: int = 0
    distinct: int = 0
    repeated: int = 0
    routes: RouteCounts = field(default_factory=RouteCounts)
    refused: int = 0
    tokens: int = 0
    charged: int = 0
    unconfirmed: int = 0
    saved: Saved = field(default_factory=Saved)
    latency_ms: float = 0.0
    decision: str = ""
    candidates: Sequence[Mapping[str, object]] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Sums over one group of a usage query. Money in nanodollars."""

    key: str
    requests: int
    texts: int
    tokens: int
    charged: int
    unconfirmed: int
    avoided_cache: int
    avoided_repeats: int
    avoided_dimensions: int
    avoided_local: int
    avoided_batch: int
    repeated: int
    errors: int

    @property
    def saved(self) -> int:
        """Avoided money, all causes together."""
        made = self.avoided_cache + self.avoided_repeats + self.avoided_dimensions
        return made + self.avoided_local + self.avoided_batch

    def plus(self, other: Slice) -> Slice:
        """Both together, under this one's key."""
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in rollups.SUMS})


GROUPS = (*rollups.DIMENSIONS, "quarter")


class Usage:
    """Requests and rollups, in `router.db`."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self.database = database
        self.clock = clock

    async def begin(self, *, policy: str, version: int, collection: str, role: str) -> int:
        """Open a request's row and return its number. Written before anything is held for it."""
        now = self.clock()
        return await self.database.write(lambda conn: insert_request(conn, now, policy, version, collection, role))

    async def record(
        self,
        outcome: Outcome,
        *,
        policy: str,
        version: int,
        collection: str,
        role: str,
        request: int | None = None,
        replay: tuple[bytes, bytes, bytes] | None = None,
        facts: str = "",
    ) -> int:
        """Close a request: its row, its share of the rollups, its digests for replay, in one commit.

        `replay` is its digests (32 bytes each), tokens and copies (u32) of the distinct texts; `facts` is what its
        decision knew (pipeline/trace.py). Charges are not added here: the settlement did, in a transaction of its own.
        """
        now = self.clock()

        def write(conn: Connection) -> int:
            number = request if request is not None else insert_request(conn, now, policy, version, collection, role)
            close_request(conn, number, now, outcome, replay, facts=facts)
            return number

        return await self.database.write(write, patience_s=SETTLE_PATIENCE_S)

    async def forget(self) -> None:
        """Delete the digests of requests older than `REPLAY_DAYS`."""
        old = "DELETE FROM replay WHERE request IN (SELECT id FROM requests WHERE at < ?)"
        await self.database.execute(old, self.clock() - REPLAY_DAYS * 86_400)

    def sums(
        self, *, since: float, until: float, by: Sequence[str] = (), where: Mapping[str, str] | None = None
    ) -> list[tuple[tuple[str | int, ...], Slice]]:
        """Sums of the rollups between two times (epoch seconds), grouped by some of `GROUPS`, filtered by equality.

        The bounds are widened to whole quarter-hours.
        """
        columns = [c for c in by if c in GROUPS]
        found = rollups.sums(self.database.reader(), *_quarters(since, until), columns, _filters(where))
        if not columns and not found:
            found = {(): [0] * len(rollups.SUMS)}
        return [
            (key, Slice(key=" · ".join(map(str, key)), **dict(zip(rollups.SUMS, sums, strict=True))))
            for key, sums in found.items()
        ]

    def total(self, *, since: float, until: float, where: Mapping[str, str] | None = None) -> Slice:
        """One sum over everything between two times."""
        return self.sums(since=since, until=until, where=where)[0][1]

    def began(self) -> float | None:
        """The quarter-hour of the first request, in epoch seconds; None before it."""
        (quarter,) = self.database.row("SELECT min(start) FROM rollups WHERE span = 1 AND grain = 1")
        return None if quarter is None else float(quarter * QUARTER_S)

    def latency(self, *, since: float, until: float, share: float, where: Mapping[str, str] | None = None) -> float:
        """The upper bound (ms) of the bucket in which the given share (0-1) of requests ends; 0.0 if there are none."""
        found = rollups.histograms(self.database.reader(), *_quarters(since, until), _filters(where))
        return _within(found.get("", []), share)

    def latencies(
        self, *, since: float, until: float, shares: Sequence[float], where: Mapping[str, str] | None = None
    ) -> dict[str, list[float]]:
        """The same for several shares, of each route that has any requests."""
        span = _quarters(since, until)
        found = rollups.histograms(self.database.reader(), *span, _filters(where), by_route=True)
        return {route: [_within(rows, share) for share in shares] for route, rows in found.items()}

    def requests(
        self,
        *,
        since: float,
        until: float,
        where: Mapping[str, str] | None = None,
        limit: int = MOST_ROWS,
        before: Place | None = None,
        order: Order = "newest",
    ) -> list[dict[str, Any]]:
        """Requests between two times, newest or most expensive first, as dicts of the table's columns.

        `where`: equality of model, policy, collection or status. `before`: only those behind the one at this place.
        """
        filters = {c: v for c, v in (where or {}).items() if c in ("model", "policy", "collection", "status")}
        names, index = ["at", "id"], ""
        if order == "cost":
            # Many: walk down the costs, and the page is full soon. Few: sort them all (+, so that no index is walked).
            many = self.total(since=since, until=until, where=filters).requests > FEW
            names, index = [_COST if many else f"+({_COST})", *names], " INDEXED BY requests_by_cost" * many
        walk = (
            f"SELECT id FROM requests{index} WHERE at >= ? AND at < ?"
            + "".join(f" AND {c} = ?" for c in filters)
            + (f" AND ({', '.join(names)}) < ({marks(names)})" if before else "")
            + f" ORDER BY {' DESC, '.join(names)} DESC LIMIT ?"
        )
        conn = self.database.reader()
        values = (since, until, *filters.values(), *(before or ()), min(limit, MOST_ROWS))
        numbers = [number for (number,) in conn.execute(walk, values)]
        rows = self._rows(numbers, order)
        return [rows[number] for number in numbers if number in rows]

    def behind(
        self,
        *,
        since: float,
        until: float,
        where: Mapping[str, str | Sequence[str]],
        limit: int = MOST_ROWS,
        before: Place | None = None,
        order: Order = "newest",
    ) -> list[dict[str, Any]]:
        """The requests with charges that `sums` counts between two times, by newest charge or by cost (drilldown.py).

        Dicts of the table's columns, with `paid` and `unsure`, the nanodollars that count there, and `place`. The
        bounds are whole quarter-hours.
        """
        read = drilldown.most_expensive if order == "cost" else drilldown.newest
        shares = read(self.database.reader(), (since, until), where, min(limit, MOST_ROWS), before)
        rows = self._rows([share["request"] for share in shares])
        return [rows[share["request"]] | share for share in shares if share["request"] in rows]

    def remarks(self, number: int) -> list[tuple[str, str, int, int]]:
        """A request's charges by kind and reason: (kind, reason, how many, nanodollars together).

        Charges at the provider's own figure, which have no reason, are left out.
        """
        rows: list[tuple[str, str, int, int]] = self.database.reader().execute(
            "SELECT kind, reason, count(*), sum(amount) FROM charges WHERE request = ? AND reason <> ''"
            " GROUP BY kind, reason ORDER BY min(id)",
            (number,),
        ).fetchall()  # fmt: skip
        return rows

    def request(self, number: int) -> dict[str, Any] | None:
        """One request's row with its candidates, or None."""
        return self._rows([number]).get(number)

    def _rows(self, numbers: Sequence[int], order: Order = "newest") -> dict[int, dict[str, Any]]:
        """Requests by number, as dicts of the table's columns with the `place` that they have in this order."""
        sql = f"SELECT * FROM requests WHERE id IN ({marks(numbers)})"
        cursor = self.database.reader().execute(sql, tuple(numbers))
        names = [column[0] for column in cursor.description]
        rows = {row[0]: dict(zip(names, row, strict=True)) for row in cursor}
        for row in rows.values():
            row["candidates"] = json.loads(row["candidates"])
            cost = (row["charged"] + row["unconfirmed"],) if order == "cost" else ()
            row["place"] = (*cost, row["at"], row["id"])
        return rows


def _within(rows: Sequence[tuple[int, int]], share: float) -> float:
    wanted, passed = share * float(sum(n for _, n in rows)), 0
    for bucket, n in rows:
        passed += n
        if passed >= wanted:
            return float(LATENCY_BOUNDS_MS[min(bucket, len(LATENCY_BOUNDS_MS) - 1)])
    return 0.0


def _quarters(since: float, until: float) -> tuple[int, int]:
    """The bounds widened to whole quarter-hours."""
    return int(since) // QUARTER_S, -(-int(until) // QUARTER_S)


def _filters(where: Mapping[str, str] | None) -> dict[str, str]:
    return {c: v for c, v in (where or {}).items() if c in rollups.DIMENSIONS}


def insert_request(conn: Connection, now: float, policy: str, version: int, collection: str, role: str) -> int:
    """A new request's row, in the caller's transaction; returns its number."""
    about = {"at": now, "policy": policy, "policy_version": version, "collection": collection, "role": role}
    return insert(conn, "requests", about | _columns(Outcome(status="open")))


def close_request(
    conn: Connection,
    number: int,
    now: float,
    outcome: Outcome,
    replay: tuple[bytes, bytes, bytes] | None,
    *,
    route: Route | None = None,
    facts: str = "",
) -> None:
    """End a request's row and add its share of the rollups, in the caller's transaction; see `Usage.record`.

    `route`: what it counts under; otherwise the one that did most of the work.
    """
    values = _columns(outcome)
    policy, collection = conn.execute(
        f"UPDATE requests SET {' = ?, '.join(values)} = ? WHERE id = ? RETURNING policy, collection",
        (*values.values(), number),
    ).fetchone()
    if replay is not None:
        conn.execute(
            "INSERT OR REPLACE INTO replay (request, digests, tokens, counts, facts) VALUES (?, ?, ?, ?, ?)",
            (number, *replay, facts),
        )
    _add_outcome(conn, int(now) // QUARTER_S, policy, collection, outcome, route)


def _columns(outcome: Outcome) -> dict[str, Any]:
    """An outcome as columns of the table."""
    values = {name: getattr(outcome, name) for name in Outcome.__dataclass_fields__}
    values |= asdict(values.pop("routes"))
    values["distinct_texts"] = values.pop("distinct")
    values["avoided"] = values.pop("saved").total
    values["candidates"] = json.dumps(list(outcome.candidates))
    return values


def _add_outcome(
    conn: Connection, quarter: int, policy: str, collection: str, outcome: Outcome, route: Route | None
) -> None:
    """The request's share of the rollups: what was answered free, what was avoided, and its latency."""
    saved, routes = outcome.saved, outcome.routes
    # The request itself, its repeats and its failure count under the route that did most of the work.
    main = route or ("batch" if routes.batch else "api" if routes.api else "local" if routes.local else "cache")

    failed = int(outcome.status not in ("done", "partial"))
    parts: dict[str, dict[str, int]] = {
        main: {"requests": 1, "repeated": outcome.repeated, "avoided_repeats": saved.repeats, "errors": failed}
    }
    if routes.cache:
        cached = {"avoided_cache": saved.cache, "avoided_dimensions": saved.dimensions}
        parts.setdefault("cache", {}).update(texts=routes.cache, **cached)
    if routes.local:
        parts.setdefault("local", {}).update(texts=routes.local, avoided_local=saved.local)
    if saved.batch:
        parts.setdefault("batch", {}).update(avoided_batch=saved.batch)
    for name, sums in parts.items():
        rollups.add(conn, (quarter, policy, collection, outcome.model, name), sums)
    if main == "batch":
        return  # it takes hours by design: among the requests that somebody waits for it would hide every p95
    bucket = bisect.bisect_left(LATENCY_BOUNDS_MS, outcome.latency_ms)
    rollups.add_latency(conn, (quarter, policy, collection, outcome.model, main), bucket)


def forget_texts(conn: Connection, digests: Sequence[bytes]) -> int:
    """Take texts out of what is kept for replay, in the caller's transaction; returns of how many requests."""
    changed = 0
    for digest in digests:
        rows = conn.execute(
            "SELECT request, digests, tokens, counts FROM replay WHERE instr(digests, ?) > 0", (digest,)
        ).fetchall()
        for request, keys, tokens, copies in rows:
            keep = [at for at in range(len(keys) // 32) if keys[32 * at : 32 * at + 32] != digest]
            parts = (
                b"".join(column[size * at : size * at + size] for at in keep)
                for size, column in ((32, keys), (4, tokens), (4, copies))
            )
            conn.execute("UPDATE replay SET digests = ?, tokens = ?, counts = ? WHERE request = ?", (*parts, request))
        changed += len(rows)
    return changed
