"""Numbers in files and policies: taken within stated bounds, or refused with the file and the key."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.config import load_settings
from router.domain import money
from router.domain.catalog import MOST_USD, parse_catalog
from router.domain.errors import BadInput
from router.domain.policy import MOST, from_dict, parse_budget, validate
from router.domain.tables import FIRST_DAY, LAST_DAY
from router.domain.values import MOST_COUNT

NUMBERS = st.one_of(
    st.integers(-3, 70_000).map(str),
    st.integers(-(10**40), 10**40).map(str),
    st.floats().map(repr),
    st.sampled_from([
        "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "1e-400", "1e-9", "0.1", "86400", "1e11", "-0.0", "true",
        "9" * 5_000, "0x" + "f" * 5_000, "1_000", "0b11", "2026-13-45", "0001-01-01", "9999-12-31", "2026-11-01",
        "2026-11-01T25:00:00", "12:00:00", "[1]", "{}", "'1'", "'1e999999999'", "'1e-999999999'", "'NaN'", "'-0'",
        "'Infinity'", "'0.02'", "'sNaN'", "'1e9999999999999999999'", "'٣'", "''",
    ]),
)  # fmt: skip
MODEL = """
[[models]]
id = "openai/x"
space = "x"
dimensions = {dimensions}
default_dimensions = {default_dimensions}
tokenizer = "bytes"
tokens_per_second = {tokens_per_second}
retires = {retires}
prices = [{{ since = {since}, now = {now}, batch = {batch}, source = "s", checked = {checked} }}]
scores = [{{ scale = "S", value = {value}, source = "s", checked = 2026-11-01 }}]

[models.limits]
texts_per_call = {texts_per_call}
tokens_per_text = {tokens_per_text}
tokens_per_call = {tokens_per_call}
"""
GOOD = {
    "dimensions": "64", "default_dimensions": "64", "tokens_per_second": "10", "retires": "2030-01-01",
    "texts_per_call": "9", "tokens_per_text": "9", "tokens_per_call": "9", "since": "2026-11-01", "now": '"1"',
    "batch": '"1"', "checked": "2026-11-01", "value": "50",
}  # fmt: skip
COUNTS = ("dimensions", "texts_per_call", "tokens_per_text", "tokens_per_call")
LIMITS = {
    "max_texts_per_call": (1, 10**6), "max_in_flight": (1, 10**4), "requests_per_minute": (1, 10**9),
    "tokens_per_minute": (1, 10**12), "timeout_s": (0.1, 86_400),
}  # fmt: skip
FAST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused(error: BadInput, file: str, key: str) -> None:
    """The message names the file, and the key unless the whole file is no TOML; it is short enough to be read."""
    assert error.message.startswith(file)
    assert key in error.message or "is not valid TOML" in error.message
    assert len(error.message) < 500


@FAST
@given(st.sampled_from(sorted(GOOD)), NUMBERS)
def test_numbers_of_a_catalog(key: str, number: str) -> None:
    """Counts, prices, days, scores and speeds: within their bounds, or `BadInput`."""
    try:
        catalog = parse_catalog(MODEL.format(**{**GOOD, key: number}), origin="router.toml")
    except BadInput as error:
        # A full size that is taken may contradict the default one.
        refused(error, "router.toml", "default_dimensions" if "default_dimensions" in error.message else key)
        return
    (model,) = catalog.models
    limits, (price,), (score,) = model.limits, model.prices, model.scores
    counts = (model.dimensions, limits.texts_per_call, limits.tokens_per_text, limits.tokens_per_call)
    assert all(count is not None and 1 <= count <= MOST_COUNT for count in counts)
    assert 1 <= model.tokens_per_second <= MOST_COUNT
    assert 0 <= score.value <= 100
    for usd in (price.now, price.batch):
        assert usd is not None
        assert 0 <= usd <= MOST_USD
        assert money.price_tokens(MOST_COUNT, usd) == math.ceil(MOST_COUNT * usd * 1000)
    for day in (price.since, price.checked, model.retires):
        assert day is not None
        assert FIRST_DAY <= day <= LAST_DAY


@FAST
@given(st.sampled_from(sorted(LIMITS)), NUMBERS, st.sampled_from(["providers.openai", "endpoints.mine"]))
def test_numbers_of_router_toml(tmp_path: Path, key: str, number: str, table: str) -> None:
    """Limits of a provider or endpoint; a time-out is from a tenth of a second to a day."""
    text = f"[{table}]\n{key} = {number}\n" + ('base_url = "http://x"\n' if table == "endpoints.mine" else "")
    (tmp_path / "router.toml").write_text(text, encoding="utf-8")
    try:
        found = load_settings(tmp_path, env={})
    except BadInput as error:
        refused(error, "router.toml", key)
        return
    least, most = LIMITS[key]
    assert least <= getattr(found.endpoints[table.split(".")[1]], key) <= most


VALUES = st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=5), st.just(10**30))


@FAST
@given(st.sampled_from(["min_quality", "version"]), VALUES)
def test_numbers_of_a_policy(key: str, value: Any) -> None:
    """As JSON or from a form: a quality is from 0 to 100, a version fits the books."""
    try:
        policy = from_dict({"name": "p", key: value})
        validate(policy, ["openai/x"])
    except BadInput as caught:
        error = caught
    else:
        error = None
    if error is not None:
        assert key in error.message or key.replace("min_", "least ") in error.message
        return
    assert policy.min_quality is None or 0 <= policy.min_quality <= 100
    assert 0 <= policy.version < 2**31


@FAST
@given(st.one_of(NUMBERS.map(lambda text: text.strip("'")), st.floats().map(repr), st.decimals().map(str)))
def test_amounts_of_a_budget(text: str) -> None:
    """Exact nanodollars up to a billion dollars, or refused: nothing is rounded to what was not written."""
    try:
        budget = parse_budget(f"{text}/month")
    except BadInput:
        return
    assert 0 <= budget.amount <= MOST
    from decimal import Decimal, localcontext

    with localcontext(prec=1_000):
        assert Decimal(text.replace("_", "")) * money.NANO == budget.amount


@pytest.mark.parametrize("flags", [["--min-quality", "nan"], ["--budget", "1e400/month"], ["--budget", "nan/day"]])
def test_the_shell_ends_with_wrong_use(tmp_path: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 2 and a sentence, no traceback."""
    from typer.testing import CliRunner

    from router.cli import app

    monkeypatch.setenv("ROUTER_DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["policy", "set", "p", *flags])
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_short_time_out_is_refused_with_file_and_key(tmp_path: Path) -> None:
    """A nanosecond and a million years, in the message that a person reads."""
    for number in ("1e-9", "3.2e13", "nan"):
        (tmp_path / "router.toml").write_text(f"[providers.openai]\ntimeout_s = {number}\n")
        with pytest.raises(
            BadInput, match=r"router\.toml, \[providers\.openai\], key `timeout_s`: .* from 0\.1 to 86,400,"
        ):
            load_settings(tmp_path, env={})


def test_days_are_days(tmp_path: Path) -> None:
    """The bounds of a day are in the message."""
    with pytest.raises(BadInput, match="key `since`: 0001-01-01 is not between 2000-01-01 and 2199-12-31"):
        parse_catalog(MODEL.format(**{**GOOD, "since": "0001-01-01"}), origin="router.toml")
    assert date(2026, 11, 25) < LAST_DAY
