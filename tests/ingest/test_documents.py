"""Documents are read as a person sees them: what is in the text, what is not, and what is said about it."""

from __future__ import annotations

import base64
import datetime
import io
import re
import zipfile
from email.message import EmailMessage
from pathlib import Path

import pytest

from router.cli.rows import read_files
from router.domain.errors import BadInput
from router.ingest.extract import UPLOADS, Document, kind_of, read_document, read_rows
from tests.ingest import mangled
from tests.ingest.makers import pdf, pdf_saying
from tests.ingest.office_files import dp, element, p, packed, relations, shape, sheet_of, slides, t, word
from tests.libraries import opened

CASES = Path(__file__).parents[1] / "data" / "cases" / "docs"
RIGHT: dict[str, tuple[list[str], str]] = {
    "tracked.docx": (
        ["Contract terms.", "The payment is due within NINETY days of the invoice.", "WHOLEINSERTED A penalty of five"],
        "",
    ),
    "sdt.docx": (["Offer letter.", "BLOCKSDT The candidate starts on", "Dear INLINESDT Ms. Muster, welcome."], ""),
    "footnote.docx": (["The drug was well tolerated.", "FOOTNOTE Except in three patients, who died."], ""),
    "gb2312declared.html": (["熔炉镕铸，珺与喆在会议上出席。"], ""),
    "nul.pdf": (["Invoice  number 4711", "Total is 99 euro."], ""),
    "mostly_scanned.pdf": (
        ["Scanned by the records office, 2019."],
        "Pages 2 to 10 have no text: scanned? They are not embedded.",
    ),
}  # fmt: skip


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(folder: Path, name: str, content: bytes | str) -> Document:
    return read_document(put(folder, name, content))


def refusal(path: Path) -> str:
    """Why a document cannot be read."""
    with pytest.raises(BadInput) as caught:
        read_document(path)
    assert path.name in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("name", RIGHT)
def test_the_reported_files_are_read_whole_in_the_shell(name: str) -> None:
    """All that a person sees, in order; what is not text is named."""
    found = read_files([CASES / name])
    text, (wanted, note) = "\n".join(found.texts), RIGHT[name]
    places = [text.index(words) for words in wanted]
    assert places == sorted(places)
    assert "thirty" not in text
    assert found.notes == ([f"{name}: {note}"] if note else [])


async def test_the_reported_files_are_read_whole_in_the_browser(tmp_path: Path) -> None:
    """As an upload: the chunks, and the notes of each verdict."""
    async with opened(tmp_path / "data") as here:
        await here.library.create("docs")
        reports = {report.name: report for report in await here.library.add_files("docs", [CASES])}
        assert {name for name, report in reports.items() if report.state == "added"} == set(RIGHT)
        documents = {d.name: d.id for d in here.library.documents("docs")}
        for name, (wanted, note) in RIGHT.items():
            text = "\n".join(chunk.text for chunk in here.library.chunks(documents[name]))
            assert all(words in text for words in wanted)
            assert reports[name].notes == ((note,) if note else ())


# ---- DOCX --------------------------------------------------------------------------------------

BOX = (
    "<w:r><mc:AlternateContent><mc:Choice Requires='wps'><w:drawing><wps:txbx><w:txbxContent>{0}</w:txbxContent>"
    "</wps:txbx></w:drawing></mc:Choice><mc:Fallback><w:pict><v:textbox><w:txbxContent>{0}</w:txbxContent></v:textbox>"
    "</w:pict></mc:Fallback></mc:AlternateContent></w:r>"
)


