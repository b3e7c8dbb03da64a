"""Documents, uploads and archives, honest and hostile."""

from __future__ import annotations

import io
import os
import resource
import stat
import time
import zipfile
from hashlib import blake2b
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.errors import BadInput, StoreFull
from router.ingest import archives, extract, guarded
from router.ingest.archives import expand
from router.ingest.extract import kind_of, read_document, read_rows, safe_name, save_stream
from tests.ingest.makers import archive, docx, docx_with_body, pdf, pdf_saying

WORD_XML = (
    b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    b"<w:p><w:r><w:t>%s</w:t></w:r></w:p></w:body></w:document>"
)


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> str:
    """Why a document cannot be read; it took less than 30 seconds and 512 MB."""
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of other tests' children
    with pytest.raises(BadInput) as caught:
        read_document(path)
    assert time.monotonic() - began < 30
    # A child begins as a copy of this process, so its peak is never below what this one has.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < max(512 * 1024, before + 1, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 1024)
    assert path.name in caught.value.message
    return caught.value.message


# ---- documents ---------------------------------------------------------------------------------


def test_kinds_by_ending() -> None:
    """Row files and documents, in any case; all else is refused with what is supported."""
    assert [kind_of(Path(name)) for name in ("a.TXT", "a.csv", "a.parquet")] == ["rows"] * 3
    assert [kind_of(Path(name)) for name in ("a.md", "a.PDF", "a.docx", "a.html")] == ["document"] * 4
    with pytest.raises(BadInput, match=r"'\.exe' are not supported\. Supported are \.txt, .*\.html, .*, and \.zip"):
        kind_of(Path("a.exe"))
    with pytest.raises(BadInput, match=r"'\.doc' are not supported\. Save it as \.docx"):
        kind_of(Path("a.DOC"))


def test_markdown_and_text_documents(tmp_path: Path) -> None:
    """They come as they are, in their encoding; a .txt only when it is asked for as a document."""
    document = read_document(put(tmp_path, "a.md", "# Head\r\n\r\nBody — text\r\n"))
    assert (document.name, document.kind, document.text) == ("a.md", "markdown", "# Head\n\nBody — text\n")
    assert read_document(put(tmp_path, "a.txt", "Café\n".encode("latin-1"))).text == "Café\n"
    with pytest.raises(BadInput, match="Read it as rows"):
        read_document(put(tmp_path, "a.csv", "text\na\n"))
    with pytest.raises(BadInput, match="is a document and has no rows"):
        next(read_rows(tmp_path / "a.md"))


def test_pdf_words(tmp_path: Path) -> None:
    """The words of the page."""
    document = read_document(put(tmp_path, "a.pdf", pdf_saying("Hello from a page")))
    assert (document.text, document.kind) == ("Hello from a page", "pdf")


def test_docx_words_in_order_with_tables(tmp_path: Path) -> None:
    """Paragraphs apart by blank lines, table rows with tabs."""
    path = put(tmp_path, "a.docx", docx("First é", "Second", table=[["a", "b"], ["c", "d"]]))
    assert read_document(path).text == "First é\n\nSecond\n\na\tb\nc\td"


HTML = """<!doctype html><html><head><title>Über</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><h1>Head</h1><p>One   <b>bold</b>,
two &amp; three.<script>alert("x")</script></p><p>Last<br>line<pre>  keep
   this</pre><table><tr><td>a</td><td>b</td></tr></table></body></html>"""


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "cp1252"])
def test_html_words_without_scripts_and_menus(tmp_path: Path, codec: str) -> None:
    """What a reader sees: entities decoded, blocks apart, scripts, styles and menus left out."""
    text = read_document(put(tmp_path, "a.html", HTML.encode(codec))).text
    assert text.startswith("Über\n\nHead\n\nOne bold, two & three.\n\nLast\n\nline\n\n  keep\n   this\n\n")
    assert text.split("\n\n")[-1].split() == ["a", "b"]
    assert not any(word in text for word in ("alert", "color", "Home", "<"))


def test_html_is_read_as_the_page_declares(tmp_path: Path) -> None:
    """Where the bytes are no UTF-8, the declared encoding counts before a guess."""
    page = '<meta charset="koi8-r"><p>Да</p>'.encode("koi8-r")
    assert read_document(put(tmp_path, "a.html", page)).text == "Да"


