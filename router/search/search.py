"""Search inside a collection, and the export of its vectors.

The nearest chunks are found by exact cosine over every vector of the searched generation: those of the vector index in
memory where they fit, and else block by block from disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router.domain.catalog import Catalog
from router.domain.errors import BadInput
from router.domain.values import Policy
from router.pipeline.results import Result
from router.pipeline.validate import normalise
from router.providers.base import Floats
from router.search.export import open_writer
from router.search.index import VectorIndex
from router.search.vectors import Embedded, embedded, worth_embedding
from router.store.collections import Corpora
from router.store.models import Collection, Generation, StoredChunk
from router.store.policies import Policies
from router.store.usage import Usage
from router.store.vectors import Cache

MOST_HITS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk and its cosine to the query. `copies` counts its text's places in the collection."""

    score: float
    chunk: StoredChunk
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The result of a search. Money in nanodollars.

    Attributes:
        searched: distinct texts that have a vector; `missing` have none yet.
        cost, unconfirmed: of embedding the query.
        route: how the query was answered: from the cache, locally or over an API.
    """

    hits: tuple[Hit, ...]
    searched: int
    missing: int
    model: str
    space: str
    dimensions: int
    cost: int
    unconfirmed: int
    route: str
    decision: str


class Searcher:
    """Searches and exports the vectors of collections."""

    def __init__(
        self,
        corpora: Corpora,
        *,
        cache: Cache,
        catalog: Catalog,
        policies: Policies,
        usage: Usage,
        embed: Callable[..., Awaitable[Result]],
    ) -> None:
        """`embed` is that of the router; queries go through it."""
        self._corpora = corpora
        self._cache = cache
        self._catalog = catalog
        self._policies = policies
        self._usage = usage
        self._embed = embed
        self._index = VectorIndex(corpora, cache)

    def forget(self) -> None:
        """Empty the vector index."""
        self._index.forget()

    async def search(self, name: str, query: str, *, k: int = 10) -> SearchResult:
        """The k chunks nearest to a query, nearest first; each distinct text once.

        The query is embedded in the generation's space under the role `query`, which a paid model charges for.

        Raises:
            BadInput: there is no such collection, it is not embedded yet, or the query is empty.
            Refused: the policy does not let the query be embedded.
            ProviderError: the provider failed.
        """
        if not 1 <= k <= MOST_HITS:
            raise BadInput(f"{k} results cannot be asked for.", f"Ask for 1 to {MOST_HITS:,}.")
        collection, generation, policy = await asyncio.to_thread(self._searched, name)
        if policy.normalise:
            query = normalise(query)
        result = await self._embed(
            [query],
            policy=collection.policy,
            role="query",
            model=generation.model,
            dimensions=generation.dimensions,
            collection=collection.name,
        )
        hits, searched, missing = await asyncio.to_thread(self._look, collection, generation, result.vectors[0], k)
        return SearchResult(
            hits=hits,
            searched=searched,
            missing=missing,
            model=result.model,
            space=result.space,
            dimensions=result.dimensions,
            cost=result.cost,
            unconfirmed=result.unconfirmed,
            route=result.routes[0],
            decision=result.decision,
        )

    def _searched(self, name: str) -> tuple[Collection, Generation, Policy]:
        """A collection, the generation that is searched, and the policy. Refuses before anything is spent.

        Raises:
            BadInput: there is no such collection, or no text of it has its vector: says whether they are still to come,
                or were lost.
        """
        collection = self._corpora.get(name)
        generation = self._corpora.active(collection.id)
        if generation is None:
            raise BadInput(f"The collection '{name}' is not embedded yet.", "Confirm its quote first.")
        model = self._catalog.get(generation.model)
        if model.space != generation.space:
            raise BadInput(
                f"The collection '{name}' is of the space {generation.space}, and {model.id} is of {model.space} now:"
                " their vectors cannot be compared.",
                f"Re-embed the collection, with {model.id} or with another model.",
            )
        policy = self._policies.get(collection.policy)
        cache = self._vectors(collection, generation)
        pages = self._corpora.chunks.distinct(collection.id, page=200)
        if any(cache.rows(worth_embedding(page)) for page in pages):
            return collection, generation, policy
        before = self._usage.total(since=0, until=self._usage.clock() + 1, where={"collection": collection.name})
        if not before.texts:
            raise BadInput(f"Nothing of the collection '{collection.name}' is embedded yet.", "Wait for its job.")
        raise BadInput(
            f"The vectors of the collection '{collection.name}' are gone: vectors.db was deleted or emptied.",
            f"Restore vectors.db from a backup, or embed the collection again (`python -m router quote --collection"
            f" {collection.name}` says what that costs).",
        )

    def _vectors(self, collection: Collection, generation: Generation) -> Embedded:
        return embedded(self._cache, self._catalog, generation, self._policies.get(collection.policy))

    def _look(
        self, collection: Collection, generation: Generation, query: Floats, k: int
    ) -> tuple[tuple[Hit, ...], int, int]:
        with self._cache.database.unmapped():
            return self._nearest(collection, generation, query, k)

    def _nearest(
        self, collection: Collection, generation: Generation, query: Floats, k: int
    ) -> tuple[tuple[Hit, ...], int, int]:
        cache = self._vectors(collection, generation)
        matrix = self._index.get(collection, generation, cache)
        if matrix is None:
            best, searched, missing = self._streamed(collection, cache, query, k)
        else:
            searched, missing = len(matrix.digests), len(matrix.missing)
            scores = matrix.vectors @ query
            top = _highest(scores, k)
            best = _first([(float(scores[at]), matrix.digests[at], matrix.copies[at]) for at in top], k)
            row_of = {matrix.digests[at]: matrix.rows[at] for at in top}
            if cache.rows(list(row_of)) != row_of:  # a vector was erased or replaced, perhaps by another program
                self._index.forget()
                return self._nearest(collection, generation, query, k)
        found = self._corpora.chunks.texts(collection.id, [digest for _, digest, _ in best])
        hits = tuple(Hit(score=score, chunk=found[digest], copies=n) for score, digest, n in best if digest in found)
        return hits, searched, missing

    def _streamed(
        self, collection: Collection, cache: Embedded, query: Floats, k: int
    ) -> tuple[list[tuple[float, bytes, int]], int, int]:
        """The same with no more than a page of vectors in memory."""
        best: list[tuple[float, bytes, int]] = []
        searched = missing = 0
        for page in self._corpora.chunks.distinct(collection.id):
            copies = {one.digest: one.copies for one in page}
            digests = worth_embedding(page)
            keys, vectors = cache.read(digests)
            missing += len(digests) - len(keys)
            searched += len(keys)
            if keys:
                scores = vectors @ query
                best = _first(best + [(float(scores[at]), keys[at], copies[keys[at]]) for at in _highest(scores, k)], k)
        return best, searched, missing

    def export(self, name: str, path: Path, with_text: bool) -> int:
        """Write every embedded chunk with its vector, in the order of the documents. Returns how many.

        Raises:
            BadInput: the file cannot be written, or nothing is embedded yet.
            StoreFull: the disk is full.
        """
        collection, generation, _ = self._searched(name)
        written = 0
        with (
            self._cache.database.unmapped(),
            open_writer(
                path,
                space=generation.space,
                model=generation.model,
                dimensions=generation.dimensions,
                with_text=with_text,
            ) as writer,
        ):
            for chunks, vectors in self.vectors(collection, generation):
                texts = [chunk.text for chunk in chunks] if with_text else None
                writer.write([chunk.key for chunk in chunks], texts, vectors)
                written += len(chunks)
        return written

    def vectors(self, collection: Collection, generation: Generation) -> Iterator[tuple[list[StoredChunk], Floats]]:
        """Chunks with their vectors `(n, dimensions)` float32, document by document; those without one are left out."""
        cache = self._vectors(collection, generation)
        for chunks in self._corpora.chunks.all(collection.id):
            keys, vectors = cache.read(list({chunk.digest for chunk in chunks if not chunk.near_empty}))
            at = {digest: number for number, digest in enumerate(keys)}  # repeats are read once
            there = [chunk for chunk in chunks if chunk.digest in at]
            if there:
                yield there, vectors[[at[chunk.digest] for chunk in there]]


def _highest(scores: Floats, k: int) -> list[int]:
    """Where the k highest scores stand, in no order."""
    found: list[int] = np.argpartition(-scores, min(k, len(scores)) - 1)[:k].tolist() if len(scores) else []
    return found


def _first(hits: list[tuple[float, bytes, int]], k: int) -> list[tuple[float, bytes, int]]:
    return sorted(hits, key=lambda hit: (-hit[0], hit[1]))[:k]
