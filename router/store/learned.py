"""What was learned of tokenizers that are not at hand, in `router.db`: sums over billed calls, and numbers only.

Written in the transaction that settles the call, so that a call is learned from exactly when it is charged, and once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from router.domain.ratios import TEXT, Errors, Sums, features_of, products
from router.domain.values import Unit
from router.store.database import Connection


def learn_from(conn: Connection, model: str, units: Sequence[Unit], billed: int) -> None:
    """`learn` from a call of these units, where the model's tokenizer is not at hand."""
    call = features_of(units)
    if call is not None:
        learn(conn, model, call[0], expected=call[1], billed=billed, most=sum(unit.tokens for unit in units))


def learn(
    conn: Connection, model: str, features: Mapping[str, float], *, expected: int, billed: int, most: int
) -> None:
    """Learn from a call that the provider billed, and note how far off its expected tokens were.

    Args:
        conn: in the transaction that settles the call.
        model: a model's id.
        features: of the call; see `router.domain.ratios.features`.
        expected: the tokens that were expected before it was sent.
        billed: those that the provider says it billed. Fewer than one a text, or more than `most`, is not believed.
        most: the bound that was held for it.
    """
    if not 0 < features.get(TEXT, 0) <= billed <= most:
        return
    conn.executemany(
        "INSERT INTO token_sums (model, a, b, total) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (model, a, b) DO UPDATE SET total = total + excluded.total",
        [(model, a, b, total) for (a, b), total in products(features, expected, billed).items()],
    )
    off = billed - expected
    conn.execute(
        "INSERT INTO token_errors (model, calls, expected, billed, absolute, squares) VALUES (?, 1, ?, ?, ?, ?)"
        " ON CONFLICT (model) DO UPDATE SET calls = calls + 1, expected = expected + excluded.expected,"
        " billed = billed + excluded.billed, absolute = absolute + excluded.absolute,"
        " squares = squares + excluded.squares",
        (model, expected, billed, abs(off), (off / max(1, expected)) ** 2),
    )


def sums(conn: Connection) -> dict[str, Sums]:
    """What was learned of each model so far."""
    rows = conn.execute("SELECT model, a, b, total FROM token_sums ORDER BY model").fetchall()
    return {model: {(a, b): total for _, a, b, total in some} for model, some in groupby(rows, key=lambda row: row[0])}


def calls(conn: Connection) -> int:
    """How many calls were learned from, of all models; the sums change exactly when this does."""
    (found,) = conn.execute("SELECT coalesce(sum(calls), 0) FROM token_errors").fetchone()
    return int(found)


def errors(conn: Connection) -> dict[str, Errors]:
    """How far off the expected tokens were, by model."""
    rows = conn.execute("SELECT model, calls, expected, billed, absolute, squares FROM token_errors ORDER BY model")
    return {r[0]: Errors(calls=r[1], expected=r[2], billed=r[3], absolute=r[4], squares=r[5]) for r in rows}
