"""Models and Connections: prices with their sources, a provider's state, its test, and a key that is never seen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import prices
from router.config import Endpoint, Secret
from router.dispatch.limiter import Health
from router.host import host
from router.sandbox import Sandbox
from router.store.learned import learn
from tests.pages.test_pages import words

Open = Callable[..., AppTest]
KEY = "sk-canary-0123456789"


@pytest.fixture
def openai(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The provider, with OpenAI's address pointing at it and no key."""
    for name, value in sandbox.environment.items():
        if name.endswith("_URL"):
            monkeypatch.setenv(name, value)
    return sandbox


def test_the_catalog_is_a_table_with_prices_and_their_dates(data: Path, open_page: Open) -> None:
    """Every model, local ones as ready and free, paid ones with price, date and source."""
    app = open_page("models")
    table = app.dataframe[0].value.set_index("model")
    assert list(table.index) == [model.id for model in host().router.catalog.models]
    small = table.loc["openai/text-embedding-3-small"]
    assert (small["now"], small["batch"], small["read"]) == ("$0.02", "$0.01", "1 Nov 2026")
    assert (small["state"], small["RTEB-en"], small["MTEB-v2-en"]) == (["no key"], "54.8", "53.5")
    assert small["dimensions"] == "1,536, any lower"
    local = table.loc["local/all-MiniLM-L6-v2"]
    assert (local["now"], local["batch"], local["read"], local["state"]) == ("free", "–", "–", ["ready"])
    old = table.loc["cohere/embed-english-v3.0"]
    assert (old["now"], list(old["state"]), old["served until"]) == ("$0.10 *", ["no key", "legacy"], "")
    assert table.loc["voyage/voyage-3-large"]["served until"] == "1 Dec 2027"
    ready = open_page("models", show="Ready")
    assert all(model.startswith("local/") for model in ready.dataframe[0].value["model"])


def test_an_overridden_price_stands_beside_the_old_one(data: Path, open_page: Open) -> None:
    """Today's in the catalog, one of another day in the list below; the comparison says whose the difference is."""
    data.mkdir()
    ours = '[[prices]]\nmodel = "{}"\nsince = {}\nnow = "{}"\nsource = "our contract"\n'
    (data / "router.toml").write_text(
        ours.format("openai/text-embedding-3-small", "2026-11-01", "0.017")
        + ours.format("voyage/voyage-4", "2126-01-01", "0.05")
    )
    app = open_page("models", compare="true")
    assert not app.exception
    catalog, overridden, compared = (d.value.set_index("model") for d in app.dataframe[:3])
    small = catalog.loc["openai/text-embedding-3-small"]
    assert (small["now"], small["was"], small["price from"]) == ("$0.017", "$0.02", "router.toml: our contract")
    assert catalog.loc["voyage/voyage-4"]["was"] == ""
    assert list(overridden["now"]) == ["$0.02 → $0.017", "$0.06 → $0.05"]
    assert list(overridden["batch"]) == ["$0.01 → not sold", "$0.0402 → not sold"]
    assert compared.iloc[0].to_list() == ["$0.017", "$0.02", "differs: set in router.toml"]
    assert compared.loc["voyage/voyage-4"].to_list() == ["$0.06", "$0.06", "agrees"]


def test_the_error_of_the_likely_cost_is_shown(data: Path, open_page: Open) -> None:
    """By model, over the calls that were billed; before there is one, a sentence."""
    app = open_page("models")
    assert "No call was billed yet" in words(app)
    database = host().router.usage.database
    calls = [(100, 80), (100, 110)]
    for expected, billed in calls:
        call = {"features": {"text": 2.0, "latin": 90.0}, "expected": expected, "billed": billed, "most": 900}
        host().run(database.write(lambda conn, call=call: learn(conn, "voyage/voyage-4", **call)))
    app = open_page("models")
    assert not app.exception
    table = next(d.value for d in app.dataframe if "off by" in d.value.columns).set_index("model")
    row = table.loc["voyage/voyage-4"]
    assert (row["calls"], row["off by"], row["a call within"]) == (2, "16 %", "16 %")  # 30 of 190; of 20 % and 10 %
    assert (row["expected"], row["billed"]) == ("200 tokens", "190 tokens")


def test_the_comparison_is_not_loaded_before_it_is_asked_for(data: Path, open_page: Open) -> None:
    """The package takes half a second; the catalog of the vendor's prices has no column of what was."""
    app = open_page("models")
    assert "was" not in app.dataframe[0].value.columns
    assert len(app.dataframe) == 2
    app.toggle(key="compare").set_value(True).run()
    assert "14 of 23 prices agree with the installed package genai-prices" in words(app)


def test_paid_calls_are_stopped_from_here(data: Path, open_page: Open) -> None:
    """The account budget stands above the button; the sidebar's footer agrees."""
    app = open_page("models")
    assert "of $10.00 a month" in words(app)
    app.button(key="switch").click().run()
    assert not host().router.policies.paid_enabled()
    assert app.button(key="switch").label == "Allow paid calls again"
    assert app.sidebar.toggle[0].value is False
    app.button(key="switch").click().run()
    assert host().router.policies.paid_enabled()


