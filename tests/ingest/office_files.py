"""Office files of bare XML, for what the usual libraries do not write, such as tracked changes and text boxes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from xml.sax.saxutils import escape

SPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    ' xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'
    ' xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
    ' xmlns:c="http://schemas.openxmlformats.org/drawingml/2006/chart"'
    ' xmlns:dgm="http://schemas.openxmlformats.org/drawingml/2006/diagram"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
    ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
)
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def packed(parts: Mapping[str, str | bytes]) -> bytes:
    """A zip of these parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def relations(**targets: str) -> str:
    """A part of relations: `id="kind target"`."""
    items = "".join(
        f'<Relationship Id="{key}" Type="{REL}/{value.split(" ")[0]}" Target="{value.split(" ")[1]}"/>'
        for key, value in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{items}</Relationships>'
    )


def element(name: str, content: str, more: str = "") -> str:
    """A root element with all namespaces."""
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} {SPACES}{more}>{content}</{name}>'


def t(text: str) -> str:
    """A run of Word."""
    return f'<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r>'


def p(*inside: str) -> str:
    """A paragraph of Word."""
    return f"<w:p>{''.join(inside)}</w:p>"


def word(body: str, parts: Mapping[str, str] | None = None, **targets: str) -> bytes:
    """A DOCX of this body; `targets` are its relations, `parts` what they lead to."""
    return packed(
        {
            "_rels/.rels": relations(r1="officeDocument word/document.xml"),
            "word/document.xml": element("w:document", f"<w:body>{body}</w:body>"),
            "word/_rels/document.xml.rels": relations(**targets),
            **{f"word/{name}": content for name, content in (parts or {}).items()},
        }
    )


def dp(text: str) -> str:
    """A paragraph of DrawingML."""
    return f"<a:p><a:r><a:t>{escape(text)}</a:t></a:r></a:p>"


def shape(*paragraphs: str, place: str = "") -> str:
    """A shape of a slide."""
    ph = f'<p:ph type="{place}"/>' if place else ""
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="2" name="not seen"/><p:nvPr>{ph}</p:nvPr></p:nvSpPr>'
        f"<p:txBody><a:bodyPr/>{''.join(paragraphs)}</p:txBody></p:sp>"
    )


def slides(*trees: str, notes: Mapping[int, str] | None = None, more: Mapping[str, str] | None = None) -> bytes:
    """A PPTX of these slides (shapes); `notes` by the slide's number from 1, `more` parts as they are."""
    parts = {
        "_rels/.rels": relations(r1="officeDocument ppt/presentation.xml"),
        "ppt/presentation.xml": element(
            "p:presentation",
            "<p:sldIdLst>"
            + "".join(f'<p:sldId id="{255 + n}" r:id="s{n}"/>' for n in range(1, len(trees) + 1))
            + "</p:sldIdLst>",
        ),
        # The files are numbered backwards: the order is the list's, and not that of the names.
        "ppt/_rels/presentation.xml.rels": relations(
            **{f"s{n}": f"slide slides/slide{len(trees) - n + 1}.xml" for n in range(1, len(trees) + 1)}
        ),
    }
    for n, tree in enumerate(trees, 1):
        file = len(trees) - n + 1
        parts[f"ppt/slides/slide{file}.xml"] = element("p:sld", f"<p:cSld><p:spTree>{tree}</p:spTree></p:cSld>")
        if notes and n in notes:
            parts[f"ppt/slides/_rels/slide{file}.xml.rels"] = relations(n1=f"notesSlide ../notesSlides/notes{n}.xml")
            inside = shape(dp("5"), place="sldNum") + shape(dp(notes[n]), place="body")
            parts[f"ppt/notesSlides/notes{n}.xml"] = element(
                "p:notes", f"<p:cSld><p:spTree>{inside}</p:spTree></p:cSld>"
            )
    return packed(parts | dict(more or {}))


def sheet_of(book: bytes, cells: str, strings: str, more: Mapping[str, str] | None = None) -> bytes:
    """An XLSX as spreadsheet programs write it, made of one by openpyxl: its first sheet has one row of these cells,
    which refer to these shared strings.
    """
    with zipfile.ZipFile(io.BytesIO(book)) as old:
        parts: dict[str, str | bytes] = {name: old.read(name) for name in old.namelist()}
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    types = bytes(parts["[Content_Types].xml"]).decode()
    if "sharedStrings" not in types:
        types = types.replace("</Types>", f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>')
    parts |= {
        "[Content_Types].xml": types,
        "xl/sharedStrings.xml": f"<sst {space}>{strings}</sst>",
        "xl/worksheets/sheet1.xml": f"<worksheet {space}><sheetData><row>{cells}</row></sheetData></worksheet>",
    }
    return packed(parts | dict(more or {}))
