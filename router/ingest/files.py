"""Files into documents and chunks, file by file and block by block: a corpus of any size takes the same memory.

A file that cannot be read becomes a document that says why, and the others go on. Nothing is paid for here: what was
added waits until somebody confirms its quote.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from itertools import chain, islice
from pathlib import Path
from typing import Any

from router import tokens
from router.domain.errors import BadInput, RouterError
from router.ingest import extract
from router.ingest.chunking import is_near_empty, split_texts
from router.ingest.columns import AS_USUAL, Columns, Ids
from router.ingest.extract import FileVerdict
from router.ingest.file_report import FileReport, Skipped
from router.ingest.readers_rows import Row
from router.ingest.splitter import IN_PROCESS, Splitter
from router.pipeline.validate import MOST_BYTES, normalise
from router.splitting import Piece
from router.store.collections import Corpora, Write
from router.store.models import Collection, NewChunk
from router.tokens import blocks

Wait = Callable[[Any], Any]
BLOCK = 500
"""Chunks counted and written at once."""
BLOCK_BYTES = 4 << 20
"""... or as soon as they have so many bytes."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Files, and blocks of rows, that are read at once."""
_MOST_LABEL = 200
THREADS = CORES
"""Files that are read at once."""
GROUP, GROUP_BYTES, GROUP_S = 16, 1 << 20, 1.0
"""So many documents, bytes of them, or seconds of reading share a commit."""
Sized = tuple[str, str, int]
"""Label, text, and its tokens by the collection's tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How to read files.

    Attributes:
        columns: of tables, by path or by file name ("" is every other file).
        txt_lines: `.txt` files hold a text a line; otherwise each is one document.
        normalised: chunks are made of `normalise(text)`, as the collection's policy says.
    """

    columns: Mapping[str, Columns]
    txt_lines: bool = False
    normalised: bool = False

    def columns_of(self, path: Path, name: str) -> Columns:
        """The columns that somebody asked for in this file."""
        return self.columns.get(str(path)) or self.columns.get(name) or self.columns.get("", AS_USUAL)

    def as_rows(self, path: Path) -> bool:
        """Whether a file holds a text a row; otherwise it is one document. Raises BadInput for another kind."""
        return extract.kind_of(path) == "rows" and (self.txt_lines or path.suffix.lower() != ".txt")


Progress = Callable[[int, int, str], None]
"""Called with (bytes read, bytes in all, name of the file) between files and blocks."""


