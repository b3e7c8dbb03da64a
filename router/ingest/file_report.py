"""What became of a file that was read into a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.store.models import Replaced

MOST_REASONS = 20

FileState = Literal["added", "unchanged", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """What became of one file. `skipped` counts rows without a text that could be embedded; `reason` says why not.

    `reasons` has the first of the skipped rows, at most `MOST_REASONS`; `notes` are sentences on a file that was read:
    what of it is not in the chunks, or was changed. `source` is as in `DocumentRow`; `replaces` is the version that it
    takes the place of.
    """

    name: str
    state: FileState
    reason: str = ""
    chunks: int = 0
    skipped: int = 0
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    replaces: Replaced | None = None

    @property
    def from_elsewhere(self) -> bool:
        """True where it replaces a document that was found in another folder or zip."""
        old = self.replaces.source if self.replaces is not None else ""
        return bool(self.source and old) and self.source != old


class Skipped:
    """Rows without a text, what else is to be said of the file, and how far the reading has come."""

    def __init__(self) -> None:
        self.count = self.read = 0
        self.reasons: list[str] = []
        self.notes: list[str] = []

    @property
    def first(self) -> str:
        return self.reasons[0] if self.reasons else ""

    def add(self, reason: str) -> None:
        self.count += 1
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append(reason)

    def words(self) -> str:
        """How a file of nothing else is described."""
        return f": all of its {self.count:,} rows are empty or broken. {self.first[:-1]}" if self.count else ""
