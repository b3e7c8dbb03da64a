"""Figures in words, and the escape for what comes from outside."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.components import bars, charts, format, tables, widgets
from pages.components.format import (
    ROUTES,
    charged,
    count,
    day,
    estimate,
    estimates,
    latency,
    md,
    percent,
    plural,
    quality,
    seconds,
    size,
    when,
)
from router.domain.values import ROUTES as ROUTE_NAMES
from router.domain.values import Saved
from router.reporting.figures import Day, Forecast
from router.store.usage import Slice

ROOT = Path(__file__).resolve().parents[2]


@given(st.text(alphabet=st.sampled_from("ab $*_`[]()<>:{}#+-.!|~\\&\"'^=@/\n\t1"), max_size=60))
def test_an_escaped_text_has_no_active_sign(text: str) -> None:
    """Each sign that Markdown knows has a backslash before it, and the text is all there."""
    shown = md(text)
    assert re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]()#+\-.!|<>~$:&\"'^=@/]", shown) is None
    assert re.sub(r"\\(.)", r"\1", shown).replace("\u2060", "").replace("\u00a0", " ") == re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("text", [":material/bolt:", ":red[x]", ":smile:", "http://x.y", "www.x.y", "a@b.c"])
def test_a_directive_emoji_or_link_is_broken_up(text: str) -> None:
    """Streamlit and GitHub's Markdown look for these in the text itself, where a backslash is no longer seen."""
    seen = re.sub(r"\\(.)", r"\1", md(text))
    assert "\u2060" in seen
    assert text not in seen


def test_figures_in_words() -> None:
    """The forms that ui.md shows."""
    assert [count(n) for n in (0, 812, 9_999, 51_234, 1_240_000)] == ["0", "812", "9,999", "51.2 k", "1.24 M"]
    shares = [percent(x) for x in (None, 0.0, 0.0002, 0.004, 0.84, 1.0)]
    assert shares == ["–", "0 %", "< 0.1 %", "0.4 %", "84 %", "100 %"]
    assert md("84 % of < $1") == "84\u00a0% of \\<\u00a0\\$1", "a figure and its unit stay on one line"
    assert [size(n) for n in (812, 9_999, 51_234)] == ["812 B", "9,999 B", "51.2 kB"]
    times = (0.0, 0.038, 1.23, 9.96, 240, 9_000, 86_400)
    assert [seconds(x) for x in times] == ["< 1 ms", "38 ms", "1.2 s", "10 s", "4 min", "2.5 h", "24 h"]
    assert [latency(x) for x in (0.0, 38.0)] == ["–", "38 ms"]
    assert [estimate(n, n) for n in (None, 0, 5, 3_100_000)] == ["price unknown", "free", "< $0.000001", "≈ $0.0031"]
    assert estimate(35_000_000, 190_000_000) == "likely $0.0350, at most $0.19"
    assert estimate(0, 5) == "likely $0.00, at most < $0.000001"
    assert estimate(3_100_000, 3_100_004) == "≈ $0.0031"  # which read the same


def test_a_table_has_likely_under_likely() -> None:
    """Two cells; the second is empty where it adds nothing, and old records have only that one."""
    assert estimates("likely", 35_000_000, 190_000_000) == {"likely": "$0.0350", "at most": "$0.19"}
    assert estimates("batch", 3_100_000, 3_100_004) == {"batch": "$0.0031", "batch, at most": ""}
    assert estimates("likely", None, 3_100_000) == {"likely": "–", "at most": "$0.0031"}
    assert estimates("likely", 0, 0) == {"likely": "free", "at most": ""}
    assert estimates("likely", None, None) == {"likely": "price unknown", "at most": ""}
    assert [charged(a, b) for a, b in ((3_100_000, 0), (0, 3_100_000))] == ["$0.0031", "$0.0031 ?"]
    assert [plural(n, "text") for n in (1, 2, 1_200)] == ["1 text", "2 texts", "1,200 texts"]
    assert [quality(q) for q in (None, 54.8)] == ["–", "54.8"]
    assert when(1_795_269_780, "Europe/Paris") == "21 Nov 15:03"
    assert day(date(2026, 11, 3)) == "3 November"


def test_a_sparkline_is_a_sentence() -> None:
    """For those who cannot see it: where it begins, where it ends, its highest; or that there is nothing."""
    days = [date(2026, 11, n) for n in (1, 2, 3)]
    words = widgets.course(dict(zip(days, (5_000_000, 40_000_000, 0), strict=True)), format.usd)
    assert words == "$0.0050 on 1 November, $0.00 on 3 November, highest $0.0400 on 2 November."
    assert widgets.course(dict.fromkeys(days, 0.0), percent) == "0 % throughout, 1 November to 3 November."


def test_every_route_has_a_look_of_its_own_and_the_theme_has_its_hue() -> None:
    """One hue a route, everywhere: the badges' names in the theme are the charts' hues."""
    assert set(ROUTE_NAMES) < set(ROUTES)
    assert len({look.hue for look in ROUTES.values()}) == len({look.icon for look in ROUTES.values()}) == len(ROUTES)
    theme = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())["theme"]
    for look in ROUTES.values():
        if look.colour != "gray":
            assert theme["light"][f"{look.colour}Color"] == theme["dark"][f"{look.colour}Color"] == look.hue


