"""Which texts the draft's cache would have had and the real one had not, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.domain.values import Model
from router.pipeline.coverage import may_stand_in
from router.pipeline.trace import Mask, SeenModel


class Difference:
    """The two caches apart. As long as every request is answered as it was, it is empty."""

    def __init__(self, models: Sequence[Model], scale: str) -> None:
        self._roles = {m.id for m in models if m.roles}
        # Whose vectors may answer for a model: its own, and those of a better member of its space.
        self._family = {m.id: [o.id for o in models if may_stand_in(o, m, scale)] for m in models}
        self._extra: dict[tuple[str, str], set[bytes]] = {}
        self._lacking: dict[tuple[str, str], set[bytes]] = {}

    def _key(self, model: str, role: str) -> tuple[str, str]:
        return model, role if model in self._roles else ""

    def apply(self, seen: SeenModel, role: str, digests: Sequence[bytes]) -> Mask:
        """Which of the texts the draft's cache would have had; the recorded mask itself where nothing differs."""
        keys = [self._key(model, role) for model in self._family[seen.model]]
        lacking = [self._lacking[key] for key in keys if self._lacking.get(key)]
        extra = [self._extra[key] for key in keys if self._extra.get(key)]
        if not lacking and not extra:
            return seen.cached
        had = [
            any(d in s for s in extra) or (bool(was) and not any(d in s for s in lacking))
            for d, was in zip(digests, seen.cached.tolist(), strict=True)
        ]
        mask = np.array(had, dtype=np.bool_)
        return seen.cached if np.array_equal(mask, seen.cached) else mask

    def note(
        self,
        role: str,
        digests: Sequence[bytes],
        *,
        really: tuple[Model, Mask] | None,
        draft: tuple[Model, Mask] | None,
    ) -> None:
        """Both stored what they missed."""
        ours, theirs = self._stored(role, digests, draft), self._stored(role, digests, really)
        for key, digest in ours - theirs:
            _move(digest, off=self._lacking.setdefault(key, set()), to=self._extra.setdefault(key, set()))
        for key, digest in theirs - ours:
            _move(digest, off=self._extra.setdefault(key, set()), to=self._lacking.setdefault(key, set()))

    def _stored(
        self, role: str, digests: Sequence[bytes], what: tuple[Model, Mask] | None
    ) -> set[tuple[tuple[str, str], bytes]]:
        if what is None:
            return set()
        model, missed = what
        key = self._key(model.id, role)
        return {(key, digests[n]) for n in np.flatnonzero(missed).tolist()}


def _move(digest: bytes, *, off: set[bytes], to: set[bytes]) -> None:
    if digest in off:
        off.discard(digest)
    else:
        to.add(digest)
