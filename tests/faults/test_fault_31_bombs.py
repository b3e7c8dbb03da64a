"""Fault 31: bombs, hostile names, endless bodies and wrong encodings in uploads.

Figure: each is refused (or read rightly) within 30 s and 512 MB, this process and its readers together, with a reason;
the good files go on.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from router.domain.errors import BadInput
from router.ingest.archives import expand
from router.ingest.extract import kind_of, read_document, read_rows, save_stream
from tests.ingest.makers import archive, docx_with_body, pdf
from tests.ingest.office_files import element, packed, relations

WORD = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>%s</w:body></w:document>'
ROOT = Path(__file__).parents[2]
MOST_MB, MOST_S = 512, 30.0


class Endless(io.RawIOBase):
    """A body of a gigabyte, sent in chunks, that is never in memory."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int = -1) -> bytes:
        """The next chunk of zeros."""
        size = min(self.left, 1 << 20 if size < 0 else size)
        self.left -= size
        return bytes(size)


def peak_mb() -> float:
    """The most that this process, or any of its ended readers, has had resident."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024


def make_parquet(path: Path) -> Path:
    """A few kilobytes that unpack to gigabytes: one long value, repeated by reference."""
    value = "x" * (4 << 20)
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int32()), pa.array([value]))})
    pq.write_table(table, path, compression="zstd")
    return path


def bombs(folder: Path) -> dict[str, Path]:
    """A file of each kind, small on disk."""
    made = {
        "zip": archive(folder / "bomb.zip", {"zeros.txt": bytes(300 << 20)}),
        "zip in zip": archive(folder / "outer.zip", {"inner.zip": (folder / "bomb.zip").read_bytes()}),
        "names": archive(folder / "names.zip", {"../up.txt": "a", "..\\up.txt": "b", "/etc/root.txt": "c"}),
        "parquet": make_parquet(folder / "bomb.parquet"),
    }
    laughs = b"<!DOCTYPE d [<!ENTITY a0 'ha'>" + b"".join(
        b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
    )
    slide = {
        "_rels/.rels": relations(r="officeDocument p.xml"),
        "p.xml": element("p:presentation", '<p:sldId r:id="s"/>'),
        "_rels/p.xml.rels": relations(s="slide s.xml"),
    }
    book = {
        "META-INF/container.xml": '<container><rootfile full-path="b.opf"/></container>',
        "b.opf": '<package><item id="i" href="p.html" media-type="text/html"/><itemref idref="i"/></package>',
    }
    for name, content in {
        "tree.pptx": packed(slide | {"s.xml": element("p:sld", "<a:p/>" * (18 << 20))}),
        "laughs.pptx": packed(slide | {"s.xml": laughs.decode() + "]><d>&a9;</d>"}),
        "size.xlsx": packed({"xl/worksheets/sheet1.xml": " " * (130 << 20)}),
        "size.epub": packed(book | {"p.html": "<p>" + " " * (130 << 20)}),
        "spine.epub": packed(
            book
            | {
                "b.opf": book["b.opf"].replace("<itemref", '<itemref idref="i"/>' * 200_000 + "<itemref"),
                "p.html": "<p>" + "word " * 2_000,
            }
        ),
        "nested.eml": b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(2_000)
        ),
        "subject.eml": b"Subject: " + b"=?utf-8?q?a?= " * 100_000 + b"\n\nx",
        "pdf.pdf": pdf(b" " * (200 << 20), packed=True),
        "xml.docx": docx_with_body(laughs + b"]>" + WORD % b"&a9;"),
        "tree.docx": docx_with_body(WORD % (b"<a/>" * (20 << 20))),
        "binary.txt": bytes(range(256)) * 4_000,
    }.items():
        made[name] = folder / name
        made[name].write_bytes(content)
    return made


def read(path: Path, into: Path) -> str:
    """What becomes of a file: why it is refused, or "read"."""
    reasons = []
    for verdict in expand([path], into):
        try:
            if verdict.path is None:
                raise BadInput(verdict.reason)
            if kind_of(verdict.path) == "rows" and verdict.path.suffix != ".txt":
                for _ in read_rows(verdict.path):
                    pass
            else:
                read_document(verdict.path)
        except BadInput as error:
            reasons.append(error.message)
    return "; ".join(reasons) or "read"


def survive(folder: Path) -> str:
    """Read every bomb in this process; returns the figure. Asserts what must hold."""
    made = bombs(folder)
    before, slowest = peak_mb(), 0.0
    for name, path in made.items():
        start = time.perf_counter()
        assert read(path, folder / "into") != "read", name
        slowest = max(slowest, time.perf_counter() - start)
    with pytest.raises(BadInput):
        save_stream(Endless(1 << 30), folder / "kept", name="body.txt", limit=64 << 20)
    assert [p for p in (folder / "kept").rglob("*") if p.is_file()] == []
    assert not (folder / "up.txt").exists()
    assert not (folder.parent / "up.txt").exists()
    good = folder / "latin.txt"
    good.write_bytes("Müllabfuhr, café, naïve Gemüter: alles lesbar.".encode("latin-1"))
    assert "café" in read_document(good).text
    used = peak_mb() - before
    line = f"{len(made)} bombs refused, the slowest in {slowest:.1f} s, {used:.0f} MB above what was used before"
    assert slowest <= MOST_S
    assert used <= MOST_MB
    return line


def test_every_bomb_is_refused_in_time_and_memory(tmp_path: Path, figure: Callable[[int, str], None]) -> None:
    """None is read, each says why, nothing lands outside, and the good file is read; in a process of its own,
    whose peak of memory is therefore these files' and no other test's."""
    code = f"from pathlib import Path; from {__name__} import survive; print(survive(Path({str(tmp_path)!r})))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    figure(31, ran.stdout.strip())
