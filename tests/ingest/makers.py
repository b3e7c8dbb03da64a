"""Small files of every kind, honest and hostile, made on the spot."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path


def pdf(content: bytes, *, packed: bool = False) -> bytes:
    """A one-page PDF with this content stream, such as `BT /F1 12 Tf 72 720 Td (Hello) Tj ET`."""
    stream = zlib.compress(content, 1) if packed else content
    filters = b" /Filter /FlateDecode" if packed else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(stream), filters, stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))
    return body + head + table + tail


def pdf_saying(words: str) -> bytes:
    """A one-page PDF that says these words."""
    return pdf(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % words.encode("cp1252"))


def docx(*paragraphs: str, table: list[list[str]] | None = None) -> bytes:
    """A DOCX of these paragraphs, and a table behind them."""
    import docx as python_docx

    document = python_docx.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    if table:
        grid = document.add_table(rows=len(table), cols=len(table[0]))
        for row, cells in zip(grid.rows, table, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def docx_with_body(xml: bytes) -> bytes:
    """A DOCX whose main part is this XML."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx("x"))) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for name in old.namelist():
            new.writestr(name, xml if name == "word/document.xml" else old.read(name))
    return out.getvalue()


def archive(path: Path, entries: dict[str, bytes | str]) -> Path:
    """A zip of these entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return path
