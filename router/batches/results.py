"""The results of a batch: lines in any order, some doubled, unknown, nameless or missing, and what they come to.

A line is one text, named by its digest, so that a result can go to no other text and needs no table to be understood
after a restart. What was billed is reckoned line by line, as the provider does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import BadReply
from router.domain.kinds import BYTES_A_TOKEN
from router.domain.usage import believe
from router.domain.values import Model, Unit
from router.providers.base import EmbedCall, Floats, check, read_json, to_reply
from router.providers.batch import RemoteBatch
from router.tokens import MARKERS

RECORD = np.dtype([("digest", "V32"), ("tokens", "<u4"), ("state", "u1")])
"""A text of a batch as its row keeps it, 37 bytes."""
Records = NDArray[np.void]
OPEN, STORED = 0, 1
"""States of a text: to be tried again (or not answered yet), in the cache. From 2 on it failed for good: the state
is the number of the line in the row's `reason` that says why, counted from one."""
MOST_REASONS = 250
NO_RESULT = "finished by the provider, and no result given"
MOST_TRIES = 3
"""Batches that a text is sent in before it is reported as failed."""
GROUP = 256
LONGEST_LINE = 1 << 20
_PASSING = (408, 409, 425, 429)


def to_records(units: Sequence[Unit]) -> bytes:
    """The texts of a new batch, packed."""
    records = np.zeros(len(units), dtype=RECORD)
    records["digest"] = np.frombuffer(b"".join(u.digest for u in units), dtype="V32")
    records["tokens"] = [u.tokens for u in units]
    return records.tobytes()


def from_bytes(packed: bytes) -> Records:
    """The texts of a batch, unpacked."""
    return np.frombuffer(packed, dtype=RECORD)


