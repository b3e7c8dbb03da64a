"""Which encoding a page's bytes are in: its byte order mark, what it declares and the bytes themselves, weighed.

Labels mean what the WHATWG says that they mean (encoding.spec.whatwg.org, through the library webencodings), as in
every browser: `gb2312` is gb18030, `shift_jis` is Windows's, `iso-8859-1` is windows-1252.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from router.ingest.reader import plural

Blocks = Callable[[], Iterable[bytes]]
BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is how this one begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)|<meta\b[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]+)""",
    re.IGNORECASE,
)
_LARGER = {"gbk": "gb18030", "utf-16-le": "utf-8", "utf-16-be": "utf-8", "replacement": "", "x-user-defined": "cp1252"}
"""Where the WHATWG reads a label as more than the codec of its name: UTF-16 cannot be declared in bytes of ASCII."""
_NOT_OF_THE_WHATWG = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "utf-7": "utf-7"}
_WITH_ESCAPES = frozenset({"iso2022_jp", "iso2022_kr", "hz", "utf-7"})  # in which all bytes are ASCII
_OTHER_ALPHABETS = frozenset(
    {"cp932", "euc_jp", "gb18030", "big5", "euc_kr", "cp949", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256"}
)
_HEAD = 4096


def codec_of(label: str) -> str:
    """Python's codec for a label of the WHATWG; "" for one that it does not have."""
    import webencodings  # type: ignore[import-untyped]  # it ships no types

    label = label.strip().lower()
    if label in _NOT_OF_THE_WHATWG:
        return _NOT_OF_THE_WHATWG[label]
    found = webencodings.lookup(label)
    if found is None:
        return ""
    name: str = found.codec_info.name
    return _LARGER.get(name, name)


def choose(blocks: Blocks, guess: str = "cp1252", declared: str = "") -> tuple[str, list[str]]:
    """The codec to read some bytes with, and notes where a person should know of a doubt.

    Args:
        blocks: gives the bytes, from the start each time.
        guess: a codec that the bytes seem to be in, if they are not UTF-8 and declare none.
        declared: a label that came with the bytes; otherwise looked for in their first 4 KiB.
    """
    head = next(iter(blocks()), b"")[:_HEAD]
    for mark, codec in BOMS:
        if head.startswith(mark):
            return codec, _damage(codec, _broken(blocks, codec)[0])
    if wide := without_mark(head):
        return wide, _damage(wide, _broken(blocks, wide)[0])
    found = _DECLARED.search(head)
    label = declared or (next(filter(None, found.groups())).decode("ascii") if found else "")
    stated = codec_of(label) if label else ""
    utf8, beyond_ascii = _broken(blocks, "utf-8")
    if not utf8 and not (stated in _WITH_ESCAPES and not beyond_ascii):
        return "utf-8", []
    candidates = [codec for codec in dict.fromkeys((stated, "utf-8", guess)) if codec]
    broken = {codec: _broken(blocks, codec)[0] for codec in candidates}
    if stated == "cp1252" and guess in _OTHER_ALPHABETS and not broken[guess] and _other_letters(blocks, guess):
        return guess, [f"The page says that it is {label}, but its bytes are {guess}; it was read as that."]
    tolerated = {stated: beyond_ascii // 20, "utf-8": beyond_ascii // 100}
    good = [codec for codec in candidates if broken[codec] <= tolerated.get(codec, 0)]
    codec = good[0] if good else min(candidates, key=lambda c: broken[c])
    notes = _damage(codec, broken[codec])
    if label and codec != stated:
        notes.insert(0, f"The page says that it is {label}, but its bytes are not; it was read as {codec}.")
    return codec, notes


def decoded(blocks: Iterable[bytes], codec: str) -> Iterator[str]:
    """The text; each byte that is no character of it is U+FFFD, which `choose` has counted."""
    decoder = codecs.getincrementaldecoder(codec)("replace")
    for block in blocks:
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def decode(data: bytes, declared: str = "") -> tuple[str, list[str]]:
    """The text of some bytes, and notes as of `choose`."""
    codec, notes = choose(lambda: [data], declared=declared)
    return "".join(decoded([data], codec)), notes


def without_mark(head: bytes) -> str:
    """The codec of UTF-16 without a byte order mark, told by its zeros; "" where it is none."""
    pairs = len(head) // 2
    odd, even = head[1 : 2 * pairs : 2].count(0), head[0 : 2 * pairs : 2].count(0)
    if pairs >= 4 and max(odd, even) > 0.4 * pairs and min(odd, even) < 0.02 * pairs:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _broken(blocks: Blocks, codec: str) -> tuple[int, int]:
    """(places that are no characters of the codec, bytes beyond ASCII)."""
    decoder = codecs.getincrementaldecoder(codec)("replace")
    broken = beyond = 0
    for block in chain(blocks(), [b""]):
        own = block.count(b"\xef\xbf\xbd") if codec.startswith("utf-8") else 0  # written there as such
        broken += max(0, decoder.decode(block, final=not block).count("\ufffd") - own)
        beyond += len(block) - len(block.translate(None, _BEYOND_ASCII))
    return broken, beyond


_BEYOND_ASCII = bytes(range(128, 256))


def _other_letters(blocks: Blocks, codec: str) -> bool:
    """Whether nearly all that is beyond ASCII, read so, are letters of another alphabet than the Latin one."""
    text = "".join(decoded([next(iter(blocks()), b"")[: 1 << 16]], codec))
    beyond = [c for c in text if c > "\x7f" and c != "\ufffd"]
    return bool(beyond) and sum(c.isalpha() and c > "\u024f" for c in beyond) > 0.8 * len(beyond)


def _damage(codec: str, broken: int) -> list[str]:
    if not broken:
        return []
    return [
        f"{plural(broken, 'place')} of it {'is' if broken == 1 else 'are'} no text in {codec}, and replaced by \ufffd."
    ]
