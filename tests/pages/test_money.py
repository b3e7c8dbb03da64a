"""Alerts, unconfirmed charges, latency, replay, the exports, and jobs in the sidebar's footer."""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from pages.components import charts, spend_view, tables
from pages.components.format import md
from pages.components.replay import sentence
from router.domain.money import show
from router.domain.values import Budget
from router.host import host
from router.reporting import figures
from router.reporting.figures import Day
from router.reporting.replay import Replay, Side
from router.sandbox import Sandbox
from router.store.usage import Slice
from tests.pages import seed
from tests.pages.test_pages import button, say_yes, tick, words

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
    warned = [w.value.replace("\\", "").replace("\u00a0", " ") for w in app.warning]
    said = [words for words in warned if "of the account" in words]
    assert len(said) == 1
    assert "100 % will be used" in said[0] or "80 % is used" in said[0]
    engine.run(router.policies.set_account_budgets((Budget(amount=used * 1000, window="month"),)))
    assert "of the account" not in words(open_page("overview"))


@pytest.mark.parametrize(("word", "settled"), [("Confirm", True), ("Strike", False)])
def test_an_unconfirmed_charge_is_reconciled(word: str, settled: bool, busy: Path, open_page: Open) -> None:
    """Picked and confirmed it is settled, struck it is gone; the books and the page agree."""
    ledger = host().router.ledger
    before, amount, _ = ledger.totals()
    assert amount > 0
    app = open_page("spend")
    assert button(app, word).disabled
    tick(app, "unconfirmed", 0)
    label = md(f"{word} 1 charge, {show(amount)}")
    button(app, label).click().run()
    assert ledger.totals()[:2] == (before, amount)  # it only asks
    assert f"1 charge, {show(amount)}:" in words(app)
    say_yes(app, label)
    assert not app.exception
    assert ledger.totals()[:2] == (before + amount * settled, 0)
    assert ledger.unconfirmed() == []
    assert "Unconfirmed charges" not in words(app)


def test_latency_is_shown_by_route(busy: Path, open_page: Open) -> None:
    """A row for each route that answered requests."""
    app = open_page("spend")
    table = next(d.value for d in app.dataframe if "p50" in d.value.columns)
    assert len(table) >= 1
    assert all(value.endswith("s") for value in table["p95"])


# ---- spend -------------------------------------------------------------------------------------


def test_a_bar_in_the_url_shows_its_requests_and_their_sum_is_the_bar(busy: Path, open_page: Open) -> None:
    """By every group, a day or an hour a bar; taken back, all requests are there again."""
    router = host().router
    today = figures.today(router.clock(), "UTC")
    days = figures.days(router.usage, first=today - timedelta(days=6), last=today, zone="UTC", by="provider")
    day = max(days, key=lambda d: d.spent)
    app = open_page("spend", range="7d", by="provider", bar=day.day.isoformat(), of="voyage")
    assert not app.exception
    (said,) = re.findall(r"(\d+) requests?, (\$[\d.]+) together", words(app))
    paid = day.groups["voyage"].charged + day.groups["voyage"].unconfirmed
    assert said[1] == show(paid)
    table = next(d.value for d in app.dataframe if "why" in d.value.columns)
    assert len(table) == int(said[0])
    assert set(table["model"]) == {"voyage/voyage-4-large"}
    app.button(key="all requests").click().run()
    assert "Latest requests" in words(app)
    assert "bar" not in app.query_params

    hours = figures.hours(router.usage, first=day.day, last=day.day, zone="UTC", by="policy")
    hour = max(hours, key=lambda d: d.spent)
    name = max(hour.groups, key=lambda n: hour.groups[n].charged)
    app = open_page("spend", range="7d", step="hour", by="policy", bar=f"{hour.day:%Y-%m-%dT%H:00Z}", of=name)
    assert "Spent an hour, by policy" in words(app)
    assert f"{show(hour.groups[name].charged + hour.groups[name].unconfirmed)} together" in words(app)


