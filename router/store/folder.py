"""The data folder as a whole: readable by its owner only, and refused where its files do not belong together."""

from __future__ import annotations

import stat
from contextlib import closing, suppress
from pathlib import Path

from router.domain.errors import StoreError
from router.store.database import Error, open_readonly

OTHERS = stat.S_IRWXG | stat.S_IRWXO
LEDGER = "router.db"
OWN = (
    *("*.db", "*.db-wal", "*.db-shm", "precision.json", "*.npz"),
    *("uploads", "uploads/**/*", "batches", "batches/**/*"),
)
"""What this program writes into the folder; other files there are left alone."""
_CONTENTS = {"vectors.db": "vectors", "corpora.db": "collections"}


def prepare(data: Path) -> None:
    """Take the rights of others off files that were written before they were, and check that the folder is whole.

    Raises:
        StoreError: `router.db` is missing or empty beside databases that are not: opening it would begin anew, with
            nothing spent and no policy, beside vectors and collections that were paid for.
    """
    for path in open_to_others(data):
        with suppress(OSError):
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~OTHERS)
    ledger = data / LEDGER
    if _has_rows(ledger, "policies"):
        return
    full = [name for name, table in _CONTENTS.items() if _has_rows(data / name, table)]
    if full:
        how = "is empty" if ledger.exists() else "is missing"
        raise StoreError(
            f"{LEDGER}, which holds what was spent, {how} in {data}, though {' and '.join(full)}"
            f" {'is' if len(full) == 1 else 'are'} not.",
            "Restore it from a backup; or, to begin anew, move the other files of the folder away.",
        )


def open_to_others(data: Path) -> list[Path]:
    """Files of this program in the folder that other users of the machine can read or write."""
    found = {path for pattern in OWN for path in data.glob(pattern) if not path.is_symlink()}
    return sorted(path for path in found if path.stat().st_mode & OTHERS)


def _has_rows(path: Path, table: str) -> bool:
    """False where there is no such file or table, or no row; a file that cannot be read is left to who opens it."""
    if not path.exists():
        return False
    try:
        with closing(open_readonly(path)) as conn:
            return conn.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None
    except Error as error:
        return "no such table" not in str(error)


def damage(path: Path) -> str:
    """What SQLite finds wrong with a database file, in its words; "" where it is sound."""
    try:
        with closing(open_readonly(path)) as conn:
            found = str(conn.execute("PRAGMA quick_check(1)").fetchone()[0])
    except Error as error:
        return str(error)
    return "" if found == "ok" else found.replace("\n", " ")