def test_docx_text_boxes_once_and_nested_tables(tmp_path: Path) -> None:
    """A box stands once, behind its paragraph; a table in a cell keeps its rows; a deleted row is gone."""
    row = "<w:tr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr>"
    inner = "<w:tbl>" + row.format(p(t("deep1")), p(t("deep2"))) + "</w:tbl>"
    gone = row.replace("<w:tr>", "<w:tr><w:trPr><w:del/></w:trPr>").format(p(t("GONE")), p(t("GONE")))
    controlled = f"<w:sdt><w:sdtContent>{row.format(p(t('c1')), p(t('c2')))}</w:sdtContent></w:sdt>"
    body = (
        p(t("Before "), BOX.format(p(t("in the box"))), t("and behind."))
        + "<w:tbl>"
        + row.format(p(t("a")), p(t("b")) + inner)
        + gone
        + controlled
        + "</w:tbl>"
    )
    text = read(tmp_path, "a.docx", word(body)).text
    assert text == "Before and behind.\n\nin the box\n\na\tb\ndeep1\tdeep2\nc1\tc2"


def test_docx_words_inside_of_other_things(tmp_path: Path) -> None:
    """Moved text where it went; smart tags, fields, links, formulas, rubies; no codes of fields, no comments."""
    body = p(
        f"<w:moveTo>{t('moved ')}</w:moveTo><w:moveFrom>{t('GONE ')}</w:moveFrom>",
        f"<w:smartTag>{t('smart ')}</w:smartTag>",
        f'<w:fldSimple w:instr="AUTHOR">{t("simple ")}</w:fldSimple>',
        '<w:r><w:fldChar w:fldCharType="begin"/><w:instrText>GONE</w:instrText></w:r>',
        t("complex "),
        f'<w:hyperlink r:id="x">{t("linked ")}</w:hyperlink>',
        '<w:r><w:commentReference w:id="1"/></w:r>',
        "<m:oMath><m:r><m:t>E=mc</m:t></m:r></m:oMath>",
        f"<w:r><w:ruby><w:rt>{t('kana')}</w:rt><w:rubyBase>{t(' kanji')}</w:rubyBase></w:ruby></w:r>",
        "<w:r><w:tab/><w:t>tab</w:t><w:br/><w:t>well</w:t><w:noBreakHyphen/><w:t>made</w:t>",
        '<w:sym w:char="2612"/></w:r>',
        '<w:r><w:fldChar><w:ffData><w:ddList><w:result w:val="1"/><w:listEntry w:val="GONE"/>'
        "<w:listEntry w:val=' chosen'/></w:ddList></w:ffData></w:fldChar>"
        "<w:pict><v:shape><v:textpath string='ART'/></v:shape></w:pict></w:r>",
    )
    comments = element("w:comments", f'<w:comment w:id="1">{p(t("GONE"))}</w:comment>')
    text = read(tmp_path, "a.docx", word(body, {"comments.xml": comments}, c1="comments comments.xml")).text
    assert text == "moved smart simple complex linked E=mc kanji(kana)\ttab\nwell-made☒ chosen\n\nART"


def test_docx_headers_footers_and_notes_once(tmp_path: Path) -> None:
    """A header of three sections once, first; footnotes and endnotes where they belong; separators and orphans not."""
    parts = {
        f"{name}.xml": element(f"w:{tag}", p(t(text)))
        for name, tag, text in (("h1", "hdr", "HEAD"), ("h2", "hdr", "HEAD"), ("f1", "ftr", "FOOT"))
    }
    parts["footnotes.xml"] = element(
        "w:footnotes", "".join(f'<w:footnote w:id="{n}">{p(t(f"foot{n}"))}</w:footnote>' for n in (-1, 2, 3))
    )
    parts["endnotes.xml"] = element("w:endnotes", f'<w:endnote w:id="2">{p(t("end2"))}</w:endnote>')
    section = "".join(
        f'<w:sectPr><w:headerReference r:id="{h}"/><w:footerReference r:id="f"/></w:sectPr>' for h in ("h1", "h2")
    )
    body = (
        p(t("One"), '<w:r><w:footnoteReference w:id="2"/></w:r>', t("."), '<w:r><w:endnoteReference w:id="2"/></w:r>')
        + p(f"<w:pPr>{section}</w:pPr>", t("Two."))
        + "<w:del>"
        + p('<w:r><w:footnoteReference w:id="3"/></w:r>')
        + "</w:del>"
        + section
    )
    file = word(
        body, parts, h1="header h1.xml", h2="header h2.xml", f="footer f1.xml", n="footnotes footnotes.xml",
        e="endnotes endnotes.xml",
    )  # fmt: skip
    assert read(tmp_path, "a.docx", file).text.split() == ["HEAD", "One.", "foot2", "end2", "Two.", "FOOT"]


