"""Step 1 of a request: is every text a text, and which are the same?"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import BadInput

MOST_BYTES = 10_000_000
"""The longest text, in UTF-8 bytes; a longer one is a file, to be chunked in a collection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidTexts:
    """The distinct texts of a request, and where each text asked went.

    Attributes:
        texts, digests, sizes: of the distinct texts: the text as it is embedded, its BLAKE2b-256, its UTF-8 bytes.
        places: for each text asked, the index of its distinct text; -1 where the text is refused.
        copies: how often each distinct text was asked.
        problems: why a text is refused, by its position.
    """

    texts: list[str] = field(repr=False)
    digests: list[bytes] = field(repr=False)
    sizes: list[int] = field(repr=False)
    places: NDArray[np.intp] = field(repr=False)
    copies: NDArray[np.intp] = field(repr=False)
    problems: dict[int, BadInput]

    @property
    def asked(self) -> int:
        """Texts asked, refused ones included."""
        return len(self.places)


def digest(text: str) -> bytes:
    """BLAKE2b-256 of the exact text; 32 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=32).digest()


def normalise(text: str) -> str:
    """Unicode NFC, line ends `\\n`, no white space at the ends: what a policy's `normalise` does."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def validate(texts: Sequence[str], *, normalised: bool = False, lenient: bool = False) -> ValidTexts:
    """Check the texts and drop exact repeats, remembering their places.

    Args:
        texts: what was asked.
        normalised: embed `normalise(text)` instead of the exact text.
        lenient: refuse bad texts one by one (a file) instead of the whole request.

    Raises:
        BadInput: no texts, or (unless `lenient`) a text that cannot be embedded; says which and why.
    """
    if isinstance(texts, str):
        raise BadInput("The texts are one string, not a list.", "Put it into a list: [text].")
    if len(texts) == 0:
        raise BadInput("There is no text to embed.", "Give at least one.")
    problems: dict[int, BadInput] = {}
    seen: dict[bytes, int] = {}
    kept: list[str] = []
    sizes: list[int] = []
    places = np.empty(len(texts), dtype=np.intp)
    for position, raw in enumerate(texts):
        try:
            text = normalise(raw) if normalised and isinstance(raw, str) else raw
            data = _bytes(text, position)
        except BadInput as error:
            if not lenient:
                raise
            problems[position] = error
            places[position] = -1
            continue
        key = hashlib.blake2b(data, digest_size=32).digest()
        index = seen.get(key)
        if index is None:
            index = seen[key] = len(kept)
            kept.append(text)
            sizes.append(len(data))
        places[position] = index
    copies = np.bincount(places[places >= 0], minlength=len(kept))
    return ValidTexts(texts=kept, digests=list(seen), sizes=sizes, places=places, copies=copies, problems=problems)


def _bytes(text: object, position: int) -> bytes:
    """UTF-8 of a text that can be embedded; BadInput for any other."""
    name = f"Text {position + 1}"
    if not isinstance(text, str):
        raise BadInput(f"{name} is not text but {type(text).__name__}.", "Give strings only.")
    try:
        data = text.encode()
    except UnicodeEncodeError as exc:
        raise BadInput(
            f"{name} has half of a surrogate pair at character {exc.start + 1}, which is not a character.",
            "It was probably cut in the middle of an emoji; fix the source file.",
        ) from None
    if not text or text.isspace():
        raise BadInput(f"{name} is empty.", "Leave it out; an empty text has no meaning to embed.")
    if b"\0" in data:
        raise BadInput(f"{name} has a NUL character at byte {data.index(0) + 1}.", "It is probably binary; remove it.")
    if len(data) > MOST_BYTES:
        raise BadInput(
            f"{name} is {len(data):,} bytes long; the most is {MOST_BYTES:,}.", "Add it to a collection, in chunks."
        )
    return data
