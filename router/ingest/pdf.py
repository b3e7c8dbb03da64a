"""PDF: the text of each page, what its form was filled with, and which pages or fonts have no text to give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from router.ingest.package import what_it_is
from router.ingest.reader import NO_CONTROLS, Unreadable, plural, which

_PLACEHOLDER = re.compile(r"if this message is not eventually replaced", re.IGNORECASE)
_PLEASE_WAIT = re.compile(r"please wait", re.IGNORECASE)
_SHORT = 1_500  # characters: a placeholder is no longer
_HIDDEN, _PASSWORD, _BUTTON = 1 << 1, 1 << 13, 1 << 16  # flags of annotations, text fields and buttons
_MOST_PARENTS = 20


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """Each page's text, then the comments on its face and `name: value` of its filled fields.

    A page that is damaged, or without text, is noted and the others go on.
    """
    import pypdf

    with open(path, "rb") as file:
        if b"%PDF-" not in file.read(1 << 16) and (other := what_it_is(path)):
            raise Unreadable(other)
    reader = pypdf.PdfReader(path, strict=False)
    if reader.is_encrypted and not reader.decrypt(""):
        raise Unreadable("it is protected by a password")
    form = _get(reader.trailer["/Root"], "/AcroForm") or {}
    fonts = _Fonts()
    empty, broken, seen, size = [], [], set[Any](), 0
    for number in range(1, len(reader.pages) + 1):
        try:
            page = reader.pages[number - 1]
            text = fonts.text(page, number)
            text += "".join(f"\n{line}" for line in _on_the_face(page, seen))
        except MemoryError:
            raise
        except Exception as error:  # a parser may raise anything on a broken page; the others go on
            broken.append(number)
            why = type(error).__name__
            continue
        text = text.translate(NO_CONTROLS)
        size += len(text)
        if _PLACEHOLDER.search(text) or ("/XFA" in form and size < _SHORT and _PLEASE_WAIT.search(text)):
            raise Unreadable(
                "it is an XFA form, which only Adobe's programs show (its text says no more than 'please wait');"
                " open it there and print it to a new PDF"
            )
        if not text.strip() and number not in fonts.pages:
            empty.append(number)
        yield text + "\n\n"
    if len(empty) == len(reader.pages):
        raise Unreadable("it holds no text (a scan has only pictures); run text recognition (OCR) on it first")
    if broken:
        notes.append(f"{which(broken, 'Page')} cannot be read ({why}), and not embedded.")
    if empty:
        have, they, are = ("has", "It", "is") if len(empty) == 1 else ("have", "They", "are")
        notes.append(f"{which(empty, 'Page')} {have} no text: scanned? {they} {are} not embedded.")
    notes += fonts.notes()
    if attached := _attached(reader):
        notes.append(f"{plural(attached, 'file')} attached inside of it: not read; save and add by itself.")


class _Fonts:
    """Tells the text that can be read from what a font maps to nothing that is text."""

    def __init__(self) -> None:
        self._without: dict[str, list[int]] = {}
        self.pages: set[int] = set()
        self._known: dict[int, tuple[Any, bool]] = {}

    def text(self, page: Any, number: int) -> str:
        """The text of a page, without what nobody could read."""
        good: list[str] = []
        lost: set[str] = set()

        def piece(text: str, _cm: Any, _tm: Any, font: Any, _size: Any) -> None:
            if text.strip() and (self._maps_to_nothing(font) or _garbage(text)):
                lost.add(_name(font))
            else:
                good.append(text)

        whole: str = page.extract_text(visitor_text=piece)
        for name in lost:
            self._without.setdefault(name, []).append(number)
            self.pages.add(number)
        return "".join(good) if lost else whole

    def notes(self) -> list[str]:
        """A sentence on each such font."""
        return [
            f"The font {name} maps to no text ({which(numbers, 'page')}): what is set in it is not embedded. Print the"
            " PDF to a new one, or run text recognition on it."
            for name, numbers in self._without.items()
        ]

    def _maps_to_nothing(self, font: Any) -> bool:
        """Whether it says of no code which character it is."""
        if id(font) not in self._known:
            # With the font itself, so that its id stays its own.
            self._known[id(font)] = (font, font is not None and _without_characters(font))
        return self._known[id(font)][1]


def _without_characters(font: Any) -> bool:
    if "/ToUnicode" in font:
        return False
    encoding = _get(font, "/Encoding")
    if font.get("/Subtype") == "/Type0":
        from pypdf import _cmap

        known = isinstance(encoding, str) and encoding in _cmap._predefined_cmap and "Identity" not in encoding
        return not (known or (isinstance(encoding, str) and "UCS2" in encoding))
    from pypdf._codecs import adobe_glyphs

    differences = _get(encoding, "/Differences") if hasattr(encoding, "get") else None
    names = [n for n in differences or [] if isinstance(n, str) and n != "/.notdef"]
    strange = [n for n in names if n not in adobe_glyphs and not re.fullmatch(r"/u(ni)?[0-9A-Fa-f]{4,6}", n)]
    return len(names) > 0 and len(strange) > len(names) / 2


def _garbage(text: str) -> bool:
    """Whether most of it are characters that no text has: of private use, controls, or replacements."""
    marks = [c for c in text if not c.isspace()]
    odd = sum(c == "\ufffd" or "\ue000" <= c <= "\uf8ff" or c < " " for c in marks)
    return odd * 2 > len(marks) and odd > 1


def _name(font: Any) -> str:
    name = str(font.get("/BaseFont") or "") if font is not None else ""
    return re.sub(r"^/?(?:[A-Z]{6}\+)?", "", name) or "without a name"


def _on_the_face(page: Any, seen: set[Any]) -> Iterator[str]:
    """Typed comments on the page's face, and its filled fields as `name: value`, each field once."""
    for one in _get(page, "/Annots") or []:
        annotation = one.get_object()
        if not hasattr(annotation, "get") or int(annotation.get("/F", 0)) & _HIDDEN:
            continue
        if annotation.get("/Subtype") == "/FreeText":
            yield str(annotation.get("/Contents", ""))
        elif annotation.get("/Subtype") == "/Widget":
            yield from _field(annotation, seen)


