"""Rows to Plotly figures. No Streamlit here, and Plotly itself is imported when the first figure is drawn.

Every chart has an `alt` of its own beside it on the page: a sentence that states the finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pages.components.format import AMBER, RED, ROUTES, usd
from router.domain.money import NANO
from router.reporting.figures import Forecast

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIG = {"displayModeBar": False, "responsive": True}
"""For `st.plotly_chart(config=...)`: no tool bar over a small chart."""

PALETTE = ("#D97A00", "#3D6FD6", "#0B9A8D", "#8557D3", "#B0477E", "#5F7F2A", "#7A868C")
"""For groups that are not routes."""
GRID = "rgba(128,128,128,0.18)"
QUIET = "rgba(128,128,128,0.9)"


def spent_and_avoided(
    days: Sequence[date], spent: Mapping[str, Sequence[int]], avoided: Mapping[str, Sequence[int]]
) -> Figure:
    """A day a column: what was spent stands on the line, what was avoided hangs from it, hatched. Nanodollars."""
    figure = _figure(days, height=280)
    for name, amounts in spent.items():
        figure.add_bar(**_bar(days, amounts, name, "spent", hue_of(name, list(spent))))
    names = list(avoided)
    for name, amounts in avoided.items():
        bar = _bar(days, [-a for a in amounts], name, "avoided", hue_of(name, names))
        bar["marker"] |= {"opacity": 0.45, "pattern": {"shape": "/", "size": 5, "solidity": 0.45}}
        figure.add_bar(**bar)
    _dollars(figure, [*spent.values(), *([-a for a in amounts] for amounts in avoided.values())])
    figure.add_hline(y=0, line_width=1, line_color=QUIET)
    figure.update_layout(barmode="relative", bargap=0.25)
    return figure


def spent(days: Sequence[date], groups: Mapping[str, Sequence[int]], chosen: tuple[date, str] | None = None) -> Figure:
    """A day or an hour a column, stacked by group; all but the `chosen` bar are dimmed. Nanodollars.

    Each bar is pointed at by itself, and not with its whole column, so that a click is on one of them.
    """
    figure = _figure(days, height=260)
    for name, amounts in groups.items():
        bar = _bar(days, amounts, name, "", hue_of(name, list(groups)))
        if chosen is not None:
            bar["marker"]["opacity"] = [1.0 if (day, name) == chosen else 0.3 for day in days]
        bar["hovertemplate"] = "%{fullData.name}<br>%{x}<br>%{customdata}<extra></extra>"
        figure.add_bar(**bar)
    _dollars(figure, list(groups.values()))
    figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")
    return figure


def cumulative(
    days: Sequence[date], totals: Sequence[int], limit: int | None, ahead: Forecast | None, *, until: date
) -> Figure:
    """What the window has spent, day by day, against its limit, with the forecast and its band. Nanodollars."""
    figure = _figure(days, height=260)
    values = [t / NANO for t in totals]
    shown = {"customdata": [usd(t) for t in totals], "hovertemplate": "%{customdata}"}
    figure.add_scatter(
        x=days, y=values, name="spent", mode="lines", line={"color": AMBER, "width": 2.5, "shape": "hv"}, **shown
    )
    top = max(values, default=0.0)
    if ahead is not None and days[-1] < ahead.ends:
        here, ends = days[-1], ahead.ends
        corners = [totals[-1], ahead.high, ahead.low, totals[-1]]
        figure.add_scatter(
            x=[here, ends, ends, here], y=[c / NANO for c in corners], fill="toself", mode="none",
            fillcolor="rgba(217,122,0,0.16)", hoverinfo="skip", name="likely range",
        )  # fmt: skip
        figure.add_scatter(
            x=[here, ends], y=[totals[-1] / NANO, ahead.expected / NANO], mode="lines", name="forecast",
            line={"color": AMBER, "width": 1.5, "dash": "dot"},
            customdata=[usd(totals[-1]), usd(ahead.expected)], hovertemplate="%{customdata}",
        )  # fmt: skip
        top = max(top, ahead.high / NANO)
    if limit is not None:
        label = f"budget {usd(limit)}"
        if limit / NANO <= 4 * top or top == 0:
            figure.add_hline(y=limit / NANO, line={"color": RED, "width": 1.5, "dash": "dash"})
            figure.add_annotation(
                x=0, xref="paper", xanchor="left", y=limit / NANO, yanchor="bottom", text=label, showarrow=False,
                font={"color": QUIET, "size": 12},
            )  # fmt: skip
            top = max(top, limit / NANO)
        else:  # a line far above would press the curve flat
            figure.add_annotation(
                x=0, xref="paper", xanchor="left", y=1, yref="paper", yanchor="top", text=f"{label} is far above",
                showarrow=False, font={"color": QUIET, "size": 12},
            )  # fmt: skip
    figure.update_xaxes(range=[days[0], until])
    ticks = _ticks(0.0, 1.15 * top) if top else [0.0]
    figure.update_yaxes(range=[0, max(1.15 * top, ticks[-1]) or 1], tickvals=ticks, ticktext=_labels(ticks))
    return figure


def shares(days: Sequence[date], values: Sequence[float | None], name: str, hue: str) -> Figure:
    """A share a day (0-1), with gaps where there is none."""
    figure = _figure(days, height=180)
    percents = [None if v is None else 100 * v for v in values]
    figure.add_scatter(
        x=_places(days), y=percents, name=name, mode="lines+markers", line={"color": hue, "width": 2},
        marker={"size": 4},
        hovertemplate="%{y:.0f} %",
    )  # fmt: skip
    figure.update_yaxes(range=[0, 104], tickvals=[0, 50, 100], ticktext=["0 %", "50 %", "100 %"])
    figure.update_layout(showlegend=False)
    return figure


def causes(amounts: Sequence[tuple[str, int]]) -> Figure:
    """Avoided money by cause, largest on top, the amount beside each bar. Nanodollars."""
    import plotly.graph_objects as go

    names, values = [_plain(name) for name, _ in amounts], [a / NANO for _, a in amounts]
    figure = go.Figure()
    figure.add_bar(
        x=values, y=names, orientation="h", text=[usd(a) for _, a in amounts], textposition="outside",
        cliponaxis=False, hoverinfo="skip", width=0.55,
        marker={"color": ROUTES["cache"].hue, "opacity": 0.6, "pattern": {"shape": "/", "size": 5, "solidity": 0.35}},
    )  # fmt: skip
    figure.update_layout(
        height=44 * len(amounts) + 12, margin={"l": 4, "r": 4, "t": 4, "b": 4}, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", dragmode=False, showlegend=False,
    )  # fmt: skip
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, 1.3 * max(values)])
    figure.update_yaxes(autorange="reversed", fixedrange=True, automargin=True, showgrid=False)
    return figure


def hue_of(name: str, names: Sequence[str]) -> str:
    """A route's own hue; for another group, the next of the palette."""
    if name in ROUTES:
        return ROUTES[name].hue
    return PALETTE[min(list(names).index(name), len(PALETTE) - 1)]