def test_docx_diagrams_charts_and_what_cannot_be_read(tmp_path: Path) -> None:
    """Their words are in parts of their own; an embedded object is named."""
    body = (
        p(t("See"), '<w:r><w:drawing><dgm:relIds r:dm="d"/></w:drawing></w:r>')
        + p('<w:r><w:drawing><c:chart r:id="c"/></w:drawing></w:r>')
        + p("<w:r><w:object><OLEObject/></w:object></w:r>")
    )
    parts = {
        "diagram.xml": element("dgm:dataModel", f"<dgm:ptLst><dgm:pt><dgm:t>{dp('step')}</dgm:t></dgm:pt></dgm:ptLst>"),
        "chart.xml": element(
            "c:chartSpace",
            f"<c:chart><c:title>{dp('Sales')}</c:title><c:strCache><c:pt><c:v>north</c:v></c:pt></c:strCache></c:chart>",
        ),
    }
    document = read(tmp_path, "a.docx", word(body, parts, d="diagramData diagram.xml", c="chart chart.xml"))
    assert document.text.split() == ["See", "step", "Sales", "north"]
    assert document.notes == ("1 embedded object of it cannot be read.",)


def test_an_office_file_by_another_name_says_what_it_is(tmp_path: Path) -> None:
    """Of another program, of another decade, locked, a web page, and half a file."""
    locked = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")
    reasons = {
        "slides.docx": (slides(shape(dp("x"))), "it is a PowerPoint file; give its name the ending .pptx"),
        "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "it is in the format of before 2007"),
        "locked.docx": (locked, "protected by a password"),
        "page.docx": ("<!DOCTYPE html><p>x", "it is a web page"),
        "pdf.docx": (pdf_saying("x"), "it is a PDF"),
        "rtf.docx": (r"{\rtf1 x}", "it is an RTF file"),
        "half.docx": (word(p(t("x")))[:200], "the end of it is missing"),
        "empty.docx": (word(""), "it holds no text"),
    }
    for name, (content, reason) in reasons.items():
        assert reason in refusal(put(tmp_path, name, content))


# ---- PDF ---------------------------------------------------------------------------------------


def form(folder: Path, *, flags: int = 0, xfa: bool = False, words: str = "The form") -> Path:
    """A PDF with a filled text field, a ticked box, an empty field and a choice."""
    import pypdf
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NumberObject, TextStringObject

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_saying(words)))
    fields = ArrayObject()
    for kind, name, value in (
        ("/Tx", "Surname", TextStringObject("Muster")), ("/Btn", "Member", NameObject("/Yes")),
        ("/Btn", "Left", NameObject("/Off")), ("/Tx", "Empty", TextStringObject("")),
        ("/Ch", "Town", TextStringObject("b")),
    ):  # fmt: skip
        field = DictionaryObject({
            NameObject("/Type"): NameObject("/Annot"), NameObject("/Subtype"): NameObject("/Widget"),
            NameObject("/FT"): NameObject(kind), NameObject("/T"): TextStringObject(name), NameObject("/V"): value,
            NameObject("/Ff"): NumberObject(flags if kind == "/Tx" else 0),
        })  # fmt: skip
        if kind == "/Ch":
            pair = ArrayObject([TextStringObject("b"), TextStringObject("Berlin")])
            field[NameObject("/Opt")] = ArrayObject([pair])
        fields.append(writer._add_object(field))
    free = DictionaryObject({
        NameObject("/Subtype"): NameObject("/FreeText"), NameObject("/Contents"): TextStringObject("typed on the face"),
    })  # fmt: skip
    writer.pages[0][NameObject("/Annots")] = ArrayObject([*fields, writer._add_object(free)])
    root = DictionaryObject({NameObject("/Fields"): fields})
    if xfa:
        root[NameObject("/XFA")] = TextStringObject("x")
    writer.root_object[NameObject("/AcroForm")] = root
    path = folder / "form.pdf"
    writer.write(path)
    return path


