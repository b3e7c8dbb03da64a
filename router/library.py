"""Collections as people use them: fill one, see the price, confirm it, watch the job, search it, delete it.

The public face of collections and their jobs, for the pages, the shell and Python. Coroutines run on the router's event
loop and read the databases in worker threads; plain methods read them where they are called, so not on that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from router import tokens
from router.domain.errors import BadInput
from router.domain.values import Tokenizer
from router.engine import Router
from router.erase import Erased, Eraser
from router.ingest import extract
from router.ingest.archives import expand
from router.ingest.columns import Columns
from router.ingest.extract import SavedFile
from router.ingest.file_report import FileReport
from router.ingest.files import Ingest, Progress, Reading
from router.ingest.imports import Imported, import_file
from router.jobs.errors import current_price
from router.jobs.estimate import CorpusEstimate, estimate
from router.jobs.planning import Planner, check_size
from router.jobs.worker import Worker
from router.search.search import Searcher
from router.store.collections import Corpora
from router.store.jobs import Job, JobStore
from router.store.models import EVERY, READY, Collection, DocumentRow, Generation, StoredChunk

CHUNK_TOKENS = 256
"""Of the local model's tokens: a chunk fits every model in one piece, so the space can be chosen after the quote."""
UPLOADS = "uploads"
_OLD_UPLOAD_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """A collection at a glance. `new_documents` wait for a quote to be confirmed; `job` is the latest."""

    collection: Collection
    generations: tuple[Generation, ...]
    documents: int
    chunks: int
    new_documents: int
    job: Job | None

    @property
    def active(self) -> Generation | None:
        """The generation that is searched."""
        return next((g for g in self.generations if g.state == "active"), None)


