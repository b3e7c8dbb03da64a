"""What a local model's own sentence-transformers configuration puts before queries and documents.

Read from its files, without loading the model: the prompts are a part of the keys of its vectors, and of their size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router.domain.errors import BadInput
from router.domain.values import Role

CONFIGURATION = "config_sentence_transformers.json"
MODULES = "modules.json"


def prompts_of(name: str) -> tuple[dict[Role, str], bool]:
    """A model's prompts by role, as `encode_query` and `encode_document` would use them, and whether it has ways
    of its own for the two (a Router module).

    `name` is a folder, or a name at the Hugging Face hub, of which only what was fetched before is read. `({}, False)`
    where there is nothing to be read, or no prompt in it.

    Raises:
        BadInput: a file of the model cannot be understood.
    """
    configuration, modules = _read(name, CONFIGURATION), _read(name, MODULES)
    prompts = configuration.get("prompts") if isinstance(configuration, dict) else None
    two_ways = isinstance(modules, list) and any(
        str(module.get("type", "")).rsplit(".", 1)[-1] in ("Router", "Asym")
        for module in modules
        if isinstance(module, dict)
    )
    found = by_role(prompts if isinstance(prompts, dict) else {})
    if any(not isinstance(text, str) or re.search("[\ud800-\udfff]", text) for text in found.values()):
        raise BadInput(f"{name}/{CONFIGURATION}: a prompt of it is not a text.", "Fix it, or give `prefix` yourself.")
    return (found if any(found.values()) else {}), two_ways


def by_role(prompts: Mapping[str, Any]) -> dict[Role, str]:
    """Of a model's prompts those for the two roles; `encode_query` and `encode_document` take no default prompt."""
    return {"query": prompts.get("query") or "", "document": prompts.get("document") or ""}


def _read(name: str, file: str) -> Any:
    path = _path(name, file)
    if path is None or not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise BadInput(f"{path} cannot be read: {str(exc)[:200]}.", "Fix the file, or fetch the model again.") from exc


def _path(name: str, file: str) -> Path | None:
    if Path(name).is_dir():
        return Path(name) / file
    if name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