@pytest.mark.parametrize(
    "written",
    ["", "soon", "2026-99-99", "0001-01-01", "9999-12-31T23:00-14:00", "2026-11-01T10:00", "T", "2026-11-01 10"],
)
def test_what_is_no_bar_is_none(written: str) -> None:
    """What somebody wrote into the URL by hand; an hour without its offset could be two."""
    assert spend_view.start_of(written, "Europe/Paris") in (None, date(2026, 11, 1))
    assert spend_view.start_of("2026-11-01", "Europe/Paris") == date(2026, 11, 1)
    hour = spend_view.start_of("2026-11-01T10:00Z", "Europe/Paris")
    assert f"{hour:%H:%M}" == "11:00"


def test_a_bar_without_requests_says_so(busy: Path, open_page: Open) -> None:
    """A link to a day of which nothing is left, and to a group that never was."""
    app = open_page("spend", bar="2001-01-01", of="<b>")
    assert not app.exception
    assert "No request was charged here." in words(app)


def test_older_requests_come_page_by_page(data: Path, open_page: Open) -> None:
    """Older and newer, until there are no more; another view begins with its newest."""
    seed.write(data, now=time.time(), days=20, requests_a_day=6)
    app = open_page("spend")

    def first() -> str:
        return str(next(d.value for d in app.dataframe if "why" in d.value.columns).iloc[0].to_dict())

    newest = first()
    assert app.button(key="newer").disabled
    app.button(key="older").click().run()
    assert first() != newest
    assert not app.button(key="newer").disabled
    app.button(key="older").click().run()
    assert app.button(key="older").disabled
    app.button(key="newer").click().run()
    app.button(key="newer").click().run()
    assert first() == newest
    app.button(key="older").click().run()
    app.selectbox(key="only").set_value("default").run()
    assert not app.exception
    assert all(b.key != "newer" for b in app.button) or app.button(key="newer").disabled


def test_days_of_ones_own_are_asked_for(busy: Path, open_page: Open) -> None:
    """From and to; a part of the whole, with the end of its last day."""
    router = host().router
    today = figures.today(router.clock(), "UTC")
    app = open_page("spend", range="dates")
    app.date_input(key="dates").set_value((today - timedelta(days=5), today - timedelta(days=3))).run()
    assert not app.exception
    span = {"since": figures.bounds_of(today - timedelta(days=5), "UTC")[0]}
    found = figures.totals(router.usage, **span, until=figures.bounds_of(today - timedelta(days=3), "UTC")[1])
    assert app.metric[0].value.replace("\\", "") == show(found.spent)


def test_the_account_has_a_zone(busy: Path, open_page: Open) -> None:
    """Chosen beside its budget; days of pages that look at the whole account are then its own."""
    app = open_page("policies")
    (zone,) = [box for box in app.selectbox if str(box.key).startswith("zone account/")]
    zone.set_value("Asia/Tokyo").run()
    assert "time zone: UTC → Asia/Tokyo" in words(app)
    button(app, "Save the account budget").click().run()
    assert not app.exception
    assert host().router.policies.account_zone() == "Asia/Tokyo"
    assert "Times in Asia/Tokyo." in words(open_page("spend"))
    assert "Times in Asia/Tokyo." in words(open_page("overview"))


def test_an_hour_that_comes_twice_is_two_bars() -> None:
    """The night in which the clocks go back: one place on the wall, two hours, each chosen by itself."""
    zone = ZoneInfo("Europe/Paris")
    twice = [datetime(2026, 10, 25, 2, tzinfo=zone, fold=fold) for fold in (0, 1)]
    hours = [figures.hour_at(d.timestamp(), "Europe/Paris") for d in twice]
    assert [spend_view.start_of(f"2026-10-25T0{n}:00Z", "Europe/Paris") for n in (0, 1)] == hours
    assert [figures.bounds_of_bucket(h, "Europe/Paris")[0] for h in hours] == [1792886400.0, 1792890000.0]
    figure = charts.spent(hours, {"api": [1, 2]}, chosen=(hours[1], "api"))
    assert list(figure.data[0].x) == [datetime(2026, 10, 25, 2)] * 2
    assert list(figure.data[0].marker.opacity) == [0.3, 1.0]