def test_html_without_elements_and_with_nul(tmp_path: Path) -> None:
    """Bare words are words; what stands behind a NUL is not lost."""
    assert read_document(put(tmp_path, "a.html", "bare words")).text == "bare words"
    assert read_document(put(tmp_path, "b.html", "<p>before\x00after and more words</p>")).text.endswith("more words")


def test_keys_do_not_reach_the_reader_of_strangers_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that parses gets no secrets in its environment."""
    seen: list[dict[str, str]] = []
    real = guarded.subprocess.Popen

    def spy(*args: object, env: dict[str, str], **more: object) -> object:
        seen.append(env)
        return real(*args, env=env, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(guarded.subprocess, "Popen", spy)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    read_document(put(tmp_path, "a.html", "<p>x</p>"))
    assert len(seen) == 1
    assert "sk-canary" not in str(seen)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.md", b"", "is empty"),
        ("blank.md", b" \n ", "it holds no text"),
        ("binary.md", b"\x7fELF" + bytes(range(256)), "is not text but a program"),
        ("broken.pdf", b"%PDF-1.4\nand then nothing", "it is broken"),
        ("random.pdf", os.urandom(2000), "it is broken"),
        ("scan.pdf", pdf(b"0 0 m 10 10 l S"), "it holds no text .a scan has only pictures"),
        ("broken.docx", b"PK\x03\x04 and then nothing", "it is broken"),
        ("other.docx", b"plain words", "it is broken"),
        ("blank.html", b"<html><body><script>1</script></body></html>", "it holds no text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_documents_say_why(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """Each with its name and a reason."""
    assert reason.replace(".a", "(a") in refusal(put(tmp_path, name, content))


def test_locked_pdf_says_so(tmp_path: Path) -> None:
    """A PDF with a password is not called broken."""
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf_saying("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "a.pdf")
    assert "protected by a password" in refusal(tmp_path / "a.pdf")


def test_a_good_document_after_five_broken_ones(tmp_path: Path) -> None:
    """One broken file does not touch the next."""
    for number in range(5):
        refusal(put(tmp_path, f"{number}.pdf", b"%PDF-1.4 broken"))
    assert read_document(put(tmp_path, "good.pdf", pdf_saying("good"))).text == "good"


# ---- bombs -------------------------------------------------------------------------------------


def test_pdf_that_unpacks_to_much(tmp_path: Path) -> None:
    """A page whose content unpacks to 100 MB."""
    path = put(tmp_path, "a.pdf", pdf(b" " * (100 << 20), packed=True))
    assert path.stat().st_size < 1 << 20
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pdf", pdf(b"q Q " * (1 << 20) + b"BT /F1 12 Tf 72 720 Td (Hello) Tj ET", packed=True)),
        ("a.html", b"<!--" * 5_000_000),
    ],
    ids=["pdf", "html"],
)
def test_a_file_that_works_for_ever_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    """A page of a million steps, and comments that are opened and never closed, end at the time limit."""
    monkeypatch.setattr(extract, "_WORKER_SECONDS", 1)
    reason = refusal(put(tmp_path, name, content))
    assert "more than 1 seconds" in reason or "or 1 seconds" in reason


def test_docx_that_unpacks_to_much(tmp_path: Path) -> None:
    """By its size, refused before it is opened; by entities, by the XML parser; by its tree, by the memory limit."""
    bomb = put(tmp_path, "size.docx", docx_with_body(WORD_XML % (b" " * (130 << 20))))
    assert "unpacks to more than 128 MB" in refusal(bomb)
    laughs = b"<!DOCTYPE d [<!ENTITY a0 'ha'>" + b"".join(
        b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10)
    )
    entities = put(tmp_path, "laughs.docx", docx_with_body(laughs + b"]>" + WORD_XML % b"&a9;"))
    assert "cannot be read" in refusal(entities)
    tree = put(tmp_path, "tree.docx", docx_with_body(WORD_XML % (b"<a/>" * (20 << 20))))
    assert "memory" in refusal(tree) or "broken" in refusal(tree) or "broke down" in refusal(tree)


def test_large_and_deep_html(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large page is read as a stream; more text than a document may hold is refused; tags without end are no harm."""
    large = put(tmp_path, "large.html", b"<div><p>Some words here.</p></div>\n" * 100_000)
    assert read_document(large).text.count("words") == 100_000
    monkeypatch.setattr(extract, "MAX_DOCUMENT", 1 << 20)
    assert "more text than one document may" in refusal(large)
    deep = put(tmp_path, "deep.html", b"<div>" * 200_000 + b"end")
    assert read_document(deep).text == "end"


