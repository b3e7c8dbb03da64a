"""Plotly figures. No Streamlit here; Plotly itself is imported when the first figure is drawn.

The page gives every chart an `alt`: a sentence that states the finding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from html import escape  # Plotly interprets some HTML in names
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pages.components.format import AMBER, RED, ROUTES, usd
from router.domain.money import NANO
from router.reporting.figures import Forecast

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIG = {"displayModeBar": False, "responsive": True}
"""For `st.plotly_chart(config=...)`: no tool bar."""

PALETTE = ("#D97A00", "#3D6FD6", "#0B9A8D", "#8557D3", "#B0477E", "#5F7F2A", "#7A868C")
"""For groups that are not routes."""
GRID = "rgba(128,128,128,0.18)"
QUIET = "rgba(128,128,128,0.9)"


def spent_and_saved(
    days: Sequence[date], spent: Mapping[str, Sequence[int]], saved: Mapping[str, Sequence[int]]
) -> Figure:
    """A column a day: spending above the zero line, savings below it, hatched. Nanodollars by route."""
    figure = _figure(days, height=280)
    for name, amounts in spent.items():
        figure.add_bar(**_bar(days, amounts, name, spent, "spent"))
    for name, amounts in saved.items():
        bar = _bar(days, [-a for a in amounts], name, saved, "saved")
        bar["marker"] |= {"opacity": 0.45, "pattern": {"shape": "/", "size": 5, "solidity": 0.45}}
        figure.add_bar(**bar)
    _dollars(figure, [*spent.values(), *([-a for a in amounts] for amounts in saved.values())])
    figure.add_hline(y=0, line_width=1, line_color=QUIET)
    return figure.update_layout(barmode="relative", bargap=0.25)


def spent(days: Sequence[date], groups: Mapping[str, Sequence[int]], chosen: tuple[date, str] | None = None) -> Figure:
    """A column a day or hour, stacked by group; all but the `chosen` bar are dimmed. Nanodollars.

    Hovering shows one bar and not its whole column, since a click chooses one bar.
    """
    figure = _figure(days, height=260)
    for name, amounts in groups.items():
        bar = _bar(days, amounts, name, groups)
        if chosen is not None:
            bar["marker"]["opacity"] = [1.0 if (day, name) == chosen else 0.3 for day in days]
        bar["hovertemplate"] = "%{fullData.name}<br>%{x}<br>%{customdata}<extra></extra>"
        figure.add_bar(**bar)
    _dollars(figure, list(groups.values()))
    return figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")


def cumulative(
    days: Sequence[date], totals: Sequence[int], limit: int | None, ahead: Forecast | None, *, until: date
) -> Figure:
    """A window's running total against its limit, with the forecast and its range. Nanodollars."""
    figure = _figure(days, height=260)

    def line(x: Sequence[date], amounts: Sequence[int], name: str, **look: Any) -> None:
        shown = {"y": [a / NANO for a in amounts], "customdata": [usd(a) for a in amounts]}
        look = {"color": AMBER, **look}
        figure.add_scatter(x=x, **shown, mode="lines", name=name, line=look, hovertemplate="%{customdata}")

    line(days, totals, "spent", width=2.5, shape="hv")
    top = max(totals, default=0) / NANO
    if ahead is not None and days[-1] < ahead.ends:
        here, ends = days[-1], ahead.ends
        corners = [totals[-1], ahead.high, ahead.low, totals[-1]]
        figure.add_scatter(
            x=[here, ends, ends, here], y=[c / NANO for c in corners], fill="toself", mode="none",
            fillcolor="rgba(217,122,0,0.16)", hoverinfo="skip", name="likely range",
        )  # fmt: skip
        line([here, ends], [totals[-1], ahead.expected], "forecast", width=1.5, dash="dot")
        top = max(top, ahead.high / NANO)
    if limit is not None:
        label, at = f"budget {usd(limit)}", limit / NANO
        near = at <= 4 * top or top == 0
        if near:
            figure.add_hline(y=at, line={"color": RED, "width": 1.5, "dash": "dash"})
            top = max(top, at)
        else:  # a line far above would flatten the curve
            label += " is far above"
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", text=label, showarrow=False, font={"color": QUIET, "size": 12},
            **({"y": at, "yanchor": "bottom"} if near else {"y": 1, "yref": "paper", "yanchor": "top"}),
        )  # fmt: skip
    figure.update_xaxes(range=[days[0], until])
    ticks = _ticks(0.0, 1.15 * top) if top else [0.0]
    return figure.update_yaxes(range=[0, max(1.15 * top, ticks[-1]) or 1], tickvals=ticks, ticktext=_labels(ticks))


def shares(days: Sequence[date], values: Sequence[float | None], name: str, hue: str) -> Figure:
    """A share (0-1) for each day; a gap for None."""
    figure = _figure(days, height=180)
    percents = [None if v is None else 100 * v for v in values]
    figure.add_scatter(
        x=_places(days), y=percents, name=name, mode="lines+markers", line={"color": hue, "width": 2},
        marker={"size": 4}, hovertemplate="%{y:.0f} %",
    )  # fmt: skip
    figure.update_yaxes(range=[0, 104], tickvals=[0, 50, 100], ticktext=["0 %", "50 %", "100 %"])
    return figure.update_layout(showlegend=False)


