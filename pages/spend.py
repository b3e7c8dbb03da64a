"""Spend: where the money went, what was not spent, and the requests behind it. The filters are in the URL."""

from __future__ import annotations

import streamlit as st

st.title("Spend")

from pages.components import charts, draw, spending, tables  # noqa: E402  # the title is on the screen before these load
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
else:
    report = reports.days(
        router.usage, first=asked.first, last=asked.last, zone=asked.zone, by=asked.by, where=asked.where
    )
    routes = reports.days(router.usage, first=asked.first, last=asked.last, zone=asked.zone, where=asked.where)
    dates = [d.day for d in report]

    with st.container(key="figures"):
        unsure = f"{usd(figures.unconfirmed)} of it ?" if figures.unconfirmed else "all confirmed"
        draw.figure(
            "Spent",
            usd(figures.spent),
            below=unsure,
            series=[d.spent for d in report],
            colour="orange",
            help=spending.UNSURE,
        )
        draw.figure(
            "Avoided", usd(figures.avoided.total), below="not spent", series=[d.avoided for d in report], colour="green"
        )
        draw.figure(
            "Hit rate", percent(figures.hit_rate), below=f"{count(figures.cached)} cached", colour="green",
            series=[d.hit_rate or 0.0 for d in routes],
        )  # fmt: skip
        draw.figure(
            "Texts", count(figures.asked), below=plural(figures.requests, "request"), series=[d.texts for d in report]
        )
        errors = f"{figures.errors:,} not answered" if figures.errors else "all answered"
        draw.figure("p95", latency(figures.p95_ms), below=errors)

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader(f"Spent a day, by {asked.by}")
        groups = {name: [spending.spent_of(d, name) for d in report] for name in reports.group_names(report)}
        groups = {name: amounts for name, amounts in groups.items() if any(amounts)}
        finding = spending.finding(report, groups, asked.by)
        if groups:
            st.plotly_chart(charts.spent(dates, groups), config=charts.CONFIG, key="spent", alt=finding)
        st.caption(md(f"{finding} Days in {asked.zone}."))
    with right:
        spending.month(router, asked)

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Hit rate")
        rate = charts.shares(dates, [d.hit_rate for d in routes], "hit rate", ROUTES["cache"].hue)
        said = f"The cache answered {percent(figures.hit_rate)} of the distinct texts."
        st.plotly_chart(rate, config=charts.CONFIG, key="rate", alt=said)
        st.caption(f"{said} Days without requests are left open.")
    with right:
        st.subheader("Avoided, by cause")
        causes = tables.causes(figures.avoided)
        if causes:
            most = f"{causes[0]['cause']} is the largest with {causes[0]['avoided']} ({causes[0]['share']})."
            shown = charts.causes([(row["cause"], row["nanodollars"]) for row in causes])
            st.plotly_chart(shown, config=charts.CONFIG, key="causes", alt=most)
        st.caption("At the normal price of the model that answered, else of the cheapest paid model allowed.")

    st.subheader("Latency by route")
    slow = tables.latencies(router.usage, since=asked.since, until=asked.until, where=asked.where)
    config = {"route": draw.words_column("route")}
    st.dataframe(slow, column_config=config, hide_index=True, alt="Latency of requests by route")
    st.caption(
        "Half of the requests, and 95 of 100, ended within so long: bounds of a histogram whose steps are 1.4 wide."
        " Batches, which take hours by design, are not in it."
    )

    st.subheader("Latest requests")
    rows = router.usage.requests(since=asked.since, until=asked.until, where=asked.where, limit=100)
    columns = ["time", "texts", "answered by", "cost", "avoided", "took", "policy", "model", "why"]
    draw.requests(rows, asked.zone, key="requests", alt="The latest requests", columns=columns)
    spending.unconfirmed(engine)

    with st.expander("The days as a table"):
        st.dataframe(tables.by_day(report, asked.by), hide_index=True, alt=f"Sums a day and {asked.by}")
    with st.container(horizontal=True):
        st.download_button(
            "CSV", tables.by_day_csv(report, asked.by), file_name=f"spend-by-{asked.by}.csv", mime="text/csv",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
        st.download_button(
            "Parquet", lambda: tables.by_day_parquet(report, asked.by), file_name=f"spend-by-{asked.by}.parquet",
            icon=":material/download:", on_click="ignore",
        )  # fmt: skip