# ---- uploads -----------------------------------------------------------------------------------


def test_a_stream_is_kept_under_its_hash(tmp_path: Path) -> None:
    """Same bytes and name, same file; its folder is BLAKE2b-256; nothing else is left in the folder."""
    content = os.urandom(3_000_000)
    saved = save_stream(io.BytesIO(content), tmp_path, name="../../etc/Übung.TXT")
    assert (saved.name, saved.path.name) == ("etc/Übung.TXT", "Übung.TXT")
    assert saved.path.parent.name == blake2b(content, digest_size=32).hexdigest()[:40]
    assert saved.path.read_bytes() == content
    assert saved.path.is_relative_to(tmp_path)
    assert save_stream(io.BytesIO(content), tmp_path, name="etc/Übung.TXT") == saved
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == [saved.path]


def test_a_body_without_end_is_refused_and_removed(tmp_path: Path) -> None:
    """A stream is stopped at the limit, and never held in memory."""

    class Endless(io.RawIOBase):
        asked = 0

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= 1 << 20
            self.asked += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(BadInput, match=r"a\.txt has more than 5,000,000 bytes"):
        save_stream(stream, tmp_path, name="a.txt", limit=5_000_000)  # type: ignore[arg-type]
    assert stream.asked <= 5_000_000 + (1 << 20)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is StoreFull, and nothing is left behind."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract.os, "replace", full)
    with pytest.raises(StoreFull, match="is full"):
        save_stream(io.BytesIO(b"x"), tmp_path, name="a.txt")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@given(st.text())
def test_a_safe_name_is_safe(name: str) -> None:
    """One plain part of a path, whatever came in."""
    safe = safe_name(name)
    assert safe
    assert safe not in {".", ".."}
    assert len(safe) <= 120
    assert not set(safe) & set('/\\\0\n\r:<>|*?"\u202e')
    assert safe_name(safe) == safe


def test_safe_names_keep_what_people_wrote() -> None:
    """The ending and the letters of any script stay; marks that turn the direction do not."""
    assert safe_name("C:\\docs\\Ελληνικά report.pdf") == "Ελληνικά report.pdf"
    assert safe_name("invoice\u202efdp.exe") == "invoicefdp.exe"
    assert safe_name("x" * 300 + ".docx") == "x" * 100 + ".docx"


# ---- archives ----------------------------------------------------------------------------------


def test_a_broken_file_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    """Broken PDF, binary named .txt, Latin-1, empty file, zip bomb and five good files: five and Latin-1 are read."""
    bomb = archive(tmp_path / "bomb.zip", {"zeros.txt": bytes(30 << 20)})
    assert bomb.stat().st_size < 100_000
    files = {
        "good.txt": b"one\ntwo\n",
        "good.md": b"# Good\n\nwords",
        "good.csv": b"id,text\n1,words\n",
        "good.html": b"<p>good words</p>",
        "good.pdf": pdf_saying("good words"),
        "latin.txt": "Café crème\n".encode("latin-1"),
        "broken.pdf": b"%PDF-1.4 broken",
        "binary.txt": b"\x7fELF" + bytes(100),
        "empty.txt": b"",
    }
    paths = [put(tmp_path, name, content) for name, content in files.items()]
    read, reasons = {}, {}
    for verdict in expand([*paths, bomb], tmp_path / "into"):
        if verdict.path is None:
            reasons[verdict.name] = verdict.reason
            continue
        try:
            if kind_of(verdict.path) == "rows":
                read[verdict.name] = " ".join(row.text for row in read_rows(verdict.path))
            else:
                read[verdict.name] = read_document(verdict.path).text
        except BadInput as error:
            reasons[verdict.name] = str(error)
    assert read == {
        "good.txt": "one two",
        "good.md": "# Good\n\nwords",
        "good.csv": "words",
        "good.html": "good words",
        "good.pdf": "good words",
        "latin.txt": "Café crème",
    }
    assert set(reasons) == {"broken.pdf", "binary.txt", "empty.txt", "zeros.txt"}
    assert "it is broken" in reasons["broken.pdf"]
    assert "not text but a program" in reasons["binary.txt"]
    assert "is empty" in reasons["empty.txt"]
    assert "unpacks to 30 MB, more than 200 times" in reasons["zeros.txt"]


