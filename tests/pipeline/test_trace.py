"""What a decision knew, read back: by this version, and as version 1 wrote it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from router.domain.values import Ask, CandidateFacts, Facts
from router.pipeline.trace import facts_from_json, facts_to_json
from tests.domain.worlds import VOYAGE


def test_likely_and_most_are_kept_apart() -> None:
    """Both figures of a candidate come back; of version 1, which knew the most only, the one stands for both."""
    one = CandidateFacts(model=VOYAGE, texts=2, cached=0, tokens=500, expected_tokens=110)
    facts = Facts(now=datetime(2026, 11, 25, tzinfo=UTC), candidates=(one,))
    body = facts_to_json(facts, Ask(), "split", "bytes", lambda model: [False, False], likely=True)
    new = facts_from_json(body, 2, "document")
    assert (new.models[0].tokens, new.models[0].expected, new.likely, new.size) == (500, 110, True, 1.0)
    values = json.loads(body)
    del values["likely"]
    values["models"] = [row[:6] for row in values["models"]]
    old = facts_from_json(json.dumps(values), 2, "document")
    assert (old.models[0].tokens, old.models[0].expected, old.likely, old.size) == (500, 500, False, 5.35)