class Ingest:
    """Reads files into one collection. Runs in a worker thread; `cancelled` is looked at between blocks."""

    def __init__(
        self,
        corpora: Corpora,
        collection: Collection,
        reading: Reading,
        *,
        run: Wait,
        progress: Progress = lambda done, total, name: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """`run` waits for a coroutine of the engine's loop, from this thread."""
        self._corpora = corpora
        self._collection = collection
        self._reading = reading
        self._run = run
        self._progress = progress
        self._cancelled = cancelled
        self._done = self._total = 0
        self._lock = threading.Lock()
        self._splitter = Splitter()
        self._how: dict[str, Any] = {
            "tokenizer": collection.tokenizer, "limit": collection.chunk_tokens, "overlap": collection.overlap,
        }  # fmt: skip
        self._pool: ThreadPoolExecutor  # of blocks of rows
        self._reports: dict[int, FileReport] = {}  # by the numbers of the files

    def files(self, verdicts: Sequence[FileVerdict]) -> list[FileReport]:
        """Read every file that can be; a report on each. No file's trouble, foreseen or not, ends the others."""
        self._total = sum(map(size_of, verdicts))
        waiting = enumerate(verdicts)  # the interpreter's lock lets one thread at a time ask for the next
        # No more threads than that: the tokenizers leave the interpreter's lock, and all else is a fight for it.
        with self._splitter, ThreadPoolExecutor(CORES) as self._pool, ThreadPoolExecutor(THREADS) as files:
            list(files.map(self._some, [waiting] * THREADS))
        self._progress(self._done, self._total, "")
        return [self._reports[number] for number in sorted(self._reports)]

    def _some(self, waiting: Iterator[tuple[int, FileVerdict]]) -> None:
        """Take files until none is left. Small ones are written together, while the next ones are read."""
        read: list[_Whole] = []
        written: list[tuple[_Whole, Future[None]]] = []
        since = time.monotonic()
        try:
            while not self._cancelled() and (taken := next(waiting, None)) is not None:
                number, verdict = taken
                found = self._one(number, verdict)
                if isinstance(found, FileReport):
                    self._reports[number] = found
                else:
                    read.append(found)
                size = sum(one.size for one in read)
                if len(read) >= GROUP or size >= GROUP_BYTES or time.monotonic() - since >= GROUP_S:
                    self._committed(written)
                    written = self._write(read)
                    read, since = [], time.monotonic()
            self._committed(written + self._write(read))
        except BaseException:
            deque(waiting, maxlen=0)  # the other threads are not to go on
            raise

    def _one(self, number: int, verdict: FileVerdict) -> FileReport | _Whole:
        self._progress(self._done, self._total, verdict.name)
        try:
            if verdict.path is None:
                raise BadInput(verdict.reason)
            return self._file(number, verdict.path, verdict.name, verdict.source)
        except (BadInput, OSError) as error:  # not taken, or gone since it was looked at
            return self._failed(error, {"name": verdict.name, "digest": "", "kind": "", "size": 0})
        finally:
            with self._lock:
                self._done += size_of(verdict)

    def _write(self, read: Sequence[_Whole]) -> list[tuple[_Whole, Future[None]]]:
        return list(zip(read, self._corpora.add_documents([one.write for one in read]), strict=True))

    def _committed(self, written: Sequence[tuple[_Whole, Future[None]]]) -> None:
        """Report on documents as soon as they are on the disk."""
        for one, commit in written:
            try:
                commit.result()
            except Exception as error:
                self._reports[one.number] = self._failed(error, one.about)
            else:
                self._reports[one.number] = self._added(one.about, one.chunks, one.skipped)

    def _file(self, number: int, path: Path, name: str, source: str) -> FileReport | _Whole:
        size, digest = path.stat().st_size, _digest(path)
        there = self._corpora.document(self._collection.id, name)
        if there is not None and there.digest == digest:
            if source and not there.source:
                self._run(self._corpora.set_source(there.id, source))
            return FileReport(
                name=name, state="unchanged", chunks=there.chunks, skipped=there.skipped, source=source,
                replaces=self._corpora.replaced(self._collection.id, name),
            )  # fmt: skip
        skipped = Skipped()
        document, count = None, 0
        about: dict[str, Any] = {
            "name": name, "digest": digest, "kind": path.suffix.lower().removeprefix("."), "size": size,
            "source": source,
        }  # fmt: skip
        try:
            parts = blocks(self._chunks(path, name, skipped), lambda chunk: chunk.bytes, size=BLOCK_BYTES, most=BLOCK)
            block, following = next(parts, None), next(parts, None)
            if block is None:
                raise BadInput(f"{name} holds no text{skipped.words()}.", "Leave it out.")
            if following is None:  # most files
                write = self._corpora.whole_document(self._collection.id, block, **about, skipped=skipped.count)
                size = sum(one.bytes for one in block)
                return _Whole(number=number, about=about, chunks=len(block), size=size, skipped=skipped, write=write)
            document = self._run(self._corpora.begin_document(self._collection.id, **about))
            for part in chain([block, following], parts):
                if self._cancelled():
                    raise BadInput("Its reading was cancelled.", "Add it again.")
                self._run(self._corpora.add_chunks(self._collection.id, document, count, part))
                count += len(part)
                self._progress(self._done + min(size, skipped.read), self._total, name)
        except Exception as error:
            return self._failed(error, about, document)
        self._run(self._corpora.end_document(document, skipped=skipped.count))
        return self._added(about, count, skipped)

    def _failed(self, error: Exception, about: Mapping[str, Any], document: int | None = None) -> FileReport:
        if isinstance(error, RouterError) and not isinstance(error, BadInput):
            raise error  # the store's trouble, and no file's
        name = about["name"]
        reason = extract.why_not(name, error)
        if document is None:
            document = self._run(self._corpora.begin_document(self._collection.id, **about))
        self._run(self._corpora.end_document(document, reason=reason))
        return FileReport(name=name, state="failed", reason=reason)

    def _added(self, about: Mapping[str, Any], count: int, skipped: Skipped) -> FileReport:
        name = about["name"]
        return FileReport(
            name=name, state="added", chunks=count, skipped=skipped.count, reason=skipped.first,
            reasons=tuple(skipped.reasons), notes=tuple(skipped.notes), source=about["source"],
            replaces=self._corpora.replaced(self._collection.id, name),
        )  # fmt: skip

    # ---- chunks ----

    def chunks_of(self, rows: Sequence[Row]) -> list[NewChunk]:
        """The chunks of some rows, of which nothing is written."""
        return self._rows([row for row in rows if not (row.problem or unusable(row.text))])

    def chunks_of_document(self, path: Path, name: str) -> list[NewChunk]:
        """The chunks of a document, of which nothing is written. Raises BadInput where it cannot be read."""
        return list(self._chunks(path, name, Skipped()))

    def close(self) -> None:
        """End what was started for `chunks_of` and `chunks_of_document`; `files` does so itself."""
        self._splitter.close()

    def _chunks(self, path: Path, name: str, skipped: Skipped) -> Iterator[NewChunk]:
        if self._reading.as_rows(path):
            yield from self._of_rows(path, name, skipped)
            return
        document = extract.read_document(path)
        text = normalise(document.text) if self._reading.normalised else document.text
        reason = unusable(text)
        if reason:
            raise BadInput(f"{name} {reason}.", "Mend it at its source.")
        skipped.read = path.stat().st_size
        skipped.notes += document.notes
        sized = _named("", text, self._splitter.pieces(text, markdown=document.kind == "markdown", **self._how))
        while some := list(islice(sized, BLOCK)):
            yield from self._made(some)

    def _of_rows(self, path: Path, name: str, skipped: Skipped) -> Iterator[NewChunk]:
        """Rows that fit a chunk are taken exactly as they are, so that the cache knows them from elsewhere."""
        ahead: deque[Future[list[NewChunk]]] = deque()
        usable = self._usable_rows(path, name, skipped)
        for rows in blocks(usable, lambda row: len(row.text), size=BLOCK_BYTES, most=BLOCK):
            ahead.append(self._pool.submit(self._rows, rows))
            if len(ahead) > CORES:
                yield from ahead.popleft().result()
        for block in ahead:
            yield from block.result()

    def _usable_rows(self, path: Path, name: str, skipped: Skipped) -> Iterator[Row]:
        ids = Ids()
        for row in extract.read_rows(path, self._reading.columns_of(path, name)):
            skipped.read += len(row.text)  # about: for the progress only
            reason = row.problem or unusable(row.text)
            if reason:
                skipped.add(f"Row {row.id or row.number} (line {row.line}) {reason}.")
            else:
                yield replace(row, id=ids.take(row.id, row.number, row.line))
        skipped.notes += filter(None, [ids.note()])

    def _rows(self, rows: Sequence[Row]) -> list[NewChunk]:
        texts = [normalise(row.text) if self._reading.normalised else row.text for row in rows]
        found = iter(split_texts([text for text in texts if len(text) <= IN_PROCESS], whole=True, **self._how))
        sized: list[Sized] = []
        for row, text in zip(rows, texts, strict=True):
            pieces = self._splitter.pieces(text, **self._how) if len(text) > IN_PROCESS else next(found)
            if isinstance(pieces, list) and len(pieces) == 1:
                sized.append((row.id, text, pieces[0].tokens))
            else:  # a row is one text: of several chunks each has a name of its own
                sized += _named(row.id, text, pieces)
        return self._made(sized)

    def _made(self, pieces: Sequence[Sized]) -> list[NewChunk]:
        """Chunks with their sizes by every tokenizer that costs money."""
        texts = [text for _, text, _ in pieces]
        own = [size for _, _, size in pieces]
        cl100k = own if self._collection.tokenizer == "cl100k_base" else tokens.count("cl100k_base", texts)
        made = []
        for (label, text, mine), paid in zip(pieces, cl100k, strict=True):
            data = text.encode()
            made.append(
                NewChunk(
                    label=label[:_MOST_LABEL],
                    digest=blake2b(data, digest_size=32).digest(),
                    near_empty=is_near_empty(text),
                    bytes=len(data),
                    cl100k=paid,
                    tokens=mine,
                    text=text,
                )
            )
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A document that was read whole, and waits to be written: `number` is its file's, `size` its chunks' bytes."""

    number: int
    about: Mapping[str, Any]
    chunks: int
    size: int
    skipped: Skipped
    write: Write


def unusable(text: str) -> str:
    """Why a text can never be embedded (`has a NUL character`), or ""."""
    if not text or text.isspace():
        return "is empty"
    if "\0" in text:
        return "has a NUL character; it is probably binary"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "has half of a surrogate pair, which is not a character"
    return f"is {size:,} bytes long" if size > 4 * MOST_BYTES else ""


def _named(label: str, text: str, pieces: Iterable[Piece]) -> Iterator[Sized]:
    """Each piece with its number behind the label, if there is one."""
    for n, p in enumerate(pieces, 1):
        yield f"{label}/{n}" if label else "", text[p.start : p.end], p.tokens


def size_of(verdict: FileVerdict) -> int:
    """Bytes of a file; 0 where it was not taken, or has gone."""
    try:
        return verdict.path.stat().st_size if verdict.path is not None else 0
    except OSError:
        return 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=32)).hexdigest()