def test_a_zip_and_a_folder_keep_inner_paths(tmp_path: Path) -> None:
    """Two files of one name in two folders stay two; the bytes are those that were packed."""
    path = archive(tmp_path / "a.zip", {"x/read.md": "one", "y/read.md": "two", "y/": "", "z.txt": "three"})
    verdicts = expand([path], tmp_path / "into")
    assert [v.name for v in verdicts] == ["x/read.md", "y/read.md", "z.txt"]
    assert [v.path.read_text() for v in verdicts if v.path] == ["one", "two", "three"]
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    put(tmp_path / "folder" / "sub", "b.md", "b")
    (tmp_path / "folder" / "link.md").symlink_to("/etc/hostname")
    verdicts = expand([tmp_path / "folder"], tmp_path / "into")
    assert [(v.name, v.path is not None) for v in verdicts] == [("link.md", False), ("sub/b.md", True)]


def test_hostile_names_write_nothing_outside(tmp_path: Path) -> None:
    """`../`, `..\\`, absolute paths, drives and links are refused by name; the good entry beside them is taken."""
    path = tmp_path / "a.zip"
    hostile = ["../up.txt", "..\\up.txt", "a/../../up.txt", "/abs.txt", "C:\\abs.txt", "\\\\host\\abs.txt"]
    with zipfile.ZipFile(path, "w") as out:
        for name in hostile:
            out.writestr(name, "hostile")
        link = zipfile.ZipInfo("link.txt")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        out.writestr(link, "/etc/passwd")
        out.writestr("good.txt", "good")
    verdicts = expand([path], tmp_path / "into")
    assert [v.path is not None for v in verdicts] == [False] * 7 + [True]
    assert all("points outside" in v.reason for v in verdicts[:6])
    assert "is a link" in verdicts[6].reason
    written = [item for item in tmp_path.rglob("*") if item.is_file() and item != path]
    assert written == [verdicts[7].path]
    assert written[0].read_text() == "good"


def test_entries_that_are_not_taken_say_why(tmp_path: Path) -> None:
    """Zips in zips, unknown kinds, empty and hidden files, one by one; what a system leaves is passed over."""
    path = archive(
        tmp_path / "a.zip",
        {
            "in.zip": "x",
            "a.exe": "x",
            "empty.txt": "",
            "__MACOSX/._a.txt": "x",
            ".DS_Store": "x",
            ".env.txt": "x",
            "a/Thumbs.db": "x",
            "~$report.docx": "x",
            "good.txt": "x",
        },
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as out:
        out.writestr("lzma.txt", "x")
    reasons = [verdict.reason for verdict in expand([path], tmp_path / "into")]
    wanted = ["zip in a zip", "not supported", "is empty", "hidden file", "", "a method that is not"]
    assert all(want in reason for want, reason in zip(wanted, reasons, strict=True))
    assert reasons[4] == ""


def test_broken_and_oversized_archives_are_refused_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No zip at all, too many entries, too many bytes, too long a list of entries: one verdict, nothing unpacked."""

    def only(path: Path) -> str:
        (verdict,) = expand([path], tmp_path / "into")
        assert verdict.path is None
        assert not (tmp_path / "into").exists()
        return verdict.reason

    assert "broken zip archive" in only(put(tmp_path, "a.zip", b"PK\x03\x04 broken"))
    good = archive(tmp_path / "b.zip", {f"{n}.txt": "x" * 100 for n in range(20)})
    monkeypatch.setattr(archives, "MAX_ENTRIES", 19)
    assert "has 20 entries" in only(good)
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 1_999)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 20)
    assert "unpacks to" in only(good)
    monkeypatch.setattr(archives, "_DIRECTORY_BYTES", 500)
    assert "too many entries" in only(good)


def test_a_damaged_entry_does_not_stop_the_others(tmp_path: Path) -> None:
    """A wrong checksum is that entry's fault alone, and no part of it is kept."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("bad.txt", "damaged words")
        out.writestr("good.txt", "good")
    path.write_bytes(path.read_bytes().replace(b"damaged", b"DAMAGED"))
    bad, good = expand([path], tmp_path / "into")
    assert bad.path is None
    assert "broken inside its zip" in bad.reason
    assert good.path
    assert len([item for item in (tmp_path / "into").rglob("*") if item.is_file()]) == 1
