"""Documents as they come: mangled, mislabelled, empty, nested, locked, cut off; each with what is right for it."""

from __future__ import annotations

import base64
import io
import zipfile
from email.message import EmailMessage

from tests.ingest.makers import docx, pdf, pdf_saying
from tests.ingest.office_files import dp, element, p, packed, relations, shape, slides, t, word

GOOD = "every word of it"


def sheet(*rows: list[object]) -> bytes:
    """An XLSX of these rows."""
    import openpyxl  # type: ignore[import-untyped]

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def page(words: str, name: str = "text/xhtml") -> dict[str, str]:
    """The parts of an EPUB of one page."""
    return {
        "META-INF/container.xml": '<container><rootfile full-path="b.opf"/></container>',
        "b.opf": f'<package><manifest><item id="i" href="p.xhtml" media-type="{name}"/></manifest><spine>'
        '<itemref idref="i"/></spine></package>',
        "p.xhtml": f"<html><p>{words}</p></html>",
    }


def letter(words: str = GOOD, **headers: str) -> bytes:
    """An EML."""
    message = EmailMessage()
    for name, value in ({"From": "a@example.com"} | headers).items():
        message[name] = value
    message.set_content(words)
    return bytes(message)


def locked(content: bytes) -> bytes:
    """The same zip with the flag of encryption on each of its entries."""
    data = bytearray(content)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := data.find(magic, start)) >= 0:
            data[start + at] |= 1
            start += 4
    return bytes(data)


def locked_pdf(user: str) -> bytes:
    """A PDF with an owner's password, and perhaps a reader's."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_saying(GOOD)))
    writer.encrypt(user, "owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def pdf_in_pdf() -> bytes:
    """A PDF with a file attached."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_saying(GOOD)))
    writer.add_attachment("inner.pdf", pdf_saying("inner"))
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def upper(content: bytes) -> bytes:
    """The same archive with other names' case, and its parts in another order."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        return packed(
            {name.replace("word/document", "Word/Document"): old.read(name) for name in sorted(old.namelist())}
        )


def strict(xml: str) -> str:
    """The same in the namespaces of the format's strict variant."""
    new = "purl.oclc.org/ooxml"
    return xml.replace("schemas.openxmlformats.org/wordprocessingml/2006/main", f"{new}/wordprocessingml/main").replace(
        "schemas.openxmlformats.org/officeDocument/2006", f"{new}/officeDocument"
    )


