"""Every page, empty and with traffic: what it shows, what its buttons do, and that hostile text stays text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.components.background import Embedding
from pages.components.format import md
from router.domain.errors import BadInput
from router.domain.policy import from_dict
from router.domain.values import Budget, Policy
from router.host import host
from router.store.usage import Outcome

PAGES = ("overview", "route", "spend", "policies", "collections", "models", "connections")
Open = Callable[..., AppTest]


def button(app: AppTest, label: str):  # type: ignore[no-untyped-def]  # AppTest's Button is not public
    """The button with this label."""
    return next(b for b in app.button if b.label == label)


def tick(app: AppTest, name: str, *rows: int) -> None:
    """Tick these rows of a table (`ticks.table`), and no others, as the browser does: by their places."""
    key = app.session_state[f"ticks {name}"].key
    app.session_state[key] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    app.run()


def say_yes(app: AppTest, label: str) -> None:
    """Press a button and answer its question. AppTest cannot run a dialog by itself, so the button is pressed again."""
    button(app, label).click().run()
    button(app, label).click()
    app.button(key="yes").click().run()


def words(app: AppTest) -> str:
    """Everything that the page says in Markdown, captions, plain text and boxes."""
    kinds = (app.markdown, app.caption, app.text, app.error, app.warning, app.success, app.info, app.subheader)
    said = [str(element.value) for kind in kinds for element in kind] + [bar.text for bar in app.progress]
    return "\n".join(said).replace("\\", "").replace("\u00a0", " ")


def save(policy: Policy) -> None:
    """Save a policy through the engine."""
    engine = host()
    engine.run(engine.router.policies.save(policy, [m.id for m in engine.router.catalog.models]))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("state", ["data", "busy", "large"])
def test_a_page_is_drawn_without_an_error(
    name: str, state: str, open_page: Open, request: pytest.FixtureRequest
) -> None:
    """Empty, with traffic, and with a lot of it: each page has its title and its footer, and nothing went wrong."""
    request.getfixturevalue(state)
    app = open_page(name)
    assert not app.exception
    assert not app.error
    assert len(app.title) == 1
    assert app.sidebar.toggle[0].label == "Paid calls"
    assert "of $10.00 a month" in words(app)


def test_many_documents_come_page_by_page(large: Path, open_page: Open) -> None:
    """A large collection is quoted whole; of its documents and requests a page is shown, with a way to the others."""
    app = open_page("collections", collection="shelf-00")
    assert not app.exception
    assert "251 documents (251 new), 3,250 chunks: 3,250 texts" in words(app)
    assert app.number_input(key="page shelf-00").max == 3
    assert [len(table.value) for table in app.dataframe][-1] == 100
    spend = open_page("spend", range="90d")
    assert "90 days" in words(spend)
    older = button(spend, "Older").click().run()
    assert not button(older, "Newer").disabled
    assert max(len(table.value) for table in older.dataframe) <= 90 * 4


def test_an_unused_account_says_what_to_do_next(data: Path, open_page: Open) -> None:
    """No figures of nothing, but a first step; and what it takes to use paid models."""
    app = open_page("overview")
    assert not app.metric
    assert button(app, "Embed six sample texts (free, local)")
    assert "No key for a paid provider is set" in words(app)
    assert "No requests in the last 30 days" in words(open_page("spend"))


def test_the_overview_has_the_figures_of_the_books(busy: Path, open_page: Open) -> None:
    """Six figures with sparklines, the chart, the bar, and the latest requests."""
    app = open_page("overview")
    assert [m.label for m in app.metric] == ["Spent this month", "Saved", "Hit rate", "Texts", "p95", "Errors"]
    (said,) = [h.proto.body for h in app.get("html") if 'class="unseen"' in h.proto.body]
    assert all(f"{metric.label}: " in said for metric in app.metric), "what the sparklines show is not read out"
    settled, unconfirmed, _ = host().router.ledger.totals()
    assert settled > 0
    assert unconfirmed > 0
    assert len(app.dataframe[0].value) == 10
    assert "At the pace of the last 7 days" in words(app)
    assert "At this pace" in words(app)
    assert "1 other budget not used yet." in words(app)
    assert "No key for a paid provider is set" in words(app)


def test_spend_groups_and_filters_by_the_url(busy: Path, open_page: Open) -> None:
    """A shared link opens the same view; the policy's figure is a part of the whole."""
    whole = open_page("spend")
    part = open_page("spend", by="model", only="quality", range="7d")
    assert not part.exception
    assert part.selectbox(key="only").value == "quality"
    assert "Spent a day, by model" in words(part)
    assert " in 7 days" in words(part)
    assert whole.metric[0].value != part.metric[0].value
    assert "unconfirmed" in words(whole)


