"""EML: who wrote to whom, about what and when, the letter once, and its attachments as far as they can be read."""

from __future__ import annotations

import email
import email.policy
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from importlib import import_module
from pathlib import Path

from router.ingest import encodings, html
from router.ingest.kinds import DOCUMENTS, MODULES
from router.ingest.reader import Unreadable

_HEADERS = ("From", "To", "Cc", "Subject", "Date")
_DEEPEST = 3  # letters in letters


def read(path: str, _codec: str, notes: list[str]) -> Iterator[str]:
    """The headers, a blank line, the text; behind it every attachment under its name. Others are named in the notes."""
    data = Path(path).read_bytes()
    if data[:4] == b"\xd0\xcf\x11\xe0":
        raise Unreadable("it is a message of Outlook; save it as .eml")
    message = email.message_from_bytes(data, policy=email.policy.default)
    if not message.keys():
        raise Unreadable("it is broken, or another kind of file: it has no headers")
    assert isinstance(message, EmailMessage)  # of this policy, as no type says
    yield from _letter(message, notes, 0)


def _letter(message: EmailMessage, notes: list[str], depth: int) -> Iterator[str]:
    for name in _HEADERS:
        if value := _header(message, name):
            yield f"{name}: {value}\n"
    yield "\n"
    yield from _part(message, notes, depth)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except Exception:  # the parser of addresses and dates stumbles over broken ones; they are shown as they are
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(str(raw).split())


def _part(part: EmailMessage, notes: list[str], depth: int) -> Iterator[str]:
    kind = part.get_content_type()
    if kind == "message/rfc822":
        inside = part.get_payload()
        if depth >= _DEEPEST or not isinstance(inside, list):
            notes.append("A message inside of it lies too deep: not read.")
        else:
            yield "\n"
            yield from _letter(inside[0], notes, depth + 1)  # type: ignore[arg-type]  # of the policy
    elif kind == "multipart/alternative":
        yield from _best(list(part.iter_parts()), notes, depth)  # type: ignore[arg-type]  # of the policy
    elif part.is_multipart():
        for one in part.iter_parts():
            yield from _part(one, notes, depth)  # type: ignore[arg-type]  # of the policy
    elif part.get_filename() or part.get_content_disposition() == "attachment":
        yield from _attachment(part, notes)
    elif kind in {"text/plain", "text/html"}:
        yield from _text(part, notes)
    elif part.get_content_maintype() not in {"image", "multipart"} or not part.get("Content-ID"):
        notes.append(f"A part of it ({kind}) is not read.")


def _best(parts: list[EmailMessage], notes: list[str], depth: int) -> Iterator[str]:
    """Plain text before a page: both say the same. What hangs on the page comes too."""
    plain = [part for part in parts if part.get_content_type() == "text/plain"]
    for part in plain:
        words = "".join(_text(part, notes))
        if words.strip():
            yield words
            for other in parts:
                if other.is_multipart() and other.get_content_type() != "multipart/alternative":
                    for one in list(other.iter_parts())[1:]:
                        yield from _part(one, notes, depth)  # type: ignore[arg-type]  # of the policy
            return
    for part in parts:
        if part not in plain:
            yield from _part(part, notes, depth)


def _text(part: EmailMessage, notes: list[str]) -> Iterator[str]:
    text, doubts = encodings.decode(_bytes(part), part.get_content_charset() or "")
    notes += doubts
    if part.get_content_type() == "text/html":
        yield from html.words([text], notes)
    else:
        yield text
    yield "\n"


def _attachment(part: EmailMessage, notes: list[str]) -> Iterator[str]:
    name = part.get_filename() or "without a name"
    ending = Path(name).suffix.lower()
    kind = "text" if ending == ".txt" else DOCUMENTS.get(ending)
    if kind is None or kind == "mail":
        if not (part.get_content_maintype() == "image" and part.get("Content-ID")):
            notes.append(f"The attachment {name} is not read.")
        return
    yield f"\n{name}\n\n"
    if kind in {"text", "markdown"}:
        text, doubts = encodings.decode(_bytes(part), part.get_content_charset() or "")
        notes += [f"{name}: {doubt}" for doubt in doubts]
        yield text
        return
    with tempfile.NamedTemporaryFile(suffix=ending) as file:
        file.write(_bytes(part))
        file.flush()
        own: list[str] = []
        try:
            yield from import_module(MODULES[kind]).read(file.name, "cp1252", own)
        except MemoryError:
            raise
        except Unreadable as error:
            own.append(f"The rest of it is not read: {error}.")
        except Exception as error:  # a broken attachment is no reason to lose the letter
            own.append(f"The rest of it is not read: it is broken ({type(error).__name__}).")
        notes += [f"{name}: {note}" for note in own]


def _bytes(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""