def test_pdf_fields_beside_their_names(tmp_path: Path) -> None:
    """What a form was filled with, and typed comments; no empty fields, and no passwords."""
    text = read_document(form(tmp_path)).text
    assert text.split("\n") == ["The form", "Surname: Muster", "Member: Yes", "Town: Berlin", "typed on the face"]
    assert "Muster" not in read_document(form(tmp_path, flags=1 << 13)).text


def test_pdf_placeholder_of_an_xfa_form_is_refused(tmp_path: Path) -> None:
    """'Please wait' is not what the person wants to search; a form that has its text is read."""
    reason = refusal(form(tmp_path, xfa=True, words="Please wait... If this message is not eventually replaced, your"))
    assert "XFA form" in reason
    assert "print it to a new PDF" in reason
    assert "XFA form" in refusal(form(tmp_path, xfa=True, words="Please wait..."))
    assert "Muster" in read_document(form(tmp_path, xfa=True)).text


def with_font(font: bytes, words: bytes = b"(good words) Tj") -> bytes:
    """A page in Helvetica and in one more font."""
    content = b"BT /F1 12 Tf 72 720 Td %s 0 -20 Td /F2 12 Tf <00240025> Tj ET" % words
    base = pdf(content).replace(b"/F1 5 0 R", b"/F1 5 0 R /F2 %s" % font)
    return base[: base.index(b"xref")] + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n0\n%%EOF\n"


@pytest.mark.parametrize(
    "font",
    [
        b"<< /Type /Font /Subtype /Type0 /BaseFont /ABCDEF+Odd /Encoding /Identity-H /DescendantFonts"
        b" [<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Odd /CIDSystemInfo << /Ordering (Identity) >> >>] >>",
        b"<< /Type /Font /Subtype /Type3 /BaseFont /Odd /FirstChar 0 /LastChar 37 /CharProcs << >> /FontMatrix"
        b" [1 0 0 1 0 0] /FontBBox [0 0 1 1] /Widths [] /Encoding << /Differences [0 /g0 36 /g36 /g37] >> >>",
    ],
    ids=["identity", "type3"],
)
def test_pdf_fonts_that_map_to_no_text_are_named(tmp_path: Path, font: bytes) -> None:
    """What is set in one is left out, and said; the rest of the page is read; a file of nothing else is refused."""
    document = read(tmp_path, "a.pdf", with_font(font))
    assert document.text == "good words"
    (note,) = document.notes
    assert note.startswith("The font Odd maps to no text (page 1)")
    assert "The font Odd maps to no text" in refusal(put(tmp_path, "b.pdf", with_font(font, b"")))


def test_pdf_page_that_is_broken_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    """One page's damage is that page's alone."""
    import pypdf
    from pypdf.generic import NameObject, StreamObject

    writer = pypdf.PdfWriter()
    for words in ("first", "second", "third"):
        writer.append(io.BytesIO(pdf_saying(words)))
    unknown = StreamObject()
    unknown.set_data(b"x")
    unknown[NameObject("/Filter")] = NameObject("/Unknown")
    writer.pages[1][NameObject("/Contents")] = writer._add_object(unknown)
    writer.write(tmp_path / "a.pdf")
    document = read_document(tmp_path / "a.pdf")
    assert document.text.split() == ["first", "third"]
    (note,) = document.notes
    assert note.startswith("Page 2 cannot be read")


