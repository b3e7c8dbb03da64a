"""Overview: what is spent, what was not, and who answered, at a glance."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

st.title("Overview")

from pages.components import bars, charts, jobs, start, widgets  # noqa: E402  # the title is on the screen before these load
from pages.components.format import count, exact_usd, latency, md, percent, usd  # noqa: E402
from router.host import host  # noqa: E402
from router.reporting import figures  # noqa: E402

DAYS = 30
FEW = 10  # requests, up to which people are still shown where to go

engine = host()
router = engine.router
ZONE = router.policies.account_zone()
now = router.clock()
last = figures.today(now, ZONE)
month_first, month_last = figures.window_days("month", now, ZONE)
since = figures.bounds_of(min(month_first, last - timedelta(days=DAYS - 1)), ZONE)[0]
everything = figures.totals(router.usage, since=since, until=now)

start.alerts(router)
if not everything.requests or "samples" in st.session_state:
    start.first_steps()
else:
    history = figures.days(router.usage, first=last - timedelta(days=DAYS - 1), last=last, zone=ZONE)
    month = figures.totals(router.usage, since=figures.bounds_of(month_first, ZONE)[0], until=now)
    budget = next((s for s in router.ledger.states("") if s.budget.window == "month"), None)
    ahead = figures.forecast(
        history, spent=month.spent, limit=budget and budget.budget.amount, now=now, window="month", zone=ZONE
    )
    days = [d.day for d in history]
    p95 = figures.p95s(router.usage, history, zone=ZONE)

    start.hint(router)
    st.caption(f"{last:%B} so far; under each figure the last {DAYS} days. Times in {ZONE}.")
    with widgets.figures() as tile:
        limit = f"of {usd(budget.budget.amount)}" if budget else "no account budget"
        tile(
            "Spent this month", usd(month.spent), below=limit, series={d.day: d.spent for d in history},
            colour="orange", help=md(exact_usd(month.spent)) if 0 < month.spent < 1_000 else "",
        )  # fmt: skip
        tile(
            "Avoided", usd(month.avoided.total), below="not spent", series={d.day: d.avoided for d in history},
            colour="green", help="What cache, repeats, smaller vectors, local models and batch saved.",
        )  # fmt: skip
        tile(
            "Hit rate", percent(month.hit_rate), below=f"{count(month.cached)} cached",
            series={d.day: d.hit_rate or 0.0 for d in history}, show=percent, colour="green",
            help="Distinct texts that the cache answered, of all that were answered this month.",
        )  # fmt: skip
        requests = f"{count(month.requests)} request{'s' * (month.requests != 1)}"
        tile(
            "Texts", count(month.asked), below=requests, series={d.day: d.texts for d in history}, show=count,
            help="Texts that were asked for, repeats included.",
        )  # fmt: skip
        tile(
            "p95", latency(month.p95_ms), below="to answer", series=dict(zip(days, p95, strict=True)), show=latency,
            help="95 of 100 were faster.",
        )  # fmt: skip
        failed = month.errors / month.requests if month.requests else None
        tile(
            "Errors", count(month.errors), below=f"{percent(failed)} of all",
            series={d.day: start.errors_of(d) for d in history}, show=count, colour="red" if month.errors else "gray",
            help="Requests of this month that were refused or failed.",
        )  # fmt: skip

    if budget:
        share = month.spent / budget.budget.amount if budget.budget.amount else 1.0
        st.html(bars.gauge(share, f"{usd(month.spent)} of {usd(budget.budget.amount)} this month", height=8))
        st.caption(md(start.outlook(month.spent, budget.budget.amount, ahead)))

    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Spent and avoided, day by day")
        paid = start.amounts(history, start.spent_of)
        free = start.amounts(history, start.avoided_of)
        spent, avoided = sum(d.spent for d in history), sum(d.avoided for d in history)
        finding = f"In {DAYS} days {usd(spent)} was spent and {usd(avoided)} avoided."
        if not (paid or free):
            finding = f"Nothing was spent, and nothing avoided, in {DAYS} days."
        else:
            figure = charts.spent_and_avoided(days, paid, free)
            st.plotly_chart(figure, config=charts.CONFIG, key="daily", alt=finding)
            finding += " Spent stands above the line, avoided hangs below it, hatched."
        st.caption(md(f"{finding} Days in {ZONE}."))
    with right:
        st.subheader("Where texts were answered")
        st.html(bars.parts(start.route_shares(history)))
        st.caption(f"Distinct texts of the last {DAYS} days, by route.")
        st.subheader("Budgets of the policies")
        start.budgets(router)

    if engine.library.jobs.all(open_only=True, limit=1):
        st.subheader("Jobs under way")
        jobs.running(engine, every_s=2.0, most=10)

    heading = st.empty()
    order = widgets.order()
    heading.subheader("Latest decisions" if order == "newest" else "Most expensive requests")
    rows = router.usage.requests(since=since, until=now + 1, limit=10, order=order)
    widgets.requests(
        router.usage, rows, ZONE, key=f"latest {order}", alt=widgets.TITLES[order],
        columns=["time", "texts", "answered by", "cost", "why"],
    )  # fmt: skip
    if everything.requests < FEW:
        st.subheader("What next")
        start.steps()
