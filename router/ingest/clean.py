"""What stands in a text file and is no text: front matter, and data in base64, such as pictures."""

from __future__ import annotations

import re
from collections import Counter

from router.ingest.reader import plural

LONG_DATA = 2_000
"""Characters of base64 in a run, from which on it is data and no word."""
_DATA_URI = re.compile(
    r"(?<![\w-])data:(?P<kind>[\w.+-]{1,60}/[\w.+-]{1,60})?(?:;[\w-]{1,40}(?:=[\w\"'.+-]{0,80})?){0,8}"
    r"(?:;base64,[A-Za-z0-9+/=_%-]*|,[^\s\"'()<>]*)",
    re.IGNORECASE,
)
_LINE = 60  # characters of base64 in a line, at least
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{60,}={0,2}[ \t]*(?:\r?\n[ \t]*|$|(?=[^A-Za-z0-9+/_-])))+")
_YAML = re.compile(r"\ufeff?---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"\ufeff?\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_YAML_LINE = re.compile(r"[\w\"'][^:\n]{0,100}:(\s|$)|[ \t]+\S|- |#|\s*$|[\]}]")
_TOML_LINE = re.compile(r"[\w\"'.-]{1,100}\s*=|\[|#|\s|$|[\]}\"']")
_TITLE = re.compile(r"^title\s*[:=][ \t]*(.+?)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_HEADING = re.compile(r"\s*(?:#[ \t]+(.+?)[ \t]*#*[ \t]*(?:\n|$)|(.+)\n=+[ \t]*(?:\n|$))")
_MOST_LINES = 1_000


def without_front_matter(text: str) -> tuple[str, list[str]]:
    """A Markdown text without the YAML or TOML before it, which is metadata; its title becomes the first heading."""
    for pattern, line in ((_YAML, _YAML_LINE), (_TOML, _TOML_LINE)):
        found = pattern.match(text)
        if not found:
            continue
        lines = found[1].splitlines()
        if not any(map(str.strip, lines)) or len(lines) > _MOST_LINES or not all(map(line.match, lines)):
            continue  # a text between two rules
        rest = text[found.end() :]
        title = _TITLE.search(found[1])
        said = title[1].strip("\"'") if title else ""
        heading = _HEADING.match(rest.lstrip()[:_MOST_LINES])
        if not said or (heading and (heading[1] or heading[2] or "").strip() == said):
            return rest, [f"Its front matter ({plural(len(lines), 'line')}) is metadata and not embedded."]
        kept = f"Its front matter ({plural(len(lines), 'line')}) is metadata and not embedded, but for its title."
        return f"# {said}\n\n{rest.lstrip()}", [kept]
    return text, []


def without_data(text: str) -> tuple[str, list[str]]:
    """A text without pictures and other data written as characters: data URIs, and long runs of base64."""
    counts = Counter[str]()

    def uri(found: re.Match[str]) -> str:
        if len(found[0]) < 40 or not (found["kind"] or ";base64," in found[0]):  # "data:" in a sentence
            return found[0]
        counts["image" if (found["kind"] or "").lower().startswith("image/") else "data address"] += 1
        return ""

    def run(found: re.Match[str]) -> str:
        if len(found[0]) - found[0].count("\n") < LONG_DATA:
            return found[0]
        counts["run of base64"] += 1
        return "\n" if found[0].endswith("\n") else ""

    if "data:" in text or "DATA:" in text:
        text = _DATA_URI.sub(uri, text)
    if len(text) >= LONG_DATA and max(map(len, text.split()), default=0) >= _LINE:
        text = _BASE64.sub(run, text)
    many = {"image": "images", "data address": "data addresses", "run of base64": "runs of base64"}
    return text, [f"{plural(counts[one], one, many[one])} left out." for one in many if counts[one]]