# ---- HTML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "codec", "words"),
    [
        ("gb2312", "gb18030", "熔炉镕铸，珺与喆"),
        ("GBK", "gb18030", "珺与喆㐀"),
        ("Shift_JIS", "cp932", "①髙橋と﨑山"),
        ("iso-8859-1", "cp1252", "“Grüße” – für 5 €"),
        ("us-ascii", "cp1252", "café ‘noir’"),
        ("big5", "big5", "會議記錄與報告"),
        ("euc-kr", "cp949", "똠방각하와 회의록"),
        ("euc-jp", "euc_jp", "報告書とテスト資料"),
        ("iso-2022-jp", "iso2022_jp", "報告書です"),
        ("windows-1251", "cp1251", "Отчёт за год"),
        ("koi8-r", "koi8_r", "Отчёт за год"),
        ("iso-8859-9", "cp1254", "Çığ düştü, şöyle"),
        ("no-such-label", "utf-8", "Grüße aus Köln"),
        ("gb2312", "utf-8", "熔炉镕铸，珺与喆"),
        ("utf-16", "utf-8", "熔炉镕铸"),
        ("iso-8859-1", "gb18030", "熔炉镕铸，珺与喆在会议上出席。这是一个很长的句子，用来说明编码。"),
        ("", "utf-16-le", "Grüße aus Köln, und mehr davon"),
        ("", "utf-8-sig", "Grüße aus Köln"),
    ],
)
def test_html_labels_mean_what_browsers_take_them_for(tmp_path: Path, label: str, codec: str, words: str) -> None:
    """The label, the mark and the bytes, weighed; no replacement character."""
    meta = f'<meta charset="{label}">' if label else ""
    page = f"<html><head>{meta}</head><body><p>{words}</p></body></html>"
    document = read(tmp_path, "a.html", page.encode(codec))
    assert document.text == words
    told = [note for note in document.notes if "it was read as" in note]
    assert bool(told) == (label == "iso-8859-1" and codec == "gb18030")


@pytest.mark.parametrize("label", ["gb2312", "utf-8"])
def test_html_replacement_characters_are_never_made_in_silence(tmp_path: Path, label: str) -> None:
    """A damaged page is read, and the damage is counted; what its author wrote as such is not."""
    words = "熔炉镕铸，珺与喆在会议上出席。" * 20
    codec = "gb18030" if label == "gb2312" else label
    page = f'<meta charset="{label}"><p>{words}</p>'.encode(codec)
    document = read(tmp_path, "a.html", page[:-4] + b"\xff" + page[-4:])
    assert document.text == words + "\ufffd"
    (note,) = document.notes
    assert note == f"1 place of it is no text in {codec}, and replaced by \ufffd."
    assert read(tmp_path, "b.html", "<p>Grüße \ufffd</p>").notes == ()


def test_html_what_is_seen(tmp_path: Path) -> None:
    """Values of fields, words in drawings, empty elements of XHTML; menus are counted."""
    page = (
        "<nav>Home and away</nav><script src='x.js'/><p>one</p><svg><title>GONE</title><text>two</text></svg>"
        "<input type=hidden value=GONE><input value=three><textarea>four</textarea><style/><p>five</p>"
    )
    document = read(tmp_path, "a.html", page)
    assert document.text.split() == ["one", "two", "three", "four", "five"]
    assert document.notes == ("Its menus (3 words) are left out.",)


# ---- Markdown ----------------------------------------------------------------------------------

PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 20).decode()


def test_markdown_front_matter_is_metadata(tmp_path: Path) -> None:
    """It is left out, and said; its title is the first heading unless the text has it; rules are no front matter."""
    head = "---\ntitle: 'Bread'\ntags:\n  - food\n# a comment\n---\n"
    document = read(tmp_path, "a.md", f"{head}Words.\n")
    assert document.text == "# Bread\n\nWords.\n"
    assert document.notes == ("Its front matter (4 lines) is metadata and not embedded, but for its title.",)
    assert read(tmp_path, "b.md", f"{head}\n# Bread\n\nWords.\n").text == "\n# Bread\n\nWords.\n"
    assert read(tmp_path, "c.md", "+++\ndate = 2026-01-01\n+++\nWords.\n").text == "Words.\n"
    for text in ("---\nA sentence that is no key\n---\nWords.\n", "---\n\n---\nWords.\n", "---\nkey: open\nWords.\n"):
        document = read(tmp_path, "d.md", text)
        assert (document.text, document.notes) == (text, ())
    assert "front matter" in refusal(put(tmp_path, "e.md", "---\nkey: x\n---\n"))


