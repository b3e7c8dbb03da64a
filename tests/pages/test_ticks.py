"""Ticked rows are what was ticked (fault 44): while others come and go, twice in a row, and when they are gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import spend_report, ticks
from pages.components.format import md
from router.domain.money import show
from router.domain.values import Unit
from router.host import host
from router.store.entries import Purpose
from router.store.usage import Outcome
from tests.pages import seed
from tests.pages.test_pages import button, say_yes, tick, words

Open = Callable[..., AppTest]


def amounts() -> list[int]:
    """What is unconfirmed, newest first, in millions of nanodollars."""
    return [row.amount // 10**6 for row in host().router.ledger.unconfirmed()]


def strike(amount: int) -> None:
    """Somebody else strikes a charge."""
    engine = host()
    (row,) = [row for row in engine.router.ledger.unconfirmed() if row.amount == amount * 10**6]
    assert engine.run(engine.router.ledger.reconcile(row.id, confirm=False))


@pytest.mark.parametrize("page", ["spend", "models"])
def test_two_actions_in_a_row_act_on_what_was_ticked(page: str, data: Path, open_page: Open) -> None:
    """After the first nothing is ticked, and the second is of its own ticks alone."""
    seed.unconfirmed(data, *(n * 10**6 for n in range(1, 7)))
    app = open_page(page)
    tick(app, "unconfirmed", 0, 2)  # 6 and 4
    say_yes(app, md("Strike 2 charges, $0.0100"))
    assert not app.exception
    assert amounts() == [5, 3, 2, 1]
    assert button(app, "Strike").disabled
    assert button(app, "Confirm").disabled
    tick(app, "unconfirmed", 1)  # 3
    say_yes(app, md("Confirm 1 charge, $0.0030"))
    assert amounts() == [5, 2, 1]
    assert host().router.ledger.totals()[:2] == (3 * 10**6, 8 * 10**6)


def test_rows_that_come_and_go_do_not_shift_a_tick(data: Path, open_page: Open) -> None:
    """Another process books a charge above the ticked one and strikes one above it: the tick stays on its own."""
    seed.unconfirmed(data, *(n * 10**6 for n in range(1, 5)))
    app = open_page("spend")
    tick(app, "unconfirmed", 2)  # 2
    seed.unconfirmed(data, 7 * 10**6, 8 * 10**6, 9 * 10**6)
    app.run()
    assert button(app, md("Strike 1 charge, $0.0020"))
    strike(4)
    tick_key = app.session_state["ticks unconfirmed"].key
    app.run()
    assert app.session_state["ticks unconfirmed"].key != tick_key
    say_yes(app, md("Strike 1 charge, $0.0020"))
    assert amounts() == [9, 8, 7, 3, 1]


def test_what_is_gone_is_said_and_nothing_takes_its_place(data: Path, open_page: Open) -> None:
    """A ticked charge that another process struck loses its tick; one struck while it is asked about is said to be."""
    seed.unconfirmed(data, *(n * 10**6 for n in range(1, 5)))
    app = open_page("spend")
    tick(app, "unconfirmed", 0, 1)  # 4 and 3
    strike(4)
    button(app, md("Strike 2 charges, $0.0070")).click().run()  # drawn before: it is of charges that are not all there
    assert amounts() == [3, 2, 1]
    assert all(b.key != "yes" for b in app.button)
    assert button(app, md("Strike 1 charge, $0.0030"))
    assert any("unconfirmed no longer" in toast.value for toast in app.toast)

    engine = host()
    rows = engine.router.ledger.unconfirmed()[:2]
    strike(3)
    app.run()
    said = spend_report.reconcile(engine, rows, confirm=False)
    assert said == f"1 charge, {show(2 * 10**6)} struck. 1 charge had been confirmed or struck elsewhere."
    assert spend_report.reconcile(engine, rows, confirm=True).startswith("Nothing was changed. 2 charges")
    assert amounts() == [1]


def test_an_open_request_stays_open_while_new_ones_come(busy: Path, open_page: Open) -> None:
    """The decision that is read is not that of the row which moved into its place."""
    app = open_page("spend")
    tick(app, "requests", 1)
    opened = next(line for line in words(app).splitlines() if line.startswith("**Request "))
    seed.unconfirmed(busy, 5)
    app.run()
    assert not app.exception
    assert opened in words(app)


def test_a_document_that_was_replaced_is_not_deleted(data: Path, open_page: Open, tmp_path: Path) -> None:
    """Ticked and asked about; meanwhile a new version took its name: that one stays, and is not what was ticked."""
    engine = host()
    engine.run(engine.library.create("mine", policy="local"))
    for name in "abc":
        (tmp_path / f"{name}.md").write_text(f"The text of {name}.")
    engine.run(engine.library.add_files("mine", [tmp_path / f"{name}.md" for name in "abc"]))
    app = open_page("collections", collection="mine")
    tick(app, "documents mine 1", 1)
    say_yes(app, "Delete 1 document, 1 chunk")
    assert [row.name for row in engine.library.documents("mine")] == ["a.md", "c.md"]
    assert all(not b.label.startswith("Delete 1 ") for b in app.button)
    tick(app, "documents mine 1", 1)
    (c,) = [row.id for row in engine.library.documents("mine") if row.name == "c.md"]
    (tmp_path / "c.md").write_text("Another text of c.")
    engine.run(engine.library.add_files("mine", [tmp_path / "c.md"]))
    app.run()
    assert all(not b.label.startswith("Delete 1 ") for b in app.button)
    assert engine.run(engine.library.delete_documents("mine", [c])) == 0
    assert [row.name for row in engine.library.documents("mine")] == ["a.md", "c.md"]


def test_a_late_click_is_on_nothing(
    data: Path, open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order whose texts have become more buys nothing; a job's button does nothing to the job that came after it."""
    monkeypatch.setenv("ROUTER_WORKER", "0")
    engine = host()
    library = engine.library
    engine.run(library.create("mine", policy="local"))

    def add(name: str) -> None:
        (tmp_path / name).write_text(f"The text of {name}.")
        engine.run(library.add_files("mine", [tmp_path / name]))

    add("a.md")
    app = open_page("collections", collection="mine")
    order = next(b for b in app.button if b.label.startswith("Embed 1 text with"))
    add("b.md")
    order.click().run()
    assert not app.exception
    assert library.jobs.all() == []
    assert any(b.label.startswith("Embed 2 texts with") for b in app.button)

    first = engine.run(library.confirm("mine"))
    app = open_page("collections", collection="mine", tab="Jobs")
    cancel = button(app, "Cancel")
    engine.run(library.cancel(first.id))
    add("c.md")
    second = engine.run(library.confirm("mine"))
    assert second.id != first.id
    cancel.click().run()
    assert not app.exception
    assert library.job(second.id).state == "queued"