def _field(widget: Any, seen: set[Any]) -> Iterator[str]:
    found: dict[str, Any] = {}
    names: list[str] = []
    key: Any = id(widget)
    node = widget
    for _ in range(_MOST_PARENTS):
        for name in ("/FT", "/V", "/Ff", "/TU", "/Opt"):
            if name in node and name not in found:
                found[name] = _get(node, name)
        if "/T" in node:
            names.insert(0, str(_get(node, "/T")))
            if len(names) == 1:
                key = getattr(node, "indirect_reference", None) or id(node)
        if "/Parent" not in node:
            break
        node = _get(node, "/Parent")
    kind, flags = found.get("/FT"), int(found.get("/Ff") or 0)
    if str(key) in seen or kind == "/Sig" or (kind == "/Tx" and flags & _PASSWORD):
        return
    seen.add(str(key))
    if kind == "/Btn" and flags & _BUTTON:
        yield str(_get(_get(widget, "/MK") or {}, "/CA") or "")
        return
    value = _value(found.get("/V"), found.get("/Opt"), kind)
    if value.strip():
        yield f"{found.get('/TU') or '.'.join(names)}: {value}"


def _value(value: Any, options: Any, kind: Any) -> str:
    if value is None or value == "/Off":
        return ""
    if isinstance(value, list):
        return ", ".join(_value(one.get_object(), options, kind) for one in value)
    if hasattr(value, "get_data"):
        return str(value.get_data().decode("utf-8", "replace"))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = str(value)
    for option in options or []:  # [what is sent, what is shown]
        pair = option.get_object()
        if isinstance(pair, list) and len(pair) == 2 and str(pair[0]) == text:
            return str(pair[1])
    return text.removeprefix("/") if kind == "/Btn" else text


def _get(node: Any, name: str) -> Any:
    value = node.get(name)
    return value.get_object() if hasattr(value, "get_object") else value


def _attached(reader: Any) -> int:
    try:
        return len(list(reader.attachments))
    except MemoryError:
        raise
    except Exception:  # a broken list of attachments is no reason to lose the pages
        return 0
