"""Overview: spending, savings and routes at a glance."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

st.title("Overview")

from pages.components import bars, charts, jobs, overview_report, tables, widgets  # noqa: E402  # after the title, so that it is shown while these load
from pages.components.format import ROUTES, count, exact_usd, latency, md, percent, route_shares, usd  # noqa: E402
from router.domain.values import ROUTES as ROUTE_NAMES  # noqa: E402
from router.host import host  # noqa: E402
from router.reporting import figures  # noqa: E402

DAYS = 30
FEW = 10  # requests, up to which the first steps are still shown

engine = host()
router = engine.router
ZONE = router.policies.account_zone()
now = router.clock()
last = figures.today(now, ZONE)
month_first, month_last = figures.window_days("month", now, ZONE)
since = figures.bounds_of(min(month_first, last - timedelta(days=DAYS - 1)), ZONE)[0]
everything = figures.totals(router.usage, since=since, until=now)

overview_report.alerts(router)
if not everything.requests or "samples" in st.session_state:
    overview_report.first_steps()
else:
    history = figures.days(router.usage, first=last - timedelta(days=DAYS - 1), last=last, zone=ZONE)
    month = figures.totals(router.usage, since=figures.bounds_of(month_first, ZONE)[0], until=now)
    budget = next((s.budget for s in router.budgets() if s.budget.window == "month"), None)
    ahead = figures.forecast(
        history, spent=month.spent, limit=budget.amount if budget else None, now=now, window="month", zone=ZONE
    )
    days = [d.day for d in history]
    p95 = figures.p95s(router.usage, history, zone=ZONE)

    overview_report.hint(router)
    st.caption(f"{last:%B} so far; each sparkline is the last {DAYS} days. Times in {ZONE}.")
    limit = f"of {usd(budget.amount)}" if budget else "no account budget"
    failed = month.errors / month.requests if month.requests else None
    widgets.figures(days, [
        ("Spent this month", usd(month.spent), limit, [d.spent for d in history], usd, "orange",
         md(exact_usd(month.spent)) if 0 < month.spent < 1_000 else ""),
        ("Saved", usd(month.saved), "not spent", [d.saved for d in history], usd, "green",
         "Saved by cache, repeats, smaller vectors, local models and batch."),
        ("Hit rate", percent(month.hit_rate), f"{count(month.cached)} cached", [d.hit_rate or 0.0 for d in history],
         percent, "green", "The share of this month's distinct texts that the cache answered."),
        ("Texts", count(month.asked), f"{count(month.requests)} request{'s' * (month.requests != 1)}",
         [d.texts for d in history], count, "gray", "Texts answered, repeats included."),
        ("p95", latency(month.p95_ms), "to answer", p95, latency, "gray", "95 of 100 requests were faster."),
        ("Errors", count(month.errors), f"{percent(failed)} of all",
         [sum(s.errors for s in d.groups.values()) for d in history], count, "red" if month.errors else "gray",
         "Requests of this month that were refused or failed."),
    ])  # fmt: skip

    if budget:
        share = month.spent / budget.amount if budget.amount else 1.0
        st.html(bars.gauge(share, f"{usd(month.spent)} of {usd(budget.amount)} this month", height=8))
        st.caption(md(overview_report.outlook(month.spent, budget.amount, ahead)))

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Spent and saved, by day")
        paid = tables.by_group(history, ROUTES, lambda s: s.charged + s.unconfirmed)
        free = tables.by_group(history, ROUTES, lambda s: s.saved)
        spent, saved = sum(d.spent for d in history), sum(d.saved for d in history)
        finding = f"Nothing was spent or saved in {DAYS} days."
        if paid or free:
            finding = f"In {DAYS} days {usd(spent)} was spent and {usd(saved)} saved."
            figure = charts.spent_and_saved(days, paid, free)
            st.plotly_chart(figure, config=charts.CONFIG, key="daily", alt=finding)
            finding += " Spending is above the line, savings are below it, hatched."
        st.caption(md(f"{finding} Days in {ZONE}."))
    with right:
        st.subheader("Where texts were answered")
        texts = {r: sum(d.groups[r].texts for d in history if r in d.groups) for r in ROUTE_NAMES}
        st.html(bars.parts(route_shares(texts)))
        st.caption(f"Distinct texts of the last {DAYS} days, by route.")
        st.subheader("Budgets of the policies")
        overview_report.budgets(router)

    if engine.library.list_jobs(open_only=True):
        st.subheader("Open jobs")
        jobs.running(engine, most=10)

    heading = st.empty()
    order = widgets.order()
    heading.subheader("Latest decisions" if order == "newest" else "Most expensive requests")
    rows = router.usage.requests(since=since, until=now + 1, limit=10, order=order)
    widgets.requests(
        router.usage, rows, ZONE, key=f"latest {order}", alt=widgets.TITLES[order],
        columns=["time", "texts", "answered by", "cost", "why"],
    )  # fmt: skip
    if everything.requests < FEW:
        st.subheader("Next steps")
        overview_report.steps()
