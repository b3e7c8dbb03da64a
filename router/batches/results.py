"""The results of a batch: lines in any order, some doubled, unknown, nameless or missing, and what they come to.

A line is one text, named by its digest, so that a result can go to no other text and needs no table to be understood
after a restart. What was billed is computed line by line, as the provider does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from router.domain.errors import BadReply
from router.domain.kinds import BYTES_A_TOKEN
from router.domain.usage import believe
from router.domain.values import Model
from router.providers.base import EmbedCall, Floats, check, read_json, to_reply
from router.providers.batch import RemoteBatch
from router.store.batches import BatchText, Settlement, line_price
from router.tokens import MARKERS

NO_RESULT = "finished by the provider, and no result given"
MOST_TRIES = 3
"""Batches that a text is sent in before it is reported as failed."""
GROUP = 256
LONGEST_LINE = 1 << 20
_PASSING = (408, 409, 425, 429)


class Results:
    """Reads the result files of one batch."""

    def __init__(self, name: str, model: Model, texts: Sequence[BatchText], made: float) -> None:
        """`texts` in the order of the batch's lines; `made`: when it was, which sets its price, in epoch seconds."""
        self._name = name
        self._model = model
        self._price = line_price(model, made)
        self._texts = texts
        self._index = {text.digest.hex(): i for i, text in enumerate(texts)}
        self._stored: set[int] = set()
        self._finished: set[int] = set()
        self._why: dict[int, tuple[str, bool]] = {}  # (reason, for good)
        self._billed = self._tokens = self._beyond = 0
        self._said: dict[int, int] = {}  # what was billed for a text, in tokens, where that can be true
        self._doubt = ""
        self.broken = 0

    def read(self, file: BinaryIO) -> tuple[list[bytes], list[int], Floats] | None:
        """The next vectors of an open result file, `(n, dimensions)` float32 of unit length, at most `GROUP`; before
        them their texts' digests and tokens: those billed, where the provider says so, else likely ones. None at its
        end.
        """
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
        tokens = [self._said.get(i) or self._guess(i) for i in found]
        return [self._texts[i].digest for i in found], tokens, np.concatenate(list(found.values()))

    def _guess(self, i: int) -> int:
        bound = self._texts[i].tokens
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
            if flaw.line is not None and 0 < flaw.line <= len(self._texts):
                self._why[flaw.line - 1] = (f"{self._name} refused it: {flaw.message}", True)
        unseen = self._unseen()
        lost = self.lost(remote)
        most = sorted((self._price(self._texts[i].tokens) for i in unseen), reverse=True)
        unconfirmed = sum(most[:lost])
        if lost and remote.tokens is not None:  # the sum that the provider gives may be more than was held
            unconfirmed = max(unconfirmed, self._price(max(0, remote.tokens - self._tokens)) + lost - 1)
        unconfirmed += self._beyond
        texts = self._outcomes(tries, _silence(self._name, remote))
        failed = sum(text.state == "failed" for text in texts)
        again = len(texts) - len(self._stored) - failed
        words = [f"{remote.status}: {len(self._stored):,} of {len(texts):,} texts embedded"]
        words += [f"{failed:,} failed"] if failed else []
        words += [f"{again:,} to be sent again"] if again else []
        if self._doubt and self._billed:
            words.append(f"not all booked at the provider's figures, for {self._doubt}")
        if remote.flaws:
            words.append(" ".join(flaw.message for flaw in remote.flaws[:3]))
        return Settlement(
            billed=self._billed,
            unconfirmed=unconfirmed,
            tokens=self._tokens,
            confirmed=len(self._stored) == len(self._said) == len(texts),
            texts=texts,
            reason="; ".join(words),
            doubt=self._doubt if self._beyond and not lost else NO_RESULT,
        )

    def give_up(self, tries: Mapping[bytes, int]) -> Settlement:
        """What a batch comes to that its provider does not know: all of it may have been billed."""
        lost = RemoteBatch(
            id="", key="", status="lost", input_file="", files=(), completed=len(self._texts), tokens=None, flaws=(),
            created=0.0,
        )  # fmt: skip
        return replace(self.settle(lost, tries), doubt="its batch cannot be found at the provider")

    def _outcomes(self, tries: Mapping[bytes, int], silence: str) -> list[BatchText]:
        """The texts as the batch leaves them; `silence` is why one has no result where nothing is said of it."""
        texts: list[BatchText] = []
        for i, text in enumerate(self._texts):
            why, for_good = self._why.get(i, (silence, False))
            if i in self._stored:
                texts.append(text._replace(state="stored"))
            elif for_good or tries.get(text.digest, 0) + 1 >= MOST_TRIES:
                texts.append(text._replace(state="failed", reason=" ".join(why.split())))
            else:
                texts.append(text)
        return texts

    def _unseen(self) -> list[int]:
        return [i for i in range(len(self._texts)) if i not in self._finished and i not in self._why]

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
            self._charge(i, said)

    def _charge(self, i: int, said: int | None) -> None:
        """Add what a line was billed; its text is not at hand, so that what was held is all that is believed."""
        held = self._texts[i].tokens
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