DEEP = "<w:sdt><w:sdtContent>" * 110 + p(t(GOOD)) + "</w:sdtContent></w:sdt>" * 110
FILES: dict[str, tuple[bytes | str, str]] = {
    # name: (content, a pattern of the reason; or "" where it is read whole, or "note: PATTERN" where something is said)
    "plain.docx": (docx(GOOD), ""),
    "case.docx": (upper(word(p(t(GOOD)))), ""),
    "nested.docx": (word(DEEP), ""),
    "bottomless.docx": (word("<w:p>" * 300 + "</w:p>" * 300), "its part word/document.xml is no XML"),
    "cut.docx": (docx(GOOD)[:9_000], "the end of it is missing"),
    "cut_xml.docx": (
        packed({"_rels/.rels": relations(r="officeDocument d.xml"), "d.xml": element("w:document", "x")[:-9]}),
        "its part d.xml is no XML",
    ),
    "no_main.docx": (packed({"readme.txt": "x"}), "it has no main part"),
    "locked.docx": (locked(word(p(t(GOOD)))), "protected by a password"),
    "damaged.docx": (word(p(t(GOOD))).replace(b"PK\x03\x04", b"PK\x03\x05", 3), "is damaged"),
    "sheet.docx": (sheet([GOOD]), r"it is an Excel file; give its name the ending \.xlsx"),
    "text.docx": (GOOD, "no archive"),
    "strict.docx": (
        packed({
            "_rels/.rels": strict(relations(r="officeDocument d.xml")),
            "d.xml": strict(element("w:document", f"<w:body>{p(t(GOOD))}</w:body>")),
        }),
        "",
    ),
    "entity.docx": (
        packed({
            "_rels/.rels": relations(r="officeDocument d.xml"),
            "d.xml": '<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + element("w:document", "&x;")[38:],
        }),
        "declares entities of its own",
    ),
    "slide_missing.pptx": (
        packed({
            "_rels/.rels": relations(r="officeDocument ppt/p.xml"),
            "ppt/p.xml": element("p:presentation", '<p:sldId r:id="a"/><p:sldId r:id="b"/>'),
            "ppt/_rels/p.xml.rels": relations(a="slide a.xml", b="slide b.xml"),
            "ppt/a.xml": element("p:sld", f"<p:spTree>{shape(dp(GOOD))}</p:spTree>"),
        }),
        "note: A slide of it is missing",
    ),
    "empty.pptx": (slides(), "it holds no text"),
    "loop.pptx": (
        slides('<p:graphicFrame><c:chart r:id="c"/></p:graphicFrame>' + shape(dp(GOOD)), more={
            "ppt/slides/_rels/slide1.xml.rels": relations(c="chart ../c.xml"),
            "ppt/c.xml": element("c:chartSpace", '<c:chart r:id="c"/>'),
            "ppt/_rels/c.xml.rels": relations(c="chart c.xml"),
        }),
        "",
    ),
    "word.pptx": (docx(GOOD), r"it is a Word file; give its name the ending \.docx"),
    "plain.xlsx": (sheet(["id", "text"], [1, GOOD]), ""),
    "empty.xlsx": (sheet(), "it holds no text; The sheet Sheet has no cells"),
    "cut.xlsx": (sheet([GOOD])[:3_000], "the end of it is missing"),
    "csv.xlsx": (f"id,text\n1,{GOOD}\n", "no archive"),
    "far.xlsx": (sheet(*[[]] * 3, [None] * 200 + [GOOD]), ""),
    "plain.epub": (packed(page(GOOD, "application/xhtml+xml")), ""),
    "pictures.epub": (packed(page(GOOD, "image/svg+xml")), "1 page of it is a picture"),
    "missing.epub": (packed({k: v for k, v in page(GOOD).items() if k != "p.xhtml"}), "1 chapter of it is missing"),
    "zip.epub": (packed({"a.txt": "x"}), r"has no META-INF/container\.xml"),
    "plain.eml": (letter(Subject="Hello"), ""),
    "bad_date.eml": (letter().replace(b"From: ", b"Date: yesterday, I think\nFrom: <<;\nTo: "), ""),
    "charset.eml": (b"From: a\nContent-Type: text/plain; charset=no-such\n\n" + GOOD.encode(), ""),
    "bad_base64.eml": (
        b"From: a\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(GOOD.encode()) + b"!!", "",
    ),
    "no_end.eml": (b"From: a\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n" + GOOD.encode(), ""),
    "outlook.eml": (b"\xd0\xcf\x11\xe0" + bytes(500), "it is a message of Outlook"),
    "text.eml": (GOOD, "it has no headers"),
    "plain.pdf": (pdf_saying(GOOD), ""),
    "attached.pdf": (pdf_in_pdf(), "note: 1 file attached inside"),
    "owner.pdf": (locked_pdf(""), ""),
    "locked.pdf": (locked_pdf("secret"), "protected by a password"),
    "cut.pdf": (pdf_saying(GOOD)[:-200], "it is broken .*save it anew"),
    "junk_before.pdf": (b"\n\njunk\n" + pdf_saying(GOOD), ""),
    "scan.pdf": (pdf(b"0 0 m 10 10 l S"), "a scan has only pictures"),
    "page.pdf": (f"<!doctype html><p>{GOOD}", r"it is a web page; give its name the ending \.html"),
    "word.pdf": (docx(GOOD), "it is an Office file, an EPUB or another archive"),
    "pdf.html": (pdf_saying(GOOD), "is not text but a PDF"),
    "word.html": (docx(GOOD), "is not text but a zip archive or an Office file"),
    "no_end.html": (f"<div><table><tr><td>{GOOD}", ""),
    "crossed.html": (f"</p></b><b><p>{GOOD}</b></p></html><p>and behind", ""),
    "noise.html": (bytes((7 * n * n + 13 * n) % 251 for n in range(5000)), "is not text"),
    "utf16.xhtml": (f'<?xml version="1.0" encoding="utf-16"?><html><p>{GOOD}</p></html>'.encode("utf-16-be"), ""),
    "broken_utf8.htm": (f"<p>{GOOD} äöü".encode() + b"\xff</p>", "note: 1 place of it is no text in utf-8"),
    "picture.md": (b"\x89PNG\r\n\x1a\n" + bytes(300), "is not text but a picture"),
    "only_data.md": ("![x](data:image/png;base64," + "A" * 5_000 + ")", "note: 1 image left out"),
    "zeros.py": (bytes(1_000), "is not text"),
    "cp1252.tex": (f"{GOOD} für älteres".encode("cp1252"), ""),
    "old.py": (f"# {GOOD}\r\rpass\r".encode("utf-16"), ""),
}  # fmt: skip
