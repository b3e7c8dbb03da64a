"""Spend: where the money went, what was saved, and the requests behind it. The filters are in the URL."""

from __future__ import annotations

import streamlit as st

st.title("Spend")

from pages.components import charts, drilldown, spend_report, spend_view, tables, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.format import ROUTES, count, latency, md, percent, plural, usd  # noqa: E402
from router.host import host  # noqa: E402
from router.reporting import figures  # noqa: E402

engine = host()
router = engine.router
view = spend_view.filters(router)
totals = figures.totals(router.usage, since=view.since, until=view.until, where=view.where)

if not totals.requests:
    widgets.empty(f"No requests in {md(view.words)}.")
    st.page_link("route.py", label="Route a text", icon=":material/alt_route:")
    spend_report.unconfirmed(engine)
else:
    report = view.report(router, view.by)
    routes = report if view.by == "route" else view.report(router, "route")
    dates = [d.day for d in report]

    with widgets.figures() as tile:
        unsure = f"{usd(totals.unconfirmed)} of it ?" if totals.unconfirmed else "all confirmed"
        tile(
            "Spent", usd(totals.spent), below=unsure, series={d.day: d.spent for d in report}, colour="orange",
            help=spend_report.UNSURE,
        )  # fmt: skip
        tile(
            "Saved", usd(totals.avoided), below="not spent", series={d.day: d.avoided for d in report},
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
        slowest = figures.p95s(router.usage, report, zone=view.zone, where=view.where)
        tile(
            "p95", latency(totals.p95_ms), below=errors, series=dict(zip(dates, slowest, strict=True)), show=latency,
            help="95 of 100 requests were faster.",
        )  # fmt: skip

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Spent {'an hour' if view.hourly else 'a day'}, by {view.by}")
        groups = {name: [tables.spent_of(d, name) for d in report] for name in figures.group_names(report)}
        groups = {name: amounts for name, amounts in groups.items() if any(amounts)}
        finding = spend_report.finding(report, groups, view.by, view.step)
        if groups:
            drilldown.chart(view, report, groups, finding)
            finding += " Click a bar for its requests."
        st.caption(md(f"{finding} Times in {view.zone}."))
    with right:
        spend_report.month(router, view)
    below = st.container()  # for the requests behind a bar, near the chart

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Hit rate")
        rate = charts.shares(dates, [d.hit_rate for d in routes], "hit rate", ROUTES["cache"].hue)
        said = f"The cache answered {percent(totals.hit_rate)} of the distinct texts."
        st.plotly_chart(rate, config=charts.CONFIG, key="rate", alt=said)
        st.caption(f"{said} The line has gaps where there were no requests.")
    with right:
        st.subheader("Saved, by cause")
        causes = tables.causes(totals.causes)
        if causes:
            most = f"{causes[0]['cause']} is the largest, {causes[0]['saved']} ({causes[0]['share']})."
            shown = charts.causes([(row["cause"], row["nanodollars"]) for row in causes])
            st.plotly_chart(shown, config=charts.CONFIG, key="causes", alt=most)
        st.caption(
            "At the normal price of the model that answered or, if it is local, of the cheapest paid model allowed."
        )

    left, right = st.columns([2, 3], gap="large")
    with left:
        spend_report.latencies(router, view)
    with right:
        spend_report.collections(router, view)

    with below if view.bar else st.container():
        drilldown.requests(router, view, report)
    spend_report.unconfirmed(engine)

    with st.expander(f"The {view.step}s as a table"):
        drilldown.table(view, report)
    spend_report.exports(view, report)