def digests_of(records: Records) -> list[bytes]:
    """Their digests, 32 bytes each."""
    packed = records["digest"].tobytes()
    return [packed[i : i + 32] for i in range(0, len(packed), 32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Vectors of some result lines, `(n, dimensions)` float32 of unit length, with their texts' digests and tokens.

    The tokens are those that were billed, where the provider says so, else likely ones.
    """

    digests: list[bytes] = field(repr=False)
    tokens: list[int] = field(repr=False)
    vectors: Floats = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What an ended batch comes to.

    Attributes:
        billed, unconfirmed: nanodollars; unconfirmed is for requests that the provider finished, and of which it
            gave no result.
        tokens: billed, as the provider said.
        stored, failed: texts in the cache, and failed for good.
        confirmed: True where every text is in the cache, and the provider said what it billed for each.
        records: packed, with each text's state.
        reason: a line on the batch, then one for each reason why a text failed for good.
        doubt: why `unconfirmed` is that.
    """

    billed: int
    unconfirmed: int
    tokens: int
    stored: int
    failed: int
    confirmed: bool = False
    records: bytes = field(repr=False)
    reason: str
    doubt: str = NO_RESULT


class Results:
    """Reads the result files of one batch."""

    def __init__(self, name: str, model: Model, records: Records, price: Callable[[int], int]) -> None:
        """`price` gives nanodollars, rounded up, for the tokens of one line."""
        self._name = name
        self._model = model
        self._price = price
        self._records = records
        self._digests = digests_of(records)
        self._index = {digest.hex(): i for i, digest in enumerate(self._digests)}
        self._stored: set[int] = set()
        self._finished: set[int] = set()
        self._why: dict[int, tuple[str, bool]] = {}  # (reason, for good)
        self._billed = self._tokens = self._beyond = 0
        self._said: dict[int, int] = {}  # what was billed for a text, in tokens, where that can be true
        self._doubt = ""
        self.broken = 0

    def read(self, file: BinaryIO) -> Found | None:
        """The next vectors of an open result file, at most `GROUP`; None at its end."""
        found: dict[int, Floats] = {}
        while len(found) < GROUP:
            line = file.readline(LONGEST_LINE)
            if not line:
                break
            if line.isspace():
                continue
            try:
                data = read_json(self._name, line)
            except BadReply:
                self.broken += 1
                continue
            vector = self._take(data) if isinstance(data, dict) else None
            if vector is not None:
                found[vector[0]] = vector[1]
        if not found:
            return None
        return Found(
            digests=[self._digests[i] for i in found],
            tokens=[self._said.get(i) or self._guess(i) for i in found],
            vectors=np.concatenate(list(found.values())),
        )

    def _guess(self, i: int) -> int:
        bound = int(self._records["tokens"][i])
        return bound if self._model.tokenizer != "bytes" else 1 + max(0, bound - MARKERS) // BYTES_A_TOKEN

    def lost(self, remote: RemoteBatch) -> int:
        """Requests that the provider finished, and billed, and of which no result was read."""
        unseen = len(self._unseen())
        if remote.completed is None:
            return unseen if remote.status in ("completed", "expired") else 0
        return min(unseen, max(0, remote.completed - len(self._finished)))

    def settle(self, remote: RemoteBatch, tries: Mapping[bytes, int]) -> Settlement:
        """What the batch comes to, all its files read. `tries`: earlier batches that a text was in, in vain."""
        for flaw in remote.flaws:
            if flaw.line is not None and 0 < flaw.line <= len(self._digests):
                self._why[flaw.line - 1] = (f"{self._name} refused it: {flaw.message}", True)
        unseen = self._unseen()
        lost = self.lost(remote)
        most = sorted((self._price(int(self._records["tokens"][i])) for i in unseen), reverse=True)
        unconfirmed = sum(most[:lost])
        if lost and remote.tokens is not None:  # the sum that the provider gives may be more than was held
            unconfirmed = max(unconfirmed, self._price(max(0, remote.tokens - self._tokens)) + lost - 1)
        unconfirmed += self._beyond
        silence = _silence(self._name, remote)
        reasons: dict[str, int] = {}
        states = np.zeros(len(self._digests), dtype=np.uint8)
        states[list(self._stored)] = STORED
        for i, digest in enumerate(self._digests):
            if i in self._stored:
                continue
            why, for_good = self._why.get(i, (silence, False))
            if for_good or tries.get(digest, 0) + 1 >= MOST_TRIES:
                if len(reasons) >= MOST_REASONS:
                    why = "It failed, for one of many different reasons."
                states[i] = reasons.setdefault(" ".join(why.split()), len(reasons) + 2)
        records = self._records.copy()
        records["state"] = states
        failed = int((states > STORED).sum())
        again = len(states) - len(self._stored) - failed
        words = [f"{remote.status}: {len(self._stored):,} of {len(states):,} texts embedded"]
        words += [f"{failed:,} failed"] if failed else []
        words += [f"{again:,} to be sent again"] if again else []
        words += (
            [f"not all booked at the provider's figures, for {self._doubt}"] if self._doubt and self._billed else []
        )
        if flaws := [flaw.message for flaw in remote.flaws[:3]]:
            words.append(" ".join(flaws))
        return Settlement(
            billed=self._billed,
            unconfirmed=unconfirmed,
            tokens=self._tokens,
            stored=len(self._stored),
            failed=failed,
            confirmed=len(self._stored) == len(self._said) == len(states),
            records=records.tobytes(),
            reason="\n".join(["; ".join(words), *reasons]),
            doubt=self._doubt if self._beyond and not lost else NO_RESULT,
        )

    def give_up(self, tries: Mapping[bytes, int]) -> Settlement:
        """What a batch comes to that its provider does not know: all of it may have been billed."""
        lost = RemoteBatch(
            id="", key="", status="lost", input_file="", files=(), completed=len(self._digests), tokens=None, flaws=(),
            created=0.0,
        )  # fmt: skip
        return replace(self.settle(lost, tries), doubt="its batch cannot be found at the provider")

    def _unseen(self) -> list[int]:
        return [i for i in range(len(self._digests)) if i not in self._finished and i not in self._why]

    def _take(self, data: dict[str, Any]) -> tuple[int, Floats] | None:
        """The vector of a result line, or None; what it says is noted."""
        i = self._index.get(str(data.get("custom_id")))
        if i is None or i in self._finished:
            return None  # nobody's, or there already
        response, error = data.get("response"), data.get("error")
        status = response.get("status_code") if isinstance(response, dict) else None
        if error or not isinstance(response, dict) or status != 200:
            self._why[i] = self._refusal(status, error, response)
            return None
        self._finished.add(i)
        self._why.pop(i, None)
        said: int | None = None
        try:
            reply = to_reply(self._name, response.get("body"), {})
            said = reply.tokens
            vectors = check(EmbedCall(model=self._model, texts=("",), role="document"), reply)
            self._stored.add(i)
            return i, vectors
        except BadReply as bad:
            self._why[i] = (bad.message, False)
            return None
        finally:
            self._book(i, said)

    def _book(self, i: int, said: int | None) -> None:
        """Add what a line was billed; its text is not at hand, so that what was held is all that is believed."""
        held = int(self._records["tokens"][i])
        believed = believe(said, texts=1, held=held, most=held)
        settled = self._price(believed.tokens)
        self._billed += settled
        self._tokens += believed.tokens
        self._beyond += self._price(believed.tokens + believed.beyond) - settled
        self._doubt = self._doubt or believed.doubt
        if not believed.doubt:
            self._said[i] = believed.tokens

    def _refusal(self, status: Any, error: Any, response: Any) -> tuple[str, bool]:
        """Why a request of the batch failed, and whether it would fail again."""
        said = error if isinstance(error, dict) else response.get("body") if isinstance(response, dict) else None
        said = said.get("error", said.get("detail", said)) if isinstance(said, dict) else said
        message = said.get("message") or said.get("code") if isinstance(said, dict) else said
        words = " ".join(str(message or "no reason given").split())[:300]
        for_good = isinstance(status, int) and 400 <= status < 500 and status not in _PASSING
        return f"{self._name} did not embed it: {words}", for_good


def _silence(name: str, remote: RemoteBatch) -> str:
    """Why a text has no result where nothing is said of it."""
    if remote.flaws:
        return f"{name} refused its batch: {remote.flaws[0].message}"
    if remote.status in ("completed", "lost"):
        return f"{name} gave no result for it."
    return f"Its batch at {name} was {remote.status} before it was reached."