class Library:
    """Everything about collections. Belongs to the router's loop; close it before the router."""

    def __init__(self, router: Router, folder: Path | None = None) -> None:
        """Open `corpora.db` in the router's data folder, or in another one to try things out.

        Raises:
            StoreError: it cannot be opened.
        """
        folder = folder or router.settings.data
        self.router = router
        self.corpora = Corpora(folder / "corpora.db", router.clock)
        self.jobs = JobStore(router.database, router.clock, router.ledger.process)
        self._planner = Planner(router, self.corpora, self.jobs)
        self.quote, self.confirm, self.improve = self._planner.quote, self._planner.confirm, self._planner.improve
        self.job, self.pause, self.cancel = self.jobs.get, self.jobs.pause, self.jobs.cancel
        self.retry = self.jobs.retry
        self._searcher = Searcher(
            self.corpora, router.cache, router.catalog, router.policies, router.usage, router.embed
        )
        self.search = self._searcher.search
        self._uploads = folder / UPLOADS
        self._closing = False
        self._readings: set[asyncio.Future[list[FileReport]]] = set()

    async def aclose(self) -> None:
        """Stop reading files at their next block, then write what is queued and close."""
        self._closing = True
        if self._readings:
            await asyncio.wait(self._readings)
        self.corpora.close()

    # ---- collections ----

    async def create(
        self,
        name: str,
        *,
        policy: str = "default",
        model: str | None = None,
        dimensions: int | None = None,
        chunk_tokens: int | None = None,
        overlap: int = 0,
    ) -> Collection:
        """A new collection, pinned to the model's space at once, or (without one) when a quote is confirmed.

        Args:
            chunk_tokens: the most tokens of a chunk, by the model's tokenizer, or by the local model's without one.
            overlap: tokens that neighbouring chunks of a document may share.

        Raises:
            BadInput: the name, policy, model or a number is wrong.
        """
        await asyncio.to_thread(self.router.policies.get, policy)
        tokenizer: Tokenizer = "wordpiece"
        limit = chunk_tokens or CHUNK_TOKENS
        chosen = self.router.catalog.get(model) if model is not None else None
        if chosen is not None:
            tokenizer = chosen.tokenizer
            most = tokens.room(chosen, "document")
            if most is not None and limit > most:
                raise BadInput(f"{chosen.id} takes {most:,} tokens, not {limit:,}.", "Choose smaller chunks.")
            check_size(chosen, dimensions)
        if not 16 <= limit <= 32_768 or not 0 <= overlap <= limit // 2:
            raise BadInput(
                f"Chunks of {limit:,} tokens that share {overlap:,} cannot be made.",
                "Use 16 to 32,768 tokens, and an overlap of at most half of that.",
            )
        made = await self.corpora.create(name, policy=policy, tokenizer=tokenizer, chunk_tokens=limit, overlap=overlap)
        if chosen is not None:
            await self._planner.pin(made, chosen, dimensions)
        return made

    async def create_like(self, info: CollectionInfo) -> Collection:
        """An empty collection as this one of another folder is: its name, policy, chunks and space, to try things out.

        Raises:
            BadInput: there is one of this name.
        """
        own, active = info.collection, info.active
        made = await self.corpora.create(
            own.name, policy=own.policy, tokenizer=own.tokenizer, chunk_tokens=own.chunk_tokens, overlap=own.overlap
        )
        if active is not None:
            await self.corpora.add_generation(
                made.id, model=active.model, space=active.space, dimensions=active.dimensions, state="active"
            )
        return made

    def collections(self) -> list[CollectionInfo]:
        """Every collection, by name."""
        return [self.info(collection.name) for collection in self.corpora.all()]

    def info(self, name: str) -> CollectionInfo:
        """One collection. Raises BadInput where there is none of this name."""
        collection = self.corpora.get(name)
        documents, chunks = self.corpora.counts(collection.id, ("ready",))
        new, _ = self.corpora.counts(collection.id, ("added",))
        return CollectionInfo(
            collection=collection,
            generations=tuple(self.corpora.generations(collection.id)),
            documents=documents,
            chunks=chunks,
            new_documents=new,
            job=next(iter(self.jobs.all(collection=collection.id, limit=1)), None),
        )

    async def coverage(self, name: str) -> tuple[int, int]:
        """(distinct texts, those that have their vector) of the generation that is searched; (n, 0) without one."""
        info = await asyncio.to_thread(self.info, name)
        return await self._planner.coverage(info.collection, info.active)

    async def set_policy(self, name: str, policy: str) -> None:
        """Let another policy pay from now on; its space stays. A job that runs keeps its own.

        Raises:
            BadInput: there is no such collection or policy.
        """
        await asyncio.to_thread(self.router.policies.get, policy)
        await self.corpora.set_policy((await self._find(name)).id, policy)

    # ---- files ----

    def upload(self, stream: BinaryIO, name: str) -> SavedFile:
        """Write an upload to the data folder, to be given to `add_files`, which deletes it when it was read.

        Raises:
            BadInput: it is too large.
            StoreFull: the disk is full.
        """
        return extract.save_stream(stream, self._uploads, name=name)

    async def add_files(
        self,
        name: str,
        files: Sequence[Path | SavedFile],
        *,
        columns: Mapping[str, Columns] | None = None,
        txt_lines: bool = False,
        progress: Progress = lambda done, total, name: None,
        estimated: Callable[[CorpusEstimate | str], None] | None = None,
    ) -> list[FileReport]:
        """Read files, folders and zips into a collection; nothing is embedded before `confirm`.

        Args:
            columns: where the texts and ids of tables are, by path or by file name; "" is every other file.
            txt_lines: `.txt` files hold a text a line, instead of one document.
            progress: called with (bytes read, bytes in all, name of the file), from another thread.
            estimated: called from another thread before 4 MB or more are read, with what they would cost by a sample,
                or the reason why that cannot be told.

        Returns a report on every file; one that cannot be read says why, and the others go on.

        Raises:
            BadInput: there is no such collection.
            StoreError: the database cannot be written.
        """
        collection = await self._find(name)
        policy = await asyncio.to_thread(self.router.policies.get, collection.policy)
        how = Reading(columns=columns or {}, txt_lines=txt_lines, normalised=policy.normalise)
        loop = asyncio.get_running_loop()
        stopped = False

        def work() -> list[FileReport]:
            def run(write: Any) -> Any:
                return asyncio.run_coroutine_threadsafe(write, loop).result()

            ingest = Ingest(
                self.corpora, collection, how, run=run, progress=progress, cancelled=lambda: stopped or self._closing
            )
            verdicts = expand(files, self._uploads)
            try:
                if estimated is not None:
                    found = run(estimate(self.router, self.corpora, collection, how, verdicts, lambda: self._closing))
                    if found is not None:
                        estimated(found)
                return ingest.files(verdicts)
            finally:
                paths = [file if isinstance(file, Path) else file.path for file in files]
                self._tidy([*paths, *(v.path for v in verdicts if v.path is not None)])

        reading = loop.run_in_executor(None, work)
        self._readings.add(reading)
        reading.add_done_callback(self._readings.discard)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            stopped = True
            raise

    def _tidy(self, paths: Sequence[Path]) -> None:
        """Delete uploads that were read, and old ones: their texts are in the chunks, and must go when these go."""
        for path in paths:
            if self._uploads in path.parents:
                path.unlink(missing_ok=True)
        if self._uploads.is_dir():
            for path in sorted(self._uploads.rglob("*"), reverse=True):
                if path.is_dir():
                    with contextlib.suppress(OSError):  # it is not empty
                        path.rmdir()
                elif path.stat().st_mtime < time.time() - _OLD_UPLOAD_S:
                    path.unlink(missing_ok=True)

    def gone(self, name: str, folder: Path, there: Iterable[str]) -> list[str]:
        """The documents that came from this folder and are not among those that are `there` now, by name."""
        source, found = str(folder.resolve()), set(there)
        rows = self.corpora.documents(self.corpora.get(name).id, states=READY)
        return [row.name for row in rows if row.source == source and row.name not in found]

    async def discard(self, name: str) -> int:
        """Forget what was added and not confirmed. Returns how many documents."""
        return await self.corpora.delete_documents((await self._find(name)).id, states=("added", "failed"))

    def documents(self, name: str, *, limit: int = 100, offset: int = 0) -> list[DocumentRow]:
        """A collection's documents by name, those that failed included."""
        return self.corpora.documents(self.corpora.get(name).id, limit=limit, offset=offset)

    def chunks(self, document: int, *, after: int = -1, limit: int = 20) -> list[StoredChunk]:
        """Chunks of a document from behind a position on."""
        return self.corpora.chunks.of(document, after, limit)

    def count_documents(self, name: str) -> int:
        """How many documents there are, those that failed or are being read included."""
        return self.corpora.counts(self.corpora.get(name).id, EVERY)[0]

    def list_jobs(self, collection: str | None = None, *, open_only: bool = False) -> list[Job]:
        """The latest jobs, newest first: of one collection, or of all; at most two hundred."""
        which = None if collection is None else self.corpora.get(collection).id
        return self.jobs.all(collection=which, open_only=open_only)

    # ---- generations and jobs ----

    async def switch(self, name: str) -> Generation:
        """Search the generation that is being built from now on, even if some texts are missing from it.

        Raises:
            BadInput: none is being built.
        """
        generations = (await asyncio.to_thread(self.info, name)).generations
        building = next((g for g in generations if g.state == "building"), None)
        if building is None or not await self.corpora.switch(building.id):
            raise BadInput(f"No other generation of '{name}' is being built.", "Re-embed it with another model first.")
        return building

    async def drop(self, generation: int) -> None:
        """Forget a generation that is not searched, and end its job. Its vectors stay in the cache.

        Raises:
            BadInput: it is the one that is searched, or there is none.
        """
        for job in await asyncio.to_thread(self.list_jobs, open_only=True):
            if job.generation == generation:
                await self.jobs.cancel(job.id)
        if not await self.corpora.drop(generation):
            raise BadInput("This generation is searched, or gone.", "Switch to another one first.")

    def worker(self, *, only: int | None = None) -> Worker:
        """A worker for the jobs of this data folder; with `only`, for one of them. The caller starts and stops it."""
        return Worker(self.router, self.corpora, self.jobs, only=only)

    async def resume(self, number: int) -> Job:
        """Go on with a job, at today's price. Raises BadInput where it has ended."""
        job = await asyncio.to_thread(self.jobs.get, number)
        price = current_price(self.router, self.router.catalog.get(job.model), job.route)
        return await self.jobs.resume(number, price=None if price is None else str(price))

    def failures(self, number: int) -> list[tuple[StoredChunk, str]]:
        """The chunks that a job could not embed, and why; at most a thousand."""
        job = self.jobs.get(number)
        reasons = self.jobs.failures(number)
        found = self.corpora.chunks.texts(job.collection_id, list(reasons))
        return [(found[digest], why) for digest, why in reasons.items() if digest in found]

    # ---- use ----

    async def export(self, name: str, path: Path, *, with_text: bool = True) -> int:
        """Write the collection's vectors to a .parquet, .npz or .jsonl file. Returns how many.

        Raises:
            BadInput: the file cannot be written, or nothing is embedded yet.
        """
        return await asyncio.to_thread(self._searcher.export, name, path, with_text)

    async def import_vectors(self, path: Path, *, model: str | None = None) -> Imported:
        """Put vectors that were paid for elsewhere into the cache; see `imports.import_file`."""
        return await import_file(self.router, path, model)

    # ---- deleting ----

    async def delete_documents(self, name: str, documents: Sequence[str | int], *, vectors: bool = False) -> int:
        """Delete documents; with `vectors`, also the cached vectors that nothing else needs.

        A name is every version of a document, a number (`DocumentRow.id`) one version and no other; a number that is
        gone is left out. Returns how many there were.

        Raises:
            BadInput: there is no such collection, or no document of one of these names; then none is deleted.
        """
        collection = await self._find(name)
        names = [one for one in documents if isinstance(one, str)]
        ids = [one for one in documents if isinstance(one, int)]

        def unknown() -> list[str]:
            return [one for one in names if self.corpora.document(collection.id, one, EVERY) is None]

        if missing := await asyncio.to_thread(unknown):
            more = f" and {len(missing) - 3:,} more" if missing[3:] else ""
            raise BadInput(
                f"The collection '{name}' has no document {', '.join(map(repr, missing[:3]))}{more}.",
                "List its documents again; it may have been deleted.",
            )
        if vectors:
            await self._eraser().documents(collection.id, documents)
        return await self.corpora.delete_documents(collection.id, names=names, ids=ids)

    async def delete(self, name: str, *, vectors: bool = False) -> None:
        """Delete a collection and end its jobs; with `vectors`, also the cached vectors that no other one needs."""
        collection = await self._find(name)
        for job in await asyncio.to_thread(self.list_jobs, name, open_only=True):
            await self.jobs.cancel(job.id)
        if vectors:
            await self._eraser().unneeded(collection.id)
        await self.corpora.delete(collection.id)

    async def erase(self, text: str) -> Erased:
        """Erase a text everywhere: its chunks in all collections, its vectors in every space, its digest in usage.

        A chunk is erased if it is exactly this text; delete a document to be rid of texts around it.
        """
        return await self._eraser().text(text)

    # ---- helpers ----

    async def _find(self, name: str) -> Collection:
        return await asyncio.to_thread(self.corpora.get, name)

    def _eraser(self) -> Eraser:
        self._searcher.index.forget()
        return Eraser(self.router.database, self.router.cache, self.corpora, self.router.catalog)