# ---- the template ------------------------------------------------------------------------------


def _figure(days: Sequence[date], *, height: int) -> Figure:
    """The template: the whole stretch of days, whatever is drawn in it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 4, "r": 4, "t": 8, "b": 4},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0, "xanchor": "left", "title": None},
        showlegend=True,
        dragmode=False,
    )
    hourly = isinstance(days[0], datetime)
    figure.update_xaxes(
        showgrid=False, zeroline=False, fixedrange=True, automargin=True, nticks=7,
        tickformat="%H:%M\n%-d %b" if hourly else "%-d %b", hoverformat="%-d %b %H:%M" if hourly else "%-d %b",
    )  # fmt: skip
    half = timedelta(minutes=35) if hourly else timedelta(hours=13)
    places = _places([days[0], days[-1]])
    figure.update_xaxes(type="date", range=[places[0] - half, places[1] + half])
    if hourly:  # whose labels have two lines
        figure.update_layout(legend_y=-0.26)
    figure.update_yaxes(
        gridcolor=GRID, gridwidth=1, zeroline=False, fixedrange=True, automargin=True, nticks=5, title=None
    )
    return figure


def _places(days: Sequence[date]) -> list[datetime]:
    """Where on the axis days and hours stand: the clock on the wall, which is all that Plotly knows."""
    midnight = datetime.min.time()
    return [d.replace(tzinfo=None) if isinstance(d, datetime) else datetime.combine(d, midnight) for d in days]


def _bar(days: Sequence[date], amounts: Sequence[int], name: str, kind: str, hue: str) -> dict[str, Any]:
    word = ROUTES[name].word if name in ROUTES else name or "(none)"
    return {
        "x": _places(days),
        "y": [a / NANO for a in amounts],
        "name": _plain(f"{word}, {kind}" if kind else word),
        "marker": {"color": hue, "line": {"width": 0}},
        "customdata": [usd(abs(a)) for a in amounts],
        "hovertemplate": "%{customdata}",
    }


def _dollars(figure: Figure, stacks: Sequence[Sequence[int]]) -> None:
    """A dollar axis without minus signs: below the line is money not spent. Wide enough where all is zero."""
    columns = list(zip(*stacks, strict=True))
    top = max((sum(a for a in c if a > 0) for c in columns), default=0) / NANO
    bottom = min((sum(a for a in c if a < 0) for c in columns), default=0) / NANO
    if top == bottom == 0:
        figure.update_yaxes(range=[0, 1], tickvals=[0], ticktext=[usd(0)])
        return
    ticks = _ticks(bottom, top)
    figure.update_yaxes(
        range=[min(1.12 * bottom, ticks[0]), max(1.12 * top, ticks[-1])], tickvals=ticks, ticktext=_labels(ticks)
    )


def _ticks(bottom: float, top: float) -> list[float]:
    """About five round numbers from `bottom` to `top`, zero among them; a last one where it is nearly reached."""
    span = top - bottom
    step = 10.0 ** math.floor(math.log10(span / 5))
    step *= next(m for m in (1, 2, 5, 10) if span / (m * step) <= 5 or m == 10)
    return [n * step for n in range(-int(-bottom / step + 0.4), int(top / step + 0.4) + 1)]


def _labels(ticks: Sequence[float]) -> list[str]:
    """The ticks in dollars, all with as many decimals as the finest needs."""
    steps = [b - a for a, b in pairwise(ticks)]
    decimals = max(2, -math.floor(math.log10(steps[0]) + 1e-9)) if steps else 2
    return [f"${abs(t):,.{decimals}f}" for t in ticks]


def _plain(text: str) -> str:
    """Plotly reads a little HTML in names; text from outside has none."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
