"""Alerts, unconfirmed charges, latency, replay, the exports, and jobs at the sidebar's foot."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from pages.components import charts, tables
from pages.components.replaying import sentence
from router.domain.values import Budget, RouteCounts
from router.host import host
from router.replay import Replay, Side
from router.reports import Day
from router.sandbox import Sandbox
from router.store.usage import Slice
from tests.pages.test_pages import button, words

Open = Callable[..., AppTest]


def test_a_reached_threshold_is_said_on_the_overview(busy: Path, open_page: Open) -> None:
    """Each budget once, with the highest of its thresholds; one whose amount was changed is another budget."""
    engine = host()
    router = engine.router
    used = router.ledger.states("")[0].used
    engine.run(router.policies.set_account_budgets((Budget(amount=used + 1, window="month"),)))
    engine.run(router.alerts.check())
    app = open_page("overview")
    assert not app.exception
    said = [w.value.replace("\\", "") for w in app.warning if "of the account" in w.value.replace("\\", "")]
    assert len(said) == 1
    assert "100 % will be used" in said[0] or "80 % is used" in said[0]
    engine.run(router.policies.set_account_budgets((Budget(amount=used * 1000, window="month"),)))
    assert "of the account" not in words(open_page("overview"))


@pytest.mark.parametrize(("key", "settled"), [("confirm", True), ("strike", False)])
def test_an_unconfirmed_charge_is_reconciled(key: str, settled: bool, busy: Path, open_page: Open) -> None:
    """Picked and confirmed it is settled, struck it is gone; the books and the page agree."""
    ledger = host().router.ledger
    before, amount, _ = ledger.totals()
    assert amount > 0
    app = open_page("spend")
    assert app.button(key="confirm").disabled
    app.session_state["unconfirmed"] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    app.run()
    assert not app.button(key=key).disabled
    app.button(key=key).click().run()
    assert not app.exception
    assert ledger.totals()[:2] == (before + amount * settled, 0)
    assert ledger.unconfirmed() == []
    assert "Unconfirmed charges" not in words(app)


def test_latency_is_shown_by_route(busy: Path, open_page: Open) -> None:
    """A row for each route that answered requests."""
    app = open_page("spend")
    table = next(d.value for d in app.dataframe if "half within" in d.value.columns)
    assert len(table) >= 1
    assert all(value.endswith("s") for value in table["p95"])


def test_the_parquet_export_has_exact_amounts(busy: Path, open_page: Open) -> None:
    """Whole nanodollars, days as days."""
    sums = dict.fromkeys([name for name in Slice.__dataclass_fields__ if name != "key"], 3)
    report = [Day(day=date(2026, 11, 1), groups={"=1+1": Slice(key="", **sums)})]
    table = pq.read_table(io.BytesIO(tables.by_day_parquet(report, "collection")))
    row = table.to_pylist()[0]
    assert (row["day"], row["collection"], row["spent_nanodollars"]) == (date(2026, 11, 1), "=1+1", 3)
    assert pq.read_table(io.BytesIO(tables.by_day_parquet([], "route"))).num_rows == 0


def test_causes_have_their_amounts_beside_the_bars() -> None:
    """Largest on top, in dollars."""
    figure = charts.causes([("Embedded before", 3_000_000_000), ("<b>x</b>", 1_000_000_000)])
    assert list(figure.data[0].text) == ["$3.00", "$1.00"]
    assert list(figure.data[0].y) == ["Embedded before", "&lt;b&gt;x&lt;/b&gt;"]
    assert figure.layout.yaxis.autorange == "reversed"


# ---- replay ------------------------------------------------------------------------------------


def test_a_replay_is_a_sentence() -> None:
    """As ui.md has it; what was really refused is said where it differs, estimates carry their sign."""
    draft = Side(cost=2_100_000_000, routes=RouteCounts(cache=71, local=22, api=7), models={"a/b": 100})
    real = Side(cost=3_120_000_000, routes=RouteCounts(cache=71, api=29), models={"a/b": 100}, refused=2)
    found = Replay(requests=9, changed=3, estimated=0, draft=draft, real=real, left_out={})
    assert sentence(found) == "$2.10 instead of $3.12; 71 % cache, 22 % local, 7 % API; 0 refused (really 2)."
    about = Replay(requests=9, changed=3, estimated=1, draft=draft, real=draft, left_out={})
    assert sentence(about) == "≈ $2.10 instead of $2.10; 71 % cache, 22 % local, 7 % API; 0 refused."


def test_a_draft_is_replayed_before_it_is_saved(data: Path, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy in force comes to what was; a draft that was changed since then is not shown the old figures."""
    with Sandbox() as provider:
        for name, value in provider.environment.items():
            monkeypatch.setenv(name, value)
        engine = host()
        engine.run(engine.router.embed(["one", "two", "two"], model="openai/text-embedding-3-small"))
        app = open_page("policies", policy="default")
        app.button(key="replay").click().run()
        assert not app.exception
        assert "0 of 1 request would have come to something else." in words(app)
        assert "instead of < $0.000001; 100 % API; 0 refused." in words(app)
        app.toggle(key="normalise default/1").set_value(True).run()
        assert "instead of" not in words(app)
        assert engine.router.policies.get("default").version == 1


def test_a_draft_with_a_mistake_is_not_replayed(data: Path, open_page: Open) -> None:
    """The mistake is named, and there is no button for it."""
    app = open_page("policies", policy="default")
    app.text_input(key="amount 0 default/1").set_value("five").run()
    assert not app.exception
    assert all(b.key != "replay" for b in app.button)


# ---- jobs at the foot --------------------------------------------------------------------------


def test_open_jobs_stand_at_the_foot_of_every_page(
    data: Path, open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how far they are; none, once they have ended."""
    monkeypatch.setenv("ROUTER_WORKER", "0")
    engine = host()
    path = tmp_path / "a.txt"
    path.write_text("a text about invoices")
    engine.run(engine.library.create("mine", policy="local"))
    engine.run(engine.library.add_files("mine", [path]))
    job = engine.run(engine.library.confirm("mine"))
    app = open_page("spend")
    assert not app.exception
    assert [bar.text for bar in app.sidebar.progress] == ["0 of 1 text · free"]
    engine.run(engine.library.cancel(job.id))
    assert not open_page("spend").sidebar.progress
    app = open_page("policies")
    assert button(app, "New policy")
