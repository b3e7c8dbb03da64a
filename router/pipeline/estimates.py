"""The likely tokens of texts for models whose tokenizer is not at hand: the catalog's ratios, and what was learned."""

from __future__ import annotations

from collections.abc import Sequence

from router import tokens
from router.domain.catalog import Catalog
from router.domain.kinds import kind_of_text
from router.domain.ratios import Errors, Ratios, learned
from router.domain.values import Estimate, Model, Role
from router.store.database import Database
from router.store.learned import calls, errors, sums


class Estimates:
    """Ratios by model, as they stand; may be asked from several threads."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog
        self._known: tuple[int, dict[str, Ratios]] = (-1, {})

    def ratios(self, model: Model) -> Ratios | None:
        """The model's ratios to a tokenizer that is at hand; None where its own one is."""
        if model.tokenizer != "bytes":
            return None
        conn = self._database.reader()
        now = calls(conn)
        if now != self._known[0]:
            seen = sums(conn)
            bytes_models = (m for m in self._catalog.models if m.tokenizer == "bytes")
            self._known = (now, {m.id: learned(self._catalog.ratios_of(m), seen.get(m.id, {})) for m in bytes_models})
        return self._known[1].get(model.id) or self._catalog.ratios_of(model)

    def of(self, model: Model, role: Role, texts: Sequence[str], most: Sequence[int]) -> list[Estimate | None]:
        """The likely tokens of each text, never more than its `most`; None where the model's tokenizer is at hand."""
        ratios = self.ratios(model)
        if ratios is None:
            return [None] * len(texts)
        before = model.before(role)
        bases = tokens.count(ratios.base, [before + text for text in texts] if before else texts)
        return [ratios.estimate(kind_of_text(t), b, m) for t, b, m in zip(texts, bases, most, strict=True)]

    def errors(self) -> dict[str, Errors]:
        """How far off the expected tokens of each model were, over the calls that were learned from."""
        return errors(self._database.reader())