def test_markdown_data_is_left_out_and_counted(tmp_path: Path) -> None:
    """Pictures, other data addresses and runs of base64, wrapped or not; long words and other scripts stay."""
    run = base64.b64encode(bytes(range(256)) * 8).decode()
    wrapped = base64.encodebytes(bytes(range(256)) * 12).decode()
    chinese = "这是一个很长的句子没有空格" * 500
    words = "unspaced" * 100
    text = (
        f"One ![a]({PICTURE}) and <img src='{PICTURE}'>\n\n![b][x]\n\n[x]: {PICTURE}\n\n"
        f"[f](data:application/pdf;base64,{run})\n\n{run}\n\n```\n{wrapped}```\n\n{chinese}\n\n{words}"
        "\n\nThe data: good.\n"
    )
    document = read(tmp_path, "a.md", text)
    assert document.notes == (
        "3 images left out.",
        "1 data address left out.",
        "2 runs of base64 left out.",
    )
    for kept in (chinese, words, "The data: good.", "![a]()", "One "):
        assert kept in document.text
    assert len(document.text) < len(chinese) + len(words) + 300


# ---- PPTX, XLSX, EPUB, EML ---------------------------------------------------------------------


def test_pptx_slides_in_order_with_tables_groups_and_notes(tmp_path: Path) -> None:
    """As they are shown, not as the parts are numbered; a slide's number is no text; layouts once, at the end."""
    cell = "<a:tc{}><a:txBody>{}</a:txBody></a:tc>"
    row = cell.format("", dp("c1")) + cell.format(' hMerge="1"', dp("")) + cell.format("", dp("c2"))
    table = f"<p:graphicFrame><a:graphic><a:graphicData><a:tbl><a:tr>{row}</a:tr></a:tbl></a:graphicData></a:graphic>"
    table += "</p:graphicFrame>"
    group = f"<p:grpSp><p:grpSpPr/>{shape(dp('grouped'))}<p:grpSp>{shape(dp('deeper'))}</p:grpSp></p:grpSp>"
    layout = element(
        "p:sldLayout", f"<p:cSld><p:spTree>{shape(dp('GONE'), place='title')}{shape(dp('Firm'))}</p:spTree></p:cSld>"
    )
    more = {
        "ppt/slides/_rels/slide1.xml.rels": relations(l="slideLayout ../slideLayouts/l.xml"),
        "ppt/slideLayouts/l.xml": layout,
    }
    file = slides(
        shape(dp("First"), place="title") + shape(dp("7"), place="sldNum") + table,
        group + shape(dp("Last")),
        notes={1: "said aloud"},
        more=more,
    )
    text = read(tmp_path, "a.pptx", file).text
    assert text.split() == ["First", "c1", "c2", "Notes:", "said", "aloud", "grouped", "deeper", "Last", "Firm"]
    assert "c1\tc2" in text


def book(folder: Path, name: str = "a.xlsx") -> Path:
    """Two sheets with a date, a number, a sum that is not calculated, and text."""
    import openpyxl

    workbook = openpyxl.Workbook()
    first = workbook.active
    first.title = "Plan"
    first.append(["Task", "Due", "Hours"])
    first.append(["Write & read", datetime.date(2026, 11, 25), 3.0])
    first.append(["At", datetime.datetime(2026, 11, 25, 9, 30), "=C2*2"])
    workbook.create_sheet("Hidden").append([True, None, 2.5])
    workbook["Hidden"].sheet_state = "hidden"
    workbook.save(folder / name)
    return folder / name