def test_the_key_of_a_table_is_of_its_rows_and_their_order() -> None:
    """The same rows in the same order are the same widget, so that a page that is drawn again keeps its ticks."""
    assert ticks.key("a", [1, 2]) == ticks.key("a", (1, 2))
    assert len({ticks.key("a", ids) for ids in ([1, 2], [2, 1], [1], [12], [])}) == 5


def test_what_the_ledger_says_of_a_charge_stands_with_its_request(busy: Path, open_page: Open) -> None:
    """Why it is not the provider's own figure, and what a person made of it."""
    ledger = host().router.ledger
    (row,) = ledger.unconfirmed()
    host().run(ledger.reconcile(row.id, confirm=True))
    usage = host().router.usage
    numbers = [r["id"] for r in usage.requests(since=0, until=host().router.clock() + 1, limit=50)]
    app = open_page("spend", range="90d")
    tick(app, "requests", numbers.index(row.request))
    said = words(app)
    amount = show(row.amount)
    assert f"1 charge, {amount} unconfirmed: time-out after sending." in said
    assert f"1 charge, {amount} settled: confirmed by a person." in said


def test_usage_that_cannot_be_true_is_said_where_the_charge_is(data: Path, open_page: Open) -> None:
    """Settled at what was held because the answer named none, and the rest of what it named left to be confirmed."""
    engine, doubts = host(), ("the answer names no usage", "the answer says 900 tokens, where the texts can be 9")

    async def book() -> None:
        router = engine.router
        who = {"policy": "default", "version": 1, "collection": "", "role": "document"}
        number = await router.usage.begin(**who)
        purpose = Purpose(request=number, policy="default", model=seed.SMALL, kind=seed.SMALL, route="api")
        for at, doubt in enumerate(doubts):
            unit = Unit(digest=bytes([at]) * 32, text="", tokens=9)
            opened = await router.ledger.open(
                [[unit]], purpose, price=lambda _: 10**6, stored=lambda _: set(), sent=True
            )
            await router.ledger.settle(opened.holds[0], 10**6, 9, unconfirmed=at * 10**7, doubt=doubt)
        outcome = Outcome(status="done", model=seed.SMALL, texts=2, distinct=2, charged=2 * 10**6, unconfirmed=10**7)
        await router.usage.record(outcome, **who, request=number)

    engine.run(book())
    app = open_page("spend")
    assert app.dataframe[-2].value["why"].tolist() == [doubts[1]]  # of the unconfirmed charges
    tick(app, "requests", 0)
    said = words(app)
    assert f"1 charge, $0.0010 settled: {doubts[0]}." in said
    assert f"1 charge, $0.0010 settled: {doubts[1]}." in said
    assert f"1 charge, $0.0100 unconfirmed: {doubts[1]}." in said
