"""Spend: where the money went, what was not spent, and the requests behind it. The filters are in the URL."""

from __future__ import annotations

import streamlit as st

st.title("Spend")

from pages.components import charts, draw, drill, spending, tables  # noqa: E402  # the title is on the screen before these load
from pages.components.format import ROUTES, count, latency, md, percent, plural, usd  # noqa: E402
from router import reports  # noqa: E402
from router.host import host  # noqa: E402

engine = host()
router = engine.router
asked = spending.filters(router)
figures = reports.figures(router.usage, since=asked.since, until=asked.until, where=asked.where)

if not figures.requests:
    draw.empty(f"No requests in {md(asked.words)}.")
    st.page_link("route.py", label="Route a text", icon=":material/alt_route:")
    spending.unconfirmed(engine)
else:
    report = asked.report(router, asked.by)
    routes = report if asked.by == "route" else asked.report(router, "route")
    dates = [d.day for d in report]

    with draw.figures() as tile:
        unsure = f"{usd(figures.unconfirmed)} of it ?" if figures.unconfirmed else "all confirmed"
        tile(
            "Spent",
            usd(figures.spent),
            below=unsure,
            series={d.day: d.spent for d in report},
            colour="orange",
            help=spending.UNSURE,
        )
        tile(
            "Avoided", usd(figures.avoided.total), below="not spent", series={d.day: d.avoided for d in report},
            colour="green",
        )  # fmt: skip
        tile(
            "Hit rate", percent(figures.hit_rate), below=f"{count(figures.cached)} cached", colour="green",
            series={d.day: d.hit_rate for d in routes if d.hit_rate is not None}, show=percent,
        )  # fmt: skip
        tile(
            "Texts", count(figures.asked), below=plural(figures.requests, "request"),
            series={d.day: d.texts for d in report}, show=count,
        )  # fmt: skip
        errors = f"{figures.errors:,} not answered" if figures.errors else "all answered"
        slowest = reports.p95s(router.usage, report, zone=asked.zone, where=asked.where)
        tile(
            "p95", latency(figures.p95_ms), below=errors, series=dict(zip(dates, slowest, strict=True)), show=latency,
            help="95 of 100 requests were faster.",
        )  # fmt: skip

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Spent {'an hour' if asked.hourly else 'a day'}, by {asked.by}")
        groups = {name: [spending.spent_of(d, name) for d in report] for name in reports.group_names(report)}
        groups = {name: amounts for name, amounts in groups.items() if any(amounts)}
        finding = spending.finding(report, groups, asked.by, asked.step)
        if groups:
            drill.chart(asked, report, groups, finding)
            finding += " Click a bar for the requests behind it."
        st.caption(md(f"{finding} Times in {asked.zone}."))
    with right:
        spending.month(router, asked)
    below = st.container()  # where the requests behind a bar come, as near to it as can be

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Hit rate")
        rate = charts.shares(dates, [d.hit_rate for d in routes], "hit rate", ROUTES["cache"].hue)
        said = f"The cache answered {percent(figures.hit_rate)} of the distinct texts."
        st.plotly_chart(rate, config=charts.CONFIG, key="rate", alt=said)
        st.caption(f"{said} Where nothing was asked, the line is open.")
    with right:
        st.subheader("Avoided, by cause")
        causes = tables.causes(figures.avoided)
        if causes:
            most = f"{causes[0]['cause']} is the largest with {causes[0]['avoided']} ({causes[0]['share']})."
            shown = charts.causes([(row["cause"], row["nanodollars"]) for row in causes])
            st.plotly_chart(shown, config=charts.CONFIG, key="causes", alt=most)
        st.caption("At the normal price of the model that answered, else of the cheapest paid model allowed.")

    left, right = st.columns([2, 3], gap="large")
    with left:
        spending.latencies(router, asked)
    with right:
        spending.collections(router, asked)

    with below if asked.bar else st.container():
        drill.requests(router, asked, report)
    spending.unconfirmed(engine)

    with st.expander(f"The {asked.step}s as a table"):
        drill.table(asked, report)
    spending.exports(asked, report)
