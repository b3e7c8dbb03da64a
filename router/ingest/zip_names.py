"""The names of a zip's members as their authors wrote them.

Zips made before 2007's UTF-8 flag, and by many programs since, hold names in whatever code page their system had, and
do not say which. UTF-8 is told by its form. For the others the code page is the one in which the names of the archive,
taken together, read most like words.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

_UTF8 = 0x800
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field: version, CRC-32 of the other name, the name in UTF-8
_CODE_PAGES: tuple[tuple[str, str], ...] = (
    ("cp932", "ぁ-んァ-ヶー々一-鿿"),
    ("gb2312", "一-鿿"),
    ("big5", "一-鿿"),
    ("euc_kr", "가-힣"),
    ("cp866", "а-яА-ЯёЁ"),
    ("cp1251", "а-яА-ЯёЁіїєґІЇЄҐ"),
    ("cp850", "äöüÄÖÜßéèêëàâáãåæçíìîïñóòôõøúùûÿÉÈÀÁÂÃÅÆÇÍÑÓÔÕØÚ"),
    ("cp1252", "äöüÄÖÜßéèêëàâáãåæçíìîïñóòôõøúùûœÉÈÀÁÂÃÅÆÇÍÑÓÔÕØÚŒ"),
    ("cp852", "ąćęłńóśźżĄĆĘŁŃÓŚŹŻáčďéěíňřšťúůýžÁČĎÉĚÍŇŘŠŤÚŮÝŽőűŐŰăâîșțşţ"),
    ("cp857", "çğıöşüÇĞİÖŞÜâîû"),
    ("cp737", "α-ωά-ώΑ-ΩΆ-Ώ"),
    ("cp862", "א-ת"),
)
"""What Windows and DOS write where (the older code page of a region first), and the letters that are usual there."""
_LEAST = 0.8
"""The share of usual letters among those beyond ASCII that makes a code page believable."""
_KOREAN = 4
"""So many syllables, and nothing else, are more likely Korean than Chinese characters of just these rows."""


def names_of(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The name of each member, with `/` between folders; not yet safe to be written to."""
    raw = [entry.orig_filename.encode("cp437", "replace") for entry in entries]
    unknown = b"\n".join(name for name, entry in zip(raw, entries, strict=True) if not entry.flag_bits & _UTF8)
    encoding = _encoding(unknown)
    return [
        entry.orig_filename if entry.flag_bits & _UTF8 else _unicode_path(entry, name) or name.decode(encoding)
        for name, entry in zip(raw, entries, strict=True)
    ]


def _unicode_path(entry: zipfile.ZipInfo, name: bytes) -> str:
    """The name in Info-ZIP's extra field, if it belongs to this name; else ""."""
    extra = entry.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(body) > 5 and struct.unpack("<I", body[1:5])[0] == zlib.crc32(name):
            try:
                return body[5:].decode()
            except UnicodeDecodeError:
                return ""
    return ""


def _encoding(names: bytes) -> str:
    try:
        names.decode()
        return "utf-8"
    except UnicodeDecodeError:
        pass
    shares = {encoding: _share(names, encoding, letters) for encoding, letters in _CODE_PAGES}
    best = max(shares, key=lambda encoding: shares[encoding])
    if best == "gb2312" and shares["euc_kr"] == shares[best] and len(re.findall(rb"[\x80-\xff]{2}", names)) >= _KOREAN:
        best = "euc_kr"
    return best if shares[best] >= _LEAST else "cp437"


def _share(names: bytes, encoding: str, letters: str) -> float:
    """The share of usual letters among those beyond ASCII."""
    try:
        text = names.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    usual = re.compile(f"[{letters}]")
    others = [at for at, character in enumerate(text) if not character.isascii()]
    good = sum(bool(usual.match(text[at])) and _in_place(text, at) for at in others)
    return good / len(others) if others else 0.0


def _in_place(text: str, at: int) -> bool:
    """False for a capital behind a small letter, and for a Greek, Cyrillic or Hebrew letter in a Latin word."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if text[at].isupper() and before.islower():
        return False
    latin = any(c.isascii() and c.isalpha() for c in (before, after) if c)
    return not (latin and "\u0370" <= text[at] <= "\u05ff")