def test_a_provider_that_is_unavailable_says_until_when() -> None:
    """No key, ready, failing, unavailable: in words, with the last error."""
    calm = Health(provider="openai", width=32, in_flight=0, failures_in_row=0, open_until=0.0, last_error="")
    failing = Health(provider="openai", width=1, in_flight=1, failures_in_row=2, open_until=0.0, last_error="500")
    broken = Health(
        provider="openai", width=1, in_flight=0, failures_in_row=5, open_until=1_795_269_780.0, last_error="500"
    )
    said = [
        prices.state_of(limiter, configured=True, now=1_795_269_770.0, zone="Europe/Paris")
        for limiter in (calm, failing, broken)
    ]
    assert said == ["ready", "failing, still in use", "temporarily unavailable, until 21 Nov 15:03"]
    assert prices.state_of(broken, configured=False, now=0.0, zone="UTC") == "no key"
    assert prices.state_of(broken, configured=True, now=1_795_269_790.0, zone="UTC") == "failing, still in use"
    (row,) = prices.providers([failing], [Endpoint(name="openai", wire="openai", key=Secret(KEY))], now=0.0, zone="UTC")
    assert row["calls at once"] == "1 of 1"
    assert row["last error"] == "500"
    assert KEY not in str(row)


def test_an_unknown_price_is_never_shown_as_free() -> None:
    """None is unknown or not sold; zero is free; digits are as they were read."""
    assert [prices.per_million(p) for p in (None, Decimal(0), Decimal("0.020"))] == ["unknown", "free", "$0.020"]


def test_a_key_is_taken_for_this_process_and_never_shown(data: Path, open_page: Open, openai: Sandbox) -> None:
    """The field is empty again, the engine has the key, and nothing of the page or its state holds it."""
    app = open_page("connections")
    assert "no key" in words(app)
    assert all(b.key != "test openai" for b in app.button)
    app.text_input(key="key openai").set_value(f"  {KEY} ")
    app.button(key="FormSubmitter:form openai-Use key").click().run()
    assert not app.exception
    held = host().router.settings.endpoints["openai"].key
    assert held is not None
    assert held.reveal() == KEY
    assert app.text_input(key="key openai").value == ""
    assert KEY not in words(app)
    assert KEY not in str({k: app.session_state[k] for k in app.session_state})
    assert KEY not in "".join(str(element) for element in app.main)
    assert not [path for path in data.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    app.button(key="forget openai").click().run()
    assert host().router.settings.endpoints["openai"].key is None


def test_a_test_is_priced_before_and_reaches_the_provider(data: Path, open_page: Open, openai: Sandbox) -> None:
    """The cheapest model, one call, every time anew: an answer out of the cache would prove nothing."""
    host().router.set_key("openai", KEY)
    app = open_page("connections")
    before = openai.bill().calls
    for turn in (1, 2):
        test = app.button(key="test openai")
        assert test.label.replace("\\", "").replace("\u00a0", " ") == "Test text-embedding-3-small: < $0.000001"
        test.click().run()
        assert not app.exception
        assert not app.error
        assert openai.bill().calls == before + turn
        assert "openai/text-embedding-3-small answered in" in words(app)
        assert "1,536 dimensions, < $0.000001" in words(app)


def test_a_provider_that_refuses_the_key_is_words(data: Path, open_page: Open, openai: Sandbox) -> None:
    """What the provider said, what to do, and never the key itself."""
    host().router.set_key("openai", "a key with spaces")
    app = open_page("connections")
    app.button(key="test openai").click().run()
    assert not app.exception
    assert "holds a space" in app.error[0].value
    assert "a key with spaces" not in words(app)


def test_a_policy_that_does_not_allow_the_provider_says_so(data: Path, open_page: Open) -> None:
    """No button that would be refused."""
    host().router.set_key("openai", KEY)
    app = open_page("connections")
    app.selectbox(key="test policy").set_value("local").run()
    assert not app.exception
    assert all(b.key != "test openai" for b in app.button)
    assert "local" in words(app)


def test_an_endpoint_of_ones_own_has_its_card(data: Path, open_page: Open) -> None:
    """From router.toml; its address and limits are shown, and there is nothing to type where it asks for no key."""
    data.mkdir()
    (data / "router.toml").write_text('[endpoints.mine]\nbase_url = "http://127.0.0.1:9/v1"\nmax_texts_per_call = 8\n')
    app = open_page("connections")
    assert not app.exception
    assert "http://127.0.0.1:9/v1" in words(app).replace("⁠", "")
    assert "8 texts a call" in words(app)
    assert all(field.key != "key mine" for field in app.text_input)


def test_today_is_priced_by_the_price_that_holds_today() -> None:
    """A price that begins tomorrow is not shown as today's."""
    model = host_free_model()
    rows = prices.models([model], today=date(2026, 12, 1), configured=lambda _: True, scale="RTEB-en")
    assert rows[0]["now"] == "$2"
    rows = prices.models([model], today=date(2026, 11, 30), configured=lambda _: True, scale="RTEB-en")
    assert rows[0]["now"] == "$1"


def host_free_model():  # type: ignore[no-untyped-def]  # a Model with two prices
    from router.domain.values import Limits, Model, Price

    source = {"source": "a test", "checked": date(2026, 11, 1)}
    prices = (
        Price(since=date(2026, 11, 1), now=Decimal(1), **source),
        Price(since=date(2026, 12, 1), now=Decimal(2), **source),
    )
    return Model(
        id="a/b", provider="a", name="b", space="a/b", dimensions=4, default_dimensions=4, tokenizer="bytes",
        limits=Limits(texts_per_call=8), prices=prices,
    )  # fmt: skip
