"""Recorded requests and charges as a replay reads them: in their order, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.store.balances import ACCOUNT, SIGNED, zone_of
from router.store.database import Database


class History:
    """What happened under one policy. Amounts are nanodollars, times epoch seconds. Reads only."""

    def __init__(self, database: Database, policy: str) -> None:
        self._conn = database.reader()
        self._policy = policy

    def requests(self, since: float, until: float) -> Iterator[Mapping[str, Any]]:
        """Each request of the time, with the digests, tokens, copies and facts that were kept, or None for these."""
        cursor = self._conn.execute(
            "SELECT id, status, policy_version, role, model, cache, local, api, batch, avoided, error, p.digests,"
            " p.tokens, p.counts, p.facts FROM requests q LEFT JOIN replay p ON p.request = q.id"
            " WHERE q.policy = ? AND q.at >= ? AND q.at < ? ORDER BY q.at, q.id",
            (self._policy, since, until),
        )
        names = [column[0] for column in cursor.description]
        for row in cursor:
            yield dict(zip(names, row, strict=True))

    def account_zone(self) -> str:
        """The account's time zone."""
        return zone_of(self._conn, ACCOUNT)

    def pace(self) -> dict[tuple[str, str, int], int]:
        """What (owner, window) had used when a day's pace was judged, by the day's start."""
        rows = self._conn.execute(
            "SELECT owner, window, day, used FROM pace WHERE owner IN (?, ?)", (f"policy/{self._policy}", ACCOUNT)
        )
        return {(owner, window, day): used for owner, window, day, used in rows}

    def charged(self, since: float) -> dict[int, int]:
        """What each request was charged from a time on."""
        rows = self._conn.execute(
            f"SELECT request, sum({SIGNED}) FROM charges WHERE policy = ? AND at >= ? GROUP BY request",
            (self._policy, since),
        )
        return dict(rows.fetchall())

    def charges(self, since: float) -> tuple[int, list[tuple[float, int]]]:
        """The sum of the charges before a time, and each from then on, in order."""
        older = f"SELECT coalesce(sum({SIGNED}), 0) FROM charges WHERE policy = ? AND at < ?"
        newer = f"SELECT at, {SIGNED} FROM charges WHERE policy = ? AND at >= ? ORDER BY at"
        (before,) = self._conn.execute(older, (self._policy, since)).fetchone()
        return before, self._conn.execute(newer, (self._policy, since)).fetchall()