def test_xlsx_all_sheets_with_dates_and_what_was_calculated(tmp_path: Path) -> None:
    """Dates as dates, cached values of formulas; those without one are counted."""
    path = book(tmp_path)
    document = read_document(path)
    assert document.text == (
        "Plan\nTask\tDue\tHours\nWrite & read\t2026-11-25\t3\nAt\t2026-11-25 09:30:00\n\nHidden\nTrue\t\t2.5"
    )
    assert document.notes == ("1 formula of it has no stored value: open it in a spreadsheet program and save it.",)
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"]
    parts["xl/worksheets/sheet1.xml"] = re.sub(rb"<f>C2\*2</f>.*?</c>", b"<f>C2*2</f><v>6</v></c>", sheet)
    document = read(tmp_path, "b.xlsx", packed(parts))
    assert "09:30:00\t6" in document.text
    assert document.notes == ()


def test_xlsx_shared_strings_and_formats(tmp_path: Path) -> None:
    """As spreadsheet programs write: shared and rich strings, dates by their format, booleans, errors, a text box."""
    path = book(tmp_path)
    with zipfile.ZipFile(path) as old:
        dated = re.search(rb'<c r="B2" (s="\d+")', old.read("xl/worksheets/sheet1.xml"))
    assert dated
    cells = (
        '<c t="s"><v>0</v></c><c t="s"><v>1</v></c><c t="b"><v>1</v></c><c t="e"><v>#DIV/0!</v></c>'
        f'<c {dated[1].decode()}><v>46351</v></c><c t="str"><f>A1</f><v>cached</v></c>'
    )
    strings = "<si><t>shared &amp; once</t></si><si><r><t>rich </t></r><r><t>text</t></r></si>"
    more = {
        "xl/worksheets/_rels/sheet1.xml.rels": relations(d="drawing ../drawings/d.xml"),
        "xl/drawings/d.xml": element("p:wsDr", f"<p:sp><p:txBody>{dp('in a box')}</p:txBody></p:sp>"),
    }
    text = read(tmp_path, "b.xlsx", sheet_of(path.read_bytes(), cells, strings, more)).text
    assert text.startswith("Plan\nshared & once\trich text\tTrue\t#DIV/0!\t2026-11-25\tcached\n")
    assert text.endswith("in a box")


def epub(*pages: str, more: dict[str, str] | None = None) -> bytes:
    """A book of these pages, whose files are numbered backwards; an XHTML that HTML parsers stumble over."""
    items = "".join(
        f'<item id="i{n}" href="p%20{len(pages) - n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(len(pages))
    )
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(len(pages)))
    files = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfile full-path="OEBPS/book.opf"/></container>',
        "OEBPS/book.opf": '<package xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata><dc:title>The Book</dc:title>'
        f"<dc:creator>A. Writer</dc:creator></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    for n, page in enumerate(pages):
        files[f"OEBPS/p {len(pages) - n}.xhtml"] = (
            '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head>'
            f'<title/><script src="x"/></head><body><p>{page}</p></body></html>'
        )
    return packed(files | (more or {}))


def test_epub_pages_in_the_order_of_reading(tmp_path: Path) -> None:
    """With title and author; a page that is missing is counted; a locked book is refused."""
    assert read(tmp_path, "a.epub", epub("Eins &amp;", "zwei", "drei")).text.split() == [
        *("The", "Book", "A.", "Writer", "Eins", "&", "zwei", "drei")
    ]
    locked = {"META-INF/encryption.xml": '<encryption><CipherReference URI="OEBPS/p 1.xhtml"/></encryption>'}
    assert "locked by its seller" in refusal(put(tmp_path, "b.epub", epub("x", more=locked)))