def causes(amounts: Sequence[tuple[str, int]]) -> Figure:
    """Saved money by cause, largest on top, the amount beside each bar. Nanodollars."""
    names, values = [escape(name, quote=False) for name, _ in amounts], [a / NANO for _, a in amounts]
    figure = _blank(44 * len(amounts) + 12, margin_t=4, showlegend=False)
    figure.add_bar(
        x=values, y=names, orientation="h", text=[usd(a) for _, a in amounts], textposition="outside",
        cliponaxis=False, hoverinfo="skip", width=0.55,
        marker={"color": ROUTES["cache"].hue, "opacity": 0.6, "pattern": {"shape": "/", "size": 5, "solidity": 0.35}},
    )  # fmt: skip
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, 1.3 * max(values)])
    return figure.update_yaxes(autorange="reversed", fixedrange=True, automargin=True, showgrid=False)


def _blank(height: int, **layout: Any) -> Figure:
    """An empty figure without background and tool bar."""
    import plotly.graph_objects as go

    figure = go.Figure(layout={"height": height, "dragmode": False, "margin": {"l": 4, "r": 4, "t": 8, "b": 4}})
    return figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", **layout)


def _figure(days: Sequence[date], *, height: int) -> Figure:
    """An empty chart in the template, over all of these days or hours."""
    hourly = isinstance(days[0], datetime)
    below = -0.26 if hourly else -0.16  # the labels of hours have two lines
    legend = {"orientation": "h", "y": below, "yanchor": "top", "x": 0, "xanchor": "left", "title": None}
    figure = _blank(height, hovermode="x unified", legend=legend, showlegend=True)
    half = timedelta(minutes=35) if hourly else timedelta(hours=13)
    first, last = _places([days[0], days[-1]])
    shared = {"zeroline": False, "fixedrange": True, "automargin": True}
    figure.update_xaxes(
        **shared, type="date", range=[first - half, last + half], showgrid=False, nticks=7,
        tickformat="%H:%M\n%-d %b" if hourly else "%-d %b", hoverformat="%-d %b %H:%M" if hourly else "%-d %b",
    )  # fmt: skip
    return figure.update_yaxes(**shared, gridcolor=GRID, gridwidth=1, nticks=5, title=None)


def _places(days: Sequence[date]) -> list[datetime]:
    """Days and hours on the axis, in local time: Plotly ignores time zones."""
    midnight = datetime.min.time()
    return [d.replace(tzinfo=None) if isinstance(d, datetime) else datetime.combine(d, midnight) for d in days]


def _bar(
    days: Sequence[date], amounts: Sequence[int], name: str, names: Iterable[str], kind: str = ""
) -> dict[str, Any]:
    """A group's bars, in its route's hue or one of the palette by its place among `names`."""
    word = ROUTES[name].word if name in ROUTES else name or "(none)"
    hue = ROUTES[name].hue if name in ROUTES else PALETTE[min(list(names).index(name), len(PALETTE) - 1)]
    return {
        "x": _places(days),
        "y": [a / NANO for a in amounts],
        "name": escape(f"{word}, {kind}" if kind else word, quote=False),
        "marker": {"color": hue, "line": {"width": 0}},
        "customdata": [usd(abs(a)) for a in amounts],
        "hovertemplate": "%{customdata}",
    }


def _dollars(figure: Figure, stacks: Sequence[Sequence[int]]) -> None:
    """A dollar axis without minus signs, since what is below zero is savings; it has a height even if all is zero."""
    columns = list(zip(*stacks, strict=True))
    top = max((sum(a for a in c if a > 0) for c in columns), default=0) / NANO
    bottom = min((sum(a for a in c if a < 0) for c in columns), default=0) / NANO
    if top == bottom == 0:
        figure.update_yaxes(range=[0, 1], tickvals=[0], ticktext=[usd(0)])
        return
    ticks = _ticks(bottom, top)
    ends = [min(1.12 * bottom, ticks[0]), max(1.12 * top, ticks[-1])]
    figure.update_yaxes(range=ends, tickvals=ticks, ticktext=_labels(ticks))


def _ticks(bottom: float, top: float) -> list[float]:
    """About five round numbers from `bottom` to `top`, including zero; the ends are rounded up if nearly reached."""
    span = top - bottom
    step = 10.0 ** math.floor(math.log10(span / 5))
    step *= next(m for m in (1, 2, 5, 10) if span / (m * step) <= 5 or m == 10)
    return [n * step for n in range(-int(-bottom / step + 0.4), int(top / step + 0.4) + 1)]


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks in dollars, all with the same number of decimals."""
    steps = [b - a for a, b in pairwise(ticks)]
    decimals = max(2, -math.floor(math.log10(steps[0]) + 1e-9)) if steps else 2
    return [f"${abs(t):,.{decimals}f}" for t in ticks]
