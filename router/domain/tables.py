"""Parsed TOML and JSON read into dataclasses: what is unknown, missing or wrong is refused, and its place is named.

Types and bounds stand in the dataclass (bounds as `Annotated[int, Meta(ge=1)]`) and are checked by msgspec. A misspelt
key would be wrong money or mixed vectors later, so unknown ones are refused too, at every depth.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from router.domain.errors import BadInput

T = TypeVar("T")

FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
_DATES = (date, datetime, time)
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "a string", "bool": "true or false", "object": "a table",
    "date": "a date (2026-11-01)", "array": "a list",
}  # fmt: skip


def read(
    data: Mapping[str, Any], shape: type[T], place: str, *, derived: Mapping[str, Any] = {}, secret: bool = False
) -> T:
    """The `shape`, a dataclass, that `data` is; `place` is where it stands, for messages.

    Args:
        derived: fields of `shape` that are not keys of the table, with their values.
        secret: somebody may have written a secret where it does not belong, so messages repeat no value.

    Raises:
        BadInput: an unknown or missing key, or a value of the wrong type or out of bounds.
    """
    _check(data, shape, place, derived)
    data = {**data, **derived}
    try:
        return msgspec.convert(data, shape, builtin_types=_DATES)
    except msgspec.ValidationError as error:
        _explain(str(error), data, shape, place, secret)


def refuse(place: str, key: str, why: str, hint: str = "Correct it there.") -> NoReturn:
    """Say that a key's value is wrong.

    Raises:
        BadInput: always.
    """
    raise BadInput(f"{place}, key `{key}`: {why}.", hint)


def shown(value: object) -> str:
    """A value of a file for a message, cut to a line: a number may have thousands of digits."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check(value: Any, kind: Any, place: str, without: Collection[str] = (), key: str = "") -> None:
    """Refuse what msgspec takes: unknown keys, prices that are not strings, days far from any real one."""
    parts, inner = get_args(kind), f"{place}, {key}" if key else place
    if isinstance(value, dict) and (known := [name for name in _fields(kind) if name not in without]):
        for name, item in value.items():
            if name not in known:
                refuse(inner, name[:60], "unknown key", f"Known are: {', '.join(known)}.")
            _check(item, _fields(kind)[name], inner, (), name)
    elif isinstance(value, list | tuple) and parts:
        for number, item in enumerate(value, 1):
            _check(item, parts[0], place, (), f"{key} {number}")
    elif kind is Decimal and not isinstance(value, str):
        refuse(place, key, f"it must be a string, not {shown(value)}", 'Write it like "0.02".')
    elif kind is date and type(value) is date and not FIRST_DAY <= value <= LAST_DAY:
        refuse(place, key, f"{value} is not between {FIRST_DAY} and {LAST_DAY}")


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """The keys of a dataclass, or of a mapping whose keys are listed, with their types; that of `X | None` is X."""
    parts = get_args(kind)
    if get_origin(kind) is Mapping and get_origin(parts[0]) is Literal:
        return dict.fromkeys(get_args(parts[0]), parts[1])
    hints = get_type_hints(kind, include_extras=True) if is_dataclass(kind) else {}
    return {name: get_args(hint)[0] if type(None) in get_args(hint) else hint for name, hint in hints.items()}


def _explain(error: str, value: Any, kind: Any, place: str, secret: bool) -> NoReturn:
    """Say in words what msgspec says like `Expected X, got Y - at $.limits.texts_per_call`."""
    what, _, path = error.partition(" - at `$") if error.startswith("Object") else error.rpartition(" - at `$")
    key = ""
    for step in re.findall(r"\w+|\.\.\.", path):
        if step.isdigit():
            value, kind, key = value[int(step)], get_args(kind)[0], f"{key} {int(step) + 1}"
            continue
        place, key = f"{place}, {key}" if key else place, step
        if step == "...":  # a key of a mapping: msgspec does not say which
            key = next(name for name, item in value.items() if not _fits(item, get_args(kind)[1]))
        value, kind = value[key], get_args(kind)[1] if step == "..." else _fields(kind)[key]
    if missing := re.search("missing required field `(.*)`", what):
        refuse(f"{place}, {key}" if key else place, missing[1], "it is missing")
    key = key.partition(" ")[0]
    kinds = (kind, *(get_args(kind) if what.startswith("Invalid enum value") else ()))
    if choices := [choice for part in kinds if get_origin(part) is Literal for choice in get_args(part)]:
        refuse(place, key, f"{'it' if secret else shown(value)} is not one of {', '.join(choices)}")
    if what.startswith("Expected"):
        expected = what.removeprefix("Expected ").partition(", got ")[0].replace(" | null", "").replace(" | ", "` or `")
        if expected == "`array`" and (is_dataclass(get_args(kind)[0]) or get_origin(get_args(kind)[0]) is dict):
            expected = f"an array of tables, [[{key}]]"
        hint = "Correct it there."
        if "= " in expected and (bounds := next((meta for meta in kind.__metadata__ if meta.le is not None), None)):
            expected = f"{expected.partition(' ')[0]} from {bounds.ge:,} to {bounds.le:,}"
            hint = "Give a number in this range."
        expected = expected.replace(">= ", "at least ")
        why = "it must be " + re.sub(r"`(\w+)`", lambda name: _WORDS.get(name[1], name[1]), expected)
        refuse(place, key, why if secret else f"{why}, not {shown(value)}", hint)
    why = "is not a number" if what.startswith("Invalid decimal") else "is out of range"
    refuse(place, key, f"{'it' if secret else shown(value)} {why}")


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, builtin_types=_DATES)
    except msgspec.ValidationError:
        return False
    return True
