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

    unsure = f"{usd(totals.unconfirmed)} of it ?" if totals.unconfirmed else "all confirmed"
    errors = f"{totals.errors:,} not answered" if totals.errors else "all answered"
    p95 = figures.p95s(router.usage, report, zone=view.zone, where=view.where)
    widgets.figures(dates, [
        ("Spent", usd(totals.spent), unsure, [d.spent for d in report], usd, "orange", spend_report.UNSURE),
        ("Saved", usd(totals.saved), "not spent", [d.saved for d in report], usd, "green", ""),
        ("Hit rate", percent(totals.hit_rate), f"{count(totals.cached)} cached", [d.hit_rate for d in routes],
         percent, "green", ""),
        ("Texts", count(totals.asked), plural(totals.requests, "request"), [d.texts for d in report],
         count, "gray", ""),
        ("p95", latency(totals.p95_ms), errors, p95, latency, "gray", "95 of 100 requests were faster."),
    ])  # fmt: skip

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Spent {'an hour' if view.hourly else 'a day'}, by {view.by}")
        groups = tables.by_group(report, figures.group_names(report), lambda s: s.charged + s.unconfirmed)
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
