"""Prices: held against a second source, and overridden by the operator."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from router.config import load_settings
from router.domain.catalog import Catalog
from router.domain.errors import BadInput
from router.domain.pricing import price_on
from router.reporting.price_check import crosscheck

TODAY = date(2026, 11, 21)
SMALL = "openai/text-embedding-3-small"


def catalog(folder: Path, toml: str = "") -> Catalog:
    """The catalog as a data folder with this `router.toml` has it."""
    (folder / "router.toml").write_text(toml)
    return load_settings(folder, {}).catalog


def override(**changes: str) -> str:
    """A `[[prices]]` table; values are TOML, "" leaves the key out."""
    usual = {"model": f'"{SMALL}"', "since": "2026-11-15", "now": '"0.017"', "source": '"our contract"'}
    return "[[prices]]\n" + "".join(f"{key} = {value}\n" for key, value in {**usual, **changes}.items() if value)


# ---- a second pair of eyes ---------------------------------------------------------------------


def test_the_catalog_agrees_with_the_package_where_it_knows_the_model(tmp_path: Path) -> None:
    """Every paid model is looked at; those that the package lacks are said to be unknown, not right."""
    ours = catalog(tmp_path)
    checked = crosscheck(ours, TODAY)
    assert [c.model for c in checked] == [m.id for m in ours.models if not m.local]
    verdicts = {c.model: c.verdict for c in checked}
    unknown = {name for name, verdict in verdicts.items() if verdict == "unknown to them"}
    assert {name for name in unknown if not name.startswith("openrouter/")} == {
        "cohere/embed-v5.0-pro",
        "cohere/embed-v5.0-fast",
        "cohere/embed-english-v3.0",
        "cohere/embed-multilingual-v3.0",
        "mistral/codestral-embed",
    }
    assert {verdicts[name] for name in set(verdicts) - unknown} == {"same"}


def test_a_difference_is_seen(tmp_path: Path) -> None:
    """A wrong price, a missing one, and a name that is only close to one that they know."""
    ours = catalog(tmp_path)
    small = ours.get(SMALL)
    wrong = replace(small, prices=(replace(small.prices[0], now=Decimal("0.2")),))
    unknown = replace(small, prices=())
    close = replace(small, id=f"{SMALL}-eu", name=f"{small.name}-eu")
    checked = crosscheck(replace(ours, models=(wrong, unknown, close)), TODAY)
    assert [c.verdict for c in checked] == ["differs", "unknown to us", "unknown to them"]
    assert (checked[0].ours, checked[0].theirs) == (Decimal("0.2"), Decimal("0.02"))


# ---- the operator's own prices -----------------------------------------------------------------


def test_an_override_holds_from_its_day_on_and_shows_its_source(tmp_path: Path) -> None:
    """The days before keep the catalog's price; other models keep theirs."""
    before = catalog(tmp_path)
    after = catalog(tmp_path, override(batch='"0.008"'))
    model = after.get(SMALL)
    old, new = price_on(model, date(2026, 11, 14)), price_on(model, date(2026, 11, 15))
    assert old == before.get(SMALL).prices[0]
    assert new is not None
    assert (new.now, new.batch, new.source) == (Decimal("0.017"), Decimal("0.008"), "router.toml: our contract")
    assert new.checked == date(2026, 11, 15)
    assert [m for m in after.models if m.id != SMALL] == [m for m in before.models if m.id != SMALL]


def test_an_override_stands_against_a_later_price_of_the_catalog(tmp_path: Path) -> None:
    """A contract of last year is not undone by a price that the catalog learned since; several may follow."""
    model = catalog(tmp_path, override(since="2025-12-01") + override(since="2026-12-01", now='"0.01"')).get(SMALL)
    assert [str(p.now) for p in model.prices] == ["0.017", "0.01"]
    assert price_on(model, TODAY) == model.prices[0]


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        (override(model='"openai/none"'), "no model 'openai/none'"),
        (override(model=""), "`model`: it is missing"),
        (override(model='"local/all-MiniLM-L6-v2"'), "costs nothing"),
        (override(source=""), "`source`: it is missing"),
        (override(now='"cheap"'), "key `now`: 'cheap' is not a number"),
        (override(now="0.017"), "`now`: it must be a string"),
        (override(since='"soon"'), "`since`: it must be a date"),
        (override(per='"token"'), "key `per`: unknown key"),
        (override() + override(), "is not after"),
        ('prices = "none"\n', "[[prices]]"),
    ],
)
def test_a_price_that_cannot_be_understood_is_refused(tmp_path: Path, toml: str, says: str) -> None:
    """With its place; money is never guessed."""
    with pytest.raises(BadInput) as caught:
        catalog(tmp_path, toml)
    assert says in str(caught.value)
    assert "router.toml" in str(caught.value) or "catalog" in str(caught.value)