def test_the_kill_switch_stops_paid_calls_and_says_so(data: Path, open_page: Open) -> None:
    """What it means stands beside it; a second page sees the same; it can be turned on again."""
    app = open_page("overview")
    app.sidebar.toggle[0].set_value(False).run()
    assert not host().router.policies.paid_enabled()
    assert "Paid calls are stopped." in words(app)
    assert "The switch is at the bottom of the sidebar." in words(app)
    other = open_page("spend")
    assert other.sidebar.toggle[0].value is False
    other.sidebar.toggle[0].set_value(True).run()
    assert host().router.policies.paid_enabled()
    assert "Paid calls are stopped." not in words(other)


@pytest.mark.parametrize("name", PAGES)
def test_demo_money_is_marked_on_every_page(
    name: str, data: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may take made-up money for real; without the demo there is no such mark."""
    assert "Demo money" not in words(open_page(name))
    monkeypatch.setenv("ROUTER_DEMO", "1")
    assert open_page(name).info[0].value == "Demo money: the providers are simulated on this machine."


def test_a_folder_that_cannot_be_used_is_said_in_words(data: Path, open_page: Open) -> None:
    """A router.toml with a mistake is named with what to do, on the page, without a traceback."""
    data.mkdir()
    (data / "router.toml").write_text("[providers.nobody]\nmax_in_flight = 3\n")
    app = open_page("spend")
    assert not app.exception
    assert "unknown provider 'nobody'" in words(app)


# ---- route a text ------------------------------------------------------------------------------


def test_a_quote_has_both_figures_and_every_candidate(
    data: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mission's cost calculator: 1,000 times the same two tokens is 2,000, and 2 are paid for."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    app = open_page("route")
    assert not app.dataframe
    app.text_area(key="texts").set_value("\n".join(["Sample text"] * 1000))
    app.selectbox(key="model").set_value("openai/text-embedding-3-small").run()
    assert not app.exception
    assert "1,000 texts, 2,000 tokens: ≈ $0.000040 if each were sent." in words(app)
    assert "Without the 999 repeated: 1 text, 2 tokens: < $0.000001." in words(app)
    table = app.dataframe[0].value
    assert len(table) == len(host().router.catalog.models)
    assert list(table.iloc[0][["model", "likely", "all of them"]]) == [
        "openai/text-embedding-3-small", "< $0.000001", "$0.000040",
    ]  # fmt: skip
    assert table["why"].iloc[1:].all()
    assert app.button(key="embed").label == md("Embed 1,000 texts: < $0.000001")


def test_a_refusal_is_words_and_leaves_no_button(data: Path, open_page: Open) -> None:
    """Nothing can be pressed that would be refused."""
    app = open_page("route")
    app.text_area(key="texts").set_value("a text")
    app.selectbox(key="model").set_value("openai/text-embedding-3-small").run()
    assert not app.exception
    assert "no key for openai is set" in app.error[0].value.replace("\\", "")
    assert all(b.key != "embed" for b in app.button)
    app.selectbox(key="model").set_value("local/all-MiniLM-L6-v2")
    app.number_input(key="dimensions").set_value(5000).run()
    assert "dimensions" in app.error[0].value
    assert not app.exception


def test_a_file_is_read_row_by_row_and_a_bad_one_is_named(data: Path, open_page: Open) -> None:
    """Empty rows are skipped and counted; a file that is not what its name says is an error in words."""
    app = open_page("route")
    app.segmented_control(key="source").set_value("File").run()
    app.file_uploader(key="file").upload("rows.csv", b"id,text\n1,one\n2,\n3,three\n", "text/csv").run()
    assert not app.exception
    assert "1 empty row skipped." in words(app)
    assert "2 texts" in words(app)
    app.file_uploader(key="file").upload("rows.jsonl", b'{"id": 1}\nnot json\n', "application/json").run()
    assert not app.exception
    assert "2 rows cannot be read" in words(app)
    assert "line 1 has no 'text', only: id; line 2 is not valid JSON" in words(app)
    assert not app.dataframe
    app.file_uploader(key="file").upload("two.csv", b"n,title,body\n1,One,First\n", "text/csv").run()
    app.multiselect[0].set_value(["title", "body"]).run()
    assert not app.exception
    assert "1 text" in words(app)


# ---- policies ----------------------------------------------------------------------------------


def test_a_policy_is_edited_seen_and_saved(data: Path, open_page: Open) -> None:
    """The difference is shown before it is saved; then it is in force, as a version of its own."""
    app = open_page("policies", policy="default")
    assert "Nothing is changed yet." in words(app)
    app.text_input(key="amount 0 default/1").set_value("8").run()
    assert "budget: $5.00 a month → $8.00 a month" in words(app)
    button(app, "Save").click().run()
    assert not app.exception
    assert "Saved: default, version 2." in words(app)
    assert host().router.policies.get("default").budgets == (Budget(amount=8_000_000_000, window="month"),)
    assert "Nothing is changed yet." in words(app)


@pytest.mark.parametrize(
    "amount", ["-1", "five", "0.0000000001", "", "NaN", "inf", "-Infinity", "1e999", "1e-999", "9" * 5_000]
)
def test_a_wrong_amount_is_named_and_cannot_be_saved(amount: str, data: Path, open_page: Open) -> None:
    """Under the field and beside the form, in words; nothing is written."""
    app = open_page("policies", policy="default")
    app.text_input(key="amount 0 default/1").set_value(amount).run()
    assert not app.exception
    assert app.error
    assert len([m for m in app.markdown if ":red[" in m.value]) == 1
    assert all(b.label != "Save" for b in app.button)
    assert len(host().router.policies.versions("default")) == 1


def test_budget_rows_come_and_go_one_by_one(data: Path, open_page: Open) -> None:
    """Add two, remove the first: no edit is lost (a data_editor would drop every second one)."""
    app = open_page("policies", policy="default")
    for amount, row in (("2", 1), ("3", 2)):
        button(app, "Add a budget").click().run()
        app.text_input(key=f"amount {row} default/1").set_value(amount)
        app.selectbox(key=f"window {row} default/1").set_value("day" if row == 1 else "total").run()
    button(app, "Remove").click().run()
    button(app, "Save").click().run()
    assert not app.exception
    assert set(host().router.policies.get("default").budgets) == {
        Budget(amount=2_000_000_000, window="day"), Budget(amount=3_000_000_000, window="total"),
    }  # fmt: skip


def test_a_policy_is_created_and_deleted(data: Path, open_page: Open) -> None:
    """A new one needs a name that is free, and may begin as another is; deleting asks once more."""
    app = open_page("policies", policy="new policy")
    assert "Give the policy a name." in words(app)
    app.text_input(key="name /0").set_value("default").run()
    assert "already" in words(app)
    app.text_input(key="name /0").set_value("mine")
    app.selectbox(key="like").set_value("economy").run()
    button(app, "Save").click().run()
    mine, economy = (host().router.policies.get(name) for name in ("mine", "economy"))
    assert mine.version == 1
    assert (mine.goal, mine.budgets) == (economy.goal, economy.budgets)
    assert app.query_params["policy"] == "mine"
    button(app, "Delete the policy").click().run()
    assert not app.exception
    assert "Deleted: mine." in words(app)
    assert "mine" not in [p.name for p in host().router.policies.all()]


def test_the_default_policy_is_kept(data: Path, open_page: Open) -> None:
    """The engine says no, in words."""
    app = open_page("policies", policy="default")
    button(app, "Delete the policy").click().run()
    assert not app.exception
    assert "cannot be deleted" in words(app)


def test_the_floor_names_the_models_that_are_left(data: Path, open_page: Open) -> None:
    """The slider says how many, and when there are none."""
    app = open_page("policies", policy="default")
    assert "2 of them with a key or installed" in words(app)
    app.slider(key="floor default/1").set_value(60.0).run()
    assert "0 of them with a key or installed" in words(app)
    app.slider(key="floor default/1").set_value(99.0).run()
    assert "No model is left" in words(app)


def test_the_account_budget_is_changed(data: Path, open_page: Open) -> None:
    """It counts from the next call on, and every page's footer shows it."""
    app = open_page("policies")
    field = next(t for t in app.text_input if t.label == "Dollars")
    field.set_value("20").run()
    assert "budget: $10.00 a month → $20.00 a month" in words(app)
    button(app, "Save the account budget").click().run()
    assert not app.exception
    assert host().router.policies.account_budgets() == (Budget(amount=20_000_000_000, window="month"),)
    assert "of $20.00 a month" in words(app)


@pytest.mark.parametrize("name", ["no such", "<b>x</b>", "$a$ :material/bolt:"])
def test_an_unknown_policy_in_the_url_is_said_and_stays_text(name: str, data: Path, open_page: Open) -> None:
    """Anybody can write a link; what is in it is shown as it is."""
    app = open_page("policies", policy=name)
    assert not app.exception
    assert app.error[0].value == f"There is no policy “{md(name)}”."
    assert button(app, "New policy")


def test_a_name_with_signs_of_markdown_is_text_everywhere(busy: Path, open_page: Open) -> None:
    """A policy may be called `_x_ - 1. y`, and a decision may hold anything."""
    name = "_x_ - 1. y"
    save(from_dict({"name": name, "budgets": [{"amount_usd": "1", "window": "month"}]}))
    hostile = "**b** $x$ <script>alert(1)</script> :material/bolt:"
    engine = host()

    outcome = Outcome(status="refused", texts=1, refused=1, decision=hostile, error=hostile)
    engine.run(engine.router.usage.record(outcome, policy=name, version=1, collection="", role="document"))
    for page, query in (
        ("overview", {}),
        ("spend", {"by": "policy"}),
        ("policies", {}),
        ("policies", {"policy": name}),
    ):
        app = open_page(page, **query)
        assert not app.exception
        raw = [str(e.value) for kind in (app.markdown, app.caption, app.subheader, app.error) for e in kind]
        assert not [text for text in raw if "_x_" in text.replace("\\_x\\_", "")]
        assert not [text for text in raw if "<script>" in text]


def test_a_picked_request_opens_its_decision(busy: Path, open_page: Open) -> None:
    """Who answered, what it cost, why, and what the others would have cost."""
    app = open_page("spend")
    before = len(app.dataframe)
    tick(app, "requests", 0)
    assert not app.exception
    assert len(app.dataframe) == before + 1
    assert "Request " in words(app)


def test_a_page_leaves_no_work_in_its_own_thread(data: Path, open_page: Open) -> None:
    """Embedding runs on the engine's loop: it goes on when the page's run has ended."""

    open_page("overview")
    engine = host()
    release = asyncio.Event()

    async def slow(*args: object, **options: object) -> None:
        await release.wait()
        raise BadInput("no")

    engine.router.embed = slow  # type: ignore[method-assign]  # stands in for a call that takes long
    work = Embedding(engine, ["a"], policy="local")
    assert not work.future.done()

    async def let_go() -> None:
        release.set()

    engine.run(let_go())
    assert isinstance(work.error, BadInput)
    assert work.result is None