def test_the_collections_that_cost_most_come_first() -> None:
    """What belongs to none is not one."""
    sums = dict.fromkeys([name for name in Slice.__dataclass_fields__ if name != "key"], 0)
    groups = {name: Slice(key="", **sums | {"charged": paid}) for name, paid in (("", 9), ("a", 1), ("b", 5), ("c", 0))}
    assert [row["collection"] for row in tables.collections(groups, most=2)] == ["b", "a"]


def test_hours_are_exported_as_moments() -> None:
    """With their offset in CSV, in UTC in Parquet."""
    sums = dict.fromkeys([name for name in Slice.__dataclass_fields__ if name != "key"], 3)
    hour = datetime(2026, 11, 1, 14, tzinfo=ZoneInfo("Europe/Paris"))
    report = [Day(day=hour, groups={"=1+1": Slice(key="", **sums)})]
    assert tables.by_day_csv(report, "policy", "hour").splitlines()[1].startswith("2026-11-01T14:00:00+01:00,'=1+1,3,")
    row = pq.read_table(io.BytesIO(tables.by_day_parquet(report, "policy", "hour"))).to_pylist()[0]
    assert row["hour"] == hour


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
    draft = Side(cost=2_100_000_000, routes=Counter(cache=71, local=22, api=7), models=Counter({"a/b": 100}))
    real = Side(cost=3_120_000_000, routes=Counter(cache=71, api=29), models=Counter({"a/b": 100}), refused=2)
    found = Replay(requests=9, changed=3, estimated=0, draft=draft, real=real, left_out={})
    assert sentence(found) == "$2.10 instead of $3.12; 71 % cache, 22 % local, 7 % API; 0 refused (really 2)."
    about = Replay(requests=9, changed=3, estimated=1, draft=draft, real=draft, left_out={})
    assert sentence(about) == "likely $2.10 instead of $2.10; 71 % cache, 22 % local, 7 % API; 0 refused."


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
        assert "0 of 1 request would have been answered differently." in words(app)
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


# ---- jobs in the footer ------------------------------------------------------------------------


def test_open_jobs_are_in_the_footer_of_every_page(
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


def test_the_most_expensive_requests_are_those_of_all(data: Path, open_page: Open) -> None:
    """On Spend, page by page and behind a bar, and on the Overview: not the rows that were loaded, sorted."""
    seed.write(data, now=time.time(), days=25, requests_a_day=6)
    conn = host().router.usage.database.reader()
    truth = [
        show(cost).replace("\\", "")
        for (cost,) in conn.execute("SELECT charged + unconfirmed FROM requests ORDER BY 1 DESC, at DESC, id DESC")
    ]

    def costs(app: AppTest) -> list[str]:
        table = next(d.value for d in app.dataframe if "why" in d.value.columns)
        return [cost.removesuffix(" ?") for cost in table["cost"]]

    assert len(truth) > 100
    app = open_page("spend", sort="most expensive")
    assert not app.exception
    assert costs(app) == truth[:50]
    app.button(key="older").click().run()
    assert costs(app) == truth[50:100]
    app.segmented_control(key="sort").set_value("newest").run()
    assert "Latest requests" in words(app)
    assert app.button(key="newer").disabled
    assert costs(open_page("overview", sort="most expensive")) == truth[:10]

    router = host().router
    today = figures.today(router.clock(), "UTC")
    days = figures.days(router.usage, first=today - timedelta(days=6), last=today, zone="UTC", by="provider")
    day = max(days, key=lambda d: d.spent)
    app = open_page("spend", range="7d", by="provider", bar=day.day.isoformat(), of="openai", sort="most expensive")
    assert not app.exception
    behind = figures.behind(router.usage, day.day, "UTC", by="provider", of="openai", limit=50)
    assert costs(app) == [show(a) for a in sorted((r["paid"] + r["unsure"] for r in behind), reverse=True)]