def test_eml_headers_the_text_once_and_attachments(tmp_path: Path) -> None:
    """One of the alternatives; readable attachments under their names, others named; a letter in a letter."""
    message = EmailMessage()
    message["From"], message["To"] = "Änne <a@example.com>", "b@example.com"
    message["Subject"], message["Date"] = "Grüße aus Köln", "Wed, 25 Nov 2026 08:00:00 +0000"
    message.set_content("The letter, für dich.", charset="iso-8859-1")
    message.add_alternative("<p>The letter, <b>für dich</b>.</p>", subtype="html")
    message.add_attachment(
        word(p(t("attached words"))), maintype="application", subtype="octet-stream", filename="a.docx"
    )
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename="b.bin")
    message.add_attachment(b"%PDF-1.4 broken", maintype="application", subtype="pdf", filename="c.pdf")
    inner = EmailMessage()
    inner["Subject"] = "Inner"
    inner.set_content("<p>Only a page</p>", subtype="html")
    message.add_attachment(inner)
    document = read(tmp_path, "a.eml", bytes(message))
    assert document.text.startswith(
        "From: Änne <a@example.com>\nTo: b@example.com\n"
        "Subject: Grüße aus Köln\nDate: Wed, 25 Nov 2026 08:00:00 +0000\n"
        "\nThe letter, für dich.\n"
    )
    assert document.text.count("für dich") == 1
    assert [words for words in ("attached words", "Subject: Inner", "Only a page") if words not in document.text] == []
    assert document.notes[0] == "The attachment b.bin is not read."
    assert document.notes[1].startswith("c.pdf: The rest of it is not read: it is broken")
    assert len(document.notes) == 2


def test_the_uploader_takes_what_the_reader_takes(tmp_path: Path) -> None:
    """One list: every ending of it is read, as rows or as a document; source code is text as it is."""
    for ending in UPLOADS[:-1]:
        assert kind_of(Path(f"a{ending.upper()}")) in {"rows", "document"}
    code = "def f() -> None:\n    pass\n"
    for name in ("a.py", "a.rst", "a.tex", "a.sql", "a.yaml"):
        assert read(tmp_path, name, code).text == code
    assert [row.text for row in read_rows(put(tmp_path, "a.ndjson", '{"text": "x"}\n{"text": "y"}\n'))] == ["x", "y"]
    assert read(tmp_path, "a.htm", "<p>x</p>").text == read(tmp_path, "a.xhtml", "<p>x</p>").text == "x"


# ---- as they come ------------------------------------------------------------------------------


def right(name: str, text: str, notes: list[str], reason: str) -> bool:
    """Whether a file was read whole, or refused for its reason, or something is said of it, as it should be."""
    wanted = mangled.FILES[name][1]
    if wanted.startswith("note: "):
        return any(re.search(wanted.removeprefix("note: "), note) for note in notes)
    return bool(re.search(wanted, reason)) if wanted else mangled.GOOD in text and not notes


def test_mangled_files_are_read_whole_or_say_why_in_the_shell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over fifty at once, of all kinds: none ends the others, none raises what nobody foresaw, none loses a word."""
    for name, (content, _) in mangled.FILES.items():
        put(tmp_path, name, content)
    found = read_files([tmp_path])
    texts: dict[str, str] = {}
    for key, text in zip(found.ids, found.texts, strict=True):
        texts[key.split("#")[0]] = " ".join(text.split())
    reasons = {row.id: row.reason for row in found.broken}
    notes = {name: [n.removeprefix(f"{name}: ") for n in found.notes if n.startswith(name)] for name in mangled.FILES}
    wrong = [n for n in mangled.FILES if not right(n, texts.get(n, ""), notes[n], reasons.get(n, ""))]
    assert wrong == []
    assert len(mangled.FILES) >= 50
    assert [record.message for record in caplog.records] == []


async def test_mangled_files_are_read_whole_or_say_why_in_the_browser(tmp_path: Path) -> None:
    """A sixth of them as an upload: the same verdicts."""
    names = list(mangled.FILES)[::6]
    paths = [put(tmp_path, name, mangled.FILES[name][0]) for name in names]
    async with opened(tmp_path / "data") as here:
        await here.library.create("docs")
        reports = {report.name: report for report in await here.library.add_files("docs", paths)}
        documents = {d.name: d.id for d in here.library.documents("docs")}
        for name in names:
            text = " ".join(" ".join(chunk.text.split()) for chunk in here.library.chunks(documents[name]))
            assert right(name, text, list(reports[name].notes), reports[name].reason), name
