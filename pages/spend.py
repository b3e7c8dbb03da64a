"""Spend: where the money went, what was not spent, and the requests behind it. The filters are in the URL."""

from __future__ import annotations

import streamlit as st

st.title("Spend")

from pages.components import charts, drilldown, spend_report, tables, widgets  # noqa: E402  # the title is on the screen before these load
from pages.components.format import ROUTES, count, latency, md, percent, plural, usd  # noqa: E402
from router.host import host  # noqa: E402
from router.reporting import figures  # noqa: E402

engine = host()
router = engine.router
asked = spend_report.filters(router)
totals = figures.totals(router.usage, since=asked.since, until=asked.until, where=asked.where)

if not totals.requests:
    widgets.empty(f"No requests in {md(asked.words)}.")
    st.page_link("route.py", label="Route a text", icon=":material/alt_route:")
    spend_report.unconfirmed(engine)
else:
    report = asked.report(router, asked.by)
    routes = report if asked.by == "route" else asked.report(router, "route")
    dates = [d.day for d in report]

    with widgets.figures() as tile:
        unsure = f"{usd(totals.unconfirmed)} of it ?" if totals.unconfirmed else "all confirmed"
        tile(
            "Spent",
            usd(totals.spent),
            below=unsure,
            series={d.day: d.spent for d in report},
            colour="orange",
            help=spend_report.UNSURE,
        )
        tile(
            "Avoided", usd(totals.avoided.total), below="not spent", series={d.day: d.avoided for d in report},
            colour="green",
        )  # fmt: skip
        tile(
            "Hit rate", percent(totals.hit_rate), below=f"{count(totals.cached)} cached", colour="green",
            series={d.day: d.hit_rate for d in routes if d.hit_rate is not None}, show=percent,
        )  # fmt: skip
        tile(
            "Texts", count(totals.asked), below=plural(totals.requests, "request"),
            series={d.day: d.texts for d in report}, show=count,
        )  # fmt: skip
        errors = f"{totals.errors:,} not answered" if totals.errors else "all answered"
        slowest = figures.p95s(router.usage, report, zone=asked.zone, where=asked.where)
        tile(
            "p95", latency(totals.p95_ms), below=errors, series=dict(zip(dates, slowest, strict=True)), show=latency,
            help="95 of 100 requests were faster.",
        )  # fmt: skip

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Spent {'an hour' if asked.hourly else 'a day'}, by {asked.by}")
        groups = {name: [spend_report.spent_of(d, name) for d in report] for name in figures.group_names(report)}
        groups = {name: amounts for name, amounts in groups.items() if any(amounts)}
        finding = spend_report.finding(report, groups, asked.by, asked.step)
        if groups:
            drilldown.chart(asked, report, groups, finding)
            finding += " Click a bar for the requests behind it."
        st.caption(md(f"{finding} Times in {asked.zone}."))
    with right:
        spend_report.month(router, asked)
    below = st.container()  # where the requests behind a bar come, as near to it as can be

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Hit rate")
        rate = charts.shares(dates, [d.hit_rate for d in routes], "hit rate", ROUTES["cache"].hue)
        said = f"The cache answered {percent(totals.hit_rate)} of the distinct texts."
        st.plotly_chart(rate, config=charts.CONFIG, key="rate", alt=said)
        st.caption(f"{said} Where nothing was asked, the line is open.")
    with right:
        st.subheader("Avoided, by cause")
        causes = tables.causes(totals.avoided)
        if causes:
            most = f"{causes[0]['cause']} is the largest with {causes[0]['avoided']} ({causes[0]['share']})."
            shown = charts.causes([(row["cause"], row["nanodollars"]) for row in causes])
            st.plotly_chart(shown, config=charts.CONFIG, key="causes", alt=most)
        st.caption("At the normal price of the model that answered, else of the cheapest paid model allowed.")

    left, right = st.columns([2, 3], gap="large")
    with left:
        spend_report.latencies(router, asked)
    with right:
        spend_report.collections(router, asked)

    with below if asked.bar else st.container():
        drilldown.requests(router, asked, report)
    spend_report.unconfirmed(engine)

    with st.expander(f"The {asked.step}s as a table"):
        drilldown.table(asked, report)
    spend_report.exports(asked, report)