def test_a_gauge_is_neutral_then_amber_then_red() -> None:
    """Under 80 %, up to 100 %, spent; and its length never passes the track."""
    assert [bars.gauge_hue(x) for x in (0.79, 0.8, 0.99, 1.0, 1.7)] == [
        bars.NEUTRAL, bars.AMBER, bars.AMBER, bars.RED, bars.RED,
    ]  # fmt: skip
    assert "width:100.00%" in bars.gauge(1.7, "x")


def test_a_bar_escapes_what_it_is_given() -> None:
    """A policy's name is shown as text, also inside an attribute."""
    for html in (bars.gauge(0.5, '"><script>x</script>'), bars.parts([('"><script>x</script>', "#000000", 1.0)])):
        assert "<script>" not in html
        assert '""' not in html


# ---- charts ------------------------------------------------------------------------------------

DAYS = [date(2026, 11, d) for d in (1, 2, 3)]


def test_savings_are_below_the_line_and_nothing_is_lost() -> None:
    """Spent is above zero, saved below; a day without either is drawn as zero; hovering shows the dollars in words."""
    figure = charts.spent_and_saved(DAYS, {"api": [2_000_000_000, 0, 10]}, {"cache": [1_000_000_000, 0, 5]})
    spent, saved = figure.data
    assert list(spent.y) == [2.0, 0.0, 1e-8]
    assert list(saved.y) == [-1.0, 0.0, -5e-9]
    assert list(saved.customdata) == ["$1.00", "$0.00", "< $0.000001"]
    assert spent.marker.color == ROUTES["api"].hue
    assert saved.marker.color == ROUTES["cache"].hue
    assert saved.marker.pattern.shape == "/"


@pytest.mark.parametrize("top", [0, 1, 40_000, 3_120_000_000, 9_999_000_000_000])
def test_a_dollar_axis_names_its_ticks_alike(top: int) -> None:
    """From nothing to thousands: a few ticks, zero among them, all with as many decimals, none of them twice."""
    axis = charts.spent(DAYS, {"api": [top, 0, 0]}).layout.yaxis
    assert 0 in axis.tickvals
    assert len(axis.tickvals) <= 7
    assert len(set(axis.ticktext)) == len(axis.ticktext)
    assert len({len(text.partition(".")[2]) for text in axis.ticktext}) == 1


def test_a_name_from_outside_is_text_in_a_chart() -> None:
    """Plotly would read `<b>` in a name."""
    figure = charts.spent(DAYS, {"<b>x</b>": [1, 2, 3], "": [1, 1, 1]})
    assert [bar.name for bar in figure.data] == ["&lt;b&gt;x&lt;/b&gt;", "(none)"]


def test_the_running_total_is_drawn_with_limit_and_band() -> None:
    """The band starts at today's total and ends at the window's end; a far limit is named and does not flatten."""
    ahead = Forecast(
        expected=6_000_000_000, low=5_000_000_000, high=7_000_000_000, per_day=1, days=3, ends=date(2026, 11, 30),
        runs_out=None,
    )  # fmt: skip
    figure = charts.cumulative(DAYS, [1, 2, 3_000_000_000], 10_000_000_000, ahead, until=date(2026, 11, 30))
    line, band, forecast = figure.data
    assert list(line.y)[-1] == 3.0
    assert list(band.y) == [3.0, 7.0, 5.0, 3.0]
    assert list(forecast.y) == [3.0, 6.0]
    assert figure.layout.yaxis.range[1] > 10
    far = charts.cumulative(DAYS, [1, 2, 3], 10_000_000_000, None, until=date(2026, 11, 30))
    assert far.layout.yaxis.range[1] < 1
    assert "far above" in far.layout.annotations[0].text


# ---- tables ------------------------------------------------------------------------------------


def test_no_cell_of_the_csv_is_active() -> None:
    """A collection may be called like a formula; a spreadsheet must not run it. Amounts have all nine decimals."""
    sums = dict.fromkeys([name for name in Slice.__dataclass_fields__ if name != "key"], 1)
    report = [Day(day=DAYS[0], groups={"=1+1": Slice(key="", **sums), "plain": Slice(key="", **sums)})]
    header, first, second = tables.by_day_csv(report, "collection").splitlines()
    assert header.startswith("day,collection,requests,texts,tokens,spent_usd")
    assert first.startswith("2026-11-01,'=1+1,1,2,1,0.000000001")
    assert ",plain," in second


def test_causes_are_named_largest_first() -> None:
    """Causes without an amount are left out."""
    rows = tables.causes(Saved(cache=1_000_000_000, local=3_000_000_000))
    assert [(r["cause"], r["saved"], r["share"]) for r in rows] == [
        ("Local model", "$3.00", "75 %"), ("Embedded before", "$1.00", "25 %"),
    ]  # fmt: skip
