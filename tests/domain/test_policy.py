"""Policies: what is refused, what survives a round trip, and when a budget's window begins and ends."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.domain import policy as subject
from router.domain.errors import BadInput
from router.domain.values import Budget, Policy

MODELS = ("openai/text-embedding-3-small", "openai/text-embedding-3-large", "voyage/voyage-4", "local/all-MiniLM-L6-v2")
ZONES = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Havana",  # falls back from 01:00 to 00:00: midnight comes twice
    "America/St_Johns",  # fell back from 00:01 to 23:01 until 2011: the old day came back
    "America/Sao_Paulo",  # skipped midnight until 2018
    "America/Toronto",  # 1919: skipped from 23:30 to 00:30
    "Asia/Beirut",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",  # skipped 30 December 2011
    "Pacific/Kwajalein",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
    "Etc/GMT-14",
)

windows = st.sampled_from(subject.WINDOWS)
stretches = st.sampled_from(("day", "week", "month"))
instants = st.datetimes(datetime(1915, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))
amounts = st.integers(0, subject.MOST)
budgets = st.builds(Budget, amount=amounts, window=windows, hard=st.booleans())
names = st.from_regex(r"[a-zA-Z0-9_.-]([a-zA-Z0-9 _.-]{0,20}[a-zA-Z0-9_.-])?", fullmatch=True)
policies = st.builds(
    Policy,
    name=names,
    goal=st.sampled_from(subject.GOALS),
    min_quality=st.none() | st.floats(0, 100),
    allow=st.lists(st.sampled_from(("*", "openai/*", "local/*", MODELS[2])), min_size=1, max_size=3).map(tuple),
    local_only=st.booleans(),
    budgets=st.lists(budgets, max_size=4, unique_by=lambda b: (b.window, b.hard)).map(tuple),
    when_exhausted=st.sampled_from(subject.WHEN_EXHAUSTED),
    deadline=st.sampled_from(subject.DEADLINES),
    long_texts=st.sampled_from(subject.LONG_TEXTS),
    normalise=st.booleans(),
    timezone=st.sampled_from(ZONES),
    version=st.integers(0, 1000),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def test_built_in_policies_are_the_designed_ones():
    """Four valid policies; three have $5 a month, hard, and fall to local; the account has $10."""
    by_name = {policy.name: policy for policy in subject.BUILT_IN}
    assert list(by_name) == ["default", "economy", "quality", "local"]
    for policy in subject.BUILT_IN:
        subject.validate(policy, MODELS)
    assert [by_name[n].goal for n in ("default", "economy", "quality")] == ["balanced", "economy", "quality"]
    for name in ("default", "economy", "quality"):
        assert by_name[name].budgets == (Budget(amount=5_000_000_000, window="month"),)
        assert by_name[name].when_exhausted == "local"
    assert by_name["local"].local_only
    assert by_name["local"].budgets == ()
    assert Budget(amount=10_000_000_000, window="month", hard=True) == subject.ACCOUNT_BUDGET


# ---- budgets as text


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5/month", Budget(amount=5_000_000_000, window="month")),
        ("5/month:soft", Budget(amount=5_000_000_000, window="month", hard=False)),
        ("$0.0005/total", Budget(amount=500_000, window="total")),
        (" 0 / day ", Budget(amount=0, window="day")),
    ],
)
def test_budgets_are_read(text, budget):
    """Amount, window and softness are read, with or without a dollar sign and spaces."""
    assert subject.parse_budget(text) == budget


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("5", "window"),
        ("-5/month", "negative"),
        ("five/month", "not an amount"),
        ("5/year", "year"),
        ("5/", "''"),
        ("5/month:hard-ish", "hard-ish"),
        ("5/month:", "soft"),
        ("nan/month", "not an amount"),
        ("", "not a budget"),
    ],
)
def test_wrong_budgets_are_refused_with_a_hint(text, named):
    """What is wrong is named, and what to write instead."""
    with pytest.raises(BadInput, match=named) as caught:
        subject.parse_budget(text)
    assert caught.value.hint


@given(budgets)
def test_budget_text_round_trips(budget):
    """`parse_budget` reads back exactly what `format_budget` writes."""
    assert subject.parse_budget(subject.format_budget(budget)) == budget


def test_budgets_are_written_short():
    """No trailing zeros, and whole hundreds keep theirs."""
    assert subject.format_budget(Budget(amount=500_000, window="total", hard=False)) == "0.0005/total:soft"
    assert subject.format_budget(Budget(amount=100_000_000_000, window="week")) == "100/week"


# ---- windows


@given(window=stretches, now=instants, zone=st.sampled_from(ZONES))
@settings(max_examples=250, deadline=None)
@example(window="day", now=datetime(2011, 12, 30, 9, 59, 59, tzinfo=UTC), zone="Pacific/Apia")
@example(window="day", now=datetime(2011, 12, 30, 10, 0, tzinfo=UTC), zone="Pacific/Apia")
@example(window="day", now=datetime(2010, 11, 7, 2, 31, tzinfo=UTC), zone="America/St_Johns")
@example(window="day", now=datetime(2010, 11, 7, 3, 0, tzinfo=UTC), zone="America/St_Johns")
@example(window="day", now=datetime(1919, 3, 31, 4, 35, tzinfo=UTC), zone="America/Toronto")
@example(window="day", now=datetime(2018, 11, 4, 3, 0, tzinfo=UTC), zone="America/Sao_Paulo")
@example(window="day", now=datetime(1969, 9, 30, 14, 0, tzinfo=UTC), zone="Pacific/Kwajalein")
def test_windows_are_contiguous_and_hold_now(window, now, zone):
    """`start <= now < end`; every instant in it has these bounds; the next begins where it ends; so does the last."""
    start, end = subject.window_bounds(window, now, zone)
    assert start.tzinfo is UTC
    assert end.tzinfo is UTC
    assert start <= now < end
    assert subject.window_bounds(window, start, zone) == (start, end)
    assert subject.window_bounds(window, end - timedelta(microseconds=1), zone) == (start, end)
    assert subject.window_bounds(window, end, zone)[0] == end
    assert subject.window_bounds(window, start - timedelta(microseconds=1), zone)[1] == start


@given(
    window=stretches,
    now=st.datetimes(datetime(2026, 1, 1), datetime(2036, 1, 1), timezones=st.just(UTC)),
    zone=st.sampled_from(("UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Paris", "America/New_York")),
)
def test_windows_begin_at_local_midnight_of_their_first_day(window, now, zone):
    """Where midnight is neither skipped nor repeated, the first day's midnight is the start; weeks begin on Monday."""
    for bound in subject.window_bounds(window, now, zone):
        local = bound.astimezone(ZoneInfo(zone))
        assert (local.hour, local.minute, local.second, local.microsecond) == (0, 0, 0, 0)
        assert window != "week" or local.weekday() == 0
        assert window != "month" or local.day == 1


@pytest.mark.parametrize(
    ("window", "now", "zone", "start", "end"),
    [
        ("month", "2026-11-30T23:59:59", "UTC", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("month", "2026-11-30T10:00:00", "Pacific/Kiritimati", "2026-11-30T10:00", "2026-12-31T10:00"),
        ("month", "2026-12-01T11:59:59", "Etc/GMT+12", "2026-11-01T12:00", "2026-12-01T12:00"),
        ("day", "2026-03-29T12:00:00", "Europe/Paris", "2026-03-28T23:00", "2026-03-29T22:00"),  # 23 hours
        ("day", "2026-10-25T12:00:00", "Europe/Paris", "2026-10-24T22:00", "2026-10-25T23:00"),  # 25 hours
        ("week", "2027-01-01T12:00:00", "UTC", "2026-12-28T00:00", "2027-01-04T00:00"),
        ("day", "2018-11-04T02:59:59", "America/Sao_Paulo", "2018-11-03T03:00", "2018-11-04T03:00"),
        ("day", "2018-11-04T12:00:00", "America/Sao_Paulo", "2018-11-04T03:00", "2018-11-05T02:00"),
        ("day", "2026-11-01T04:30:00", "America/Havana", "2026-11-01T04:00", "2026-11-02T05:00"),  # first midnight
        ("day", "2010-11-07T02:45:00", "America/St_Johns", "2010-11-07T02:30", "2010-11-08T03:30"),  # 23:16, again
        ("day", "1919-03-31T04:30:00", "America/Toronto", "1919-03-31T04:30", "1919-04-01T04:00"),  # from 00:30 on
        ("day", "2011-12-30T09:59:00", "Pacific/Apia", "2011-12-29T10:00", "2011-12-30T10:00"),
    ],
)
def test_known_windows(window, now, zone, start, end):
    """Edges reckoned by hand: far zones, days of 23 and 25 hours, skipped and repeated midnights, a skipped day."""
    got = subject.window_bounds(window, datetime.fromisoformat(now).replace(tzinfo=UTC), zone)
    assert got == tuple(datetime.fromisoformat(t).replace(tzinfo=UTC) for t in (start, end))


def test_now_may_be_given_in_any_zone():
    """The same instant gives the same window, whatever zone it is written in."""
    now = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    elsewhere = now.astimezone(ZoneInfo("Asia/Tokyo"))
    assert subject.window_bounds("month", elsewhere, "UTC") == subject.window_bounds("month", now, "UTC")


def test_total_never_ends_and_a_request_is_no_window():
    """`total` runs from the epoch on; a request, or a time without a zone, is a programming error."""
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert subject.window_bounds("total", now, "UTC") == (datetime(1970, 1, 1, tzinfo=UTC), None)
    with pytest.raises(ValueError, match="request"):
        subject.window_bounds("request", now, "UTC")
    with pytest.raises(ValueError, match="zone"):
        subject.window_bounds("day", datetime(2026, 11, 21), "UTC")


@pytest.mark.parametrize("zone", ["Europe/Pari", "", "America", "../etc/passwd", "/etc/localtime", "a\0b", "\ud800"])
def test_unknown_zones_are_bad_input(zone):
    """Whatever the time zone library makes of a wrong name, the caller gets BadInput."""
    with pytest.raises(BadInput, match="not a time zone"):
        subject.window_bounds("day", datetime(2026, 11, 21, tzinfo=UTC), zone)


# ---- validation


@given(policies)
def test_generated_policies_are_valid_or_clash_only_on_local_only(policy):
    """Policies of valid parts pass, unless only local models may serve and the list allows none."""
    if policy.local_only and not {"*", "local/*"} & set(policy.allow):
        with pytest.raises(BadInput, match="local"):
            subject.validate(policy, MODELS)
    else:
        subject.validate(policy, MODELS)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a/b"}, "a/b"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": " a"}, "space"),
        ({"goal": "best"}, "best"),
        ({"when_exhausted": "cry"}, "cry"),
        ({"deadline": "48h"}, "48h"),
        ({"long_texts": "drop"}, "drop"),
        ({"min_quality": -1.0}, "-1"),
        ({"min_quality": 100.5}, "100.5"),
        ({"min_quality": float("nan")}, "nan"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"allow": ()}, "allow list"),
        ({"allow": ("*", "opnai/*")}, "opnai"),
        ({"allow": ("OPENAI/*",)}, "OPENAI"),
        ({"local_only": True, "allow": ("openai/*",)}, "local"),
        ({"budgets": (Budget(amount=-1, window="day"),)}, "cannot be negative"),
        ({"budgets": (Budget(amount=subject.MOST + 1, window="day"),)}, "more than an amount of money"),
        ({"budgets": (Budget(amount=1, window="year"),)}, "year"),
        ({"budgets": (Budget(amount=1, window="day"), Budget(amount=2, window="day"))}, "two hard budgets"),
        ({"version": -1}, "version"),
    ],
)
def test_wrong_policies_are_refused(change, named):
    """Each mistake is BadInput, names itself, and says what to do."""
    with pytest.raises(BadInput, match=named) as caught:
        subject.validate(replace(Policy(name="mine"), **change), MODELS)
    assert caught.value.hint


def test_a_hard_and_a_soft_budget_may_share_a_window():
    """Warn at three dollars, stop at five."""
    pair = (Budget(amount=5, window="day"), Budget(amount=3, window="day", hard=False))
    subject.validate(Policy(name="été 2026-a_b.c", budgets=pair), MODELS)


def test_the_allow_list_is_matched_by_case_and_pattern():
    """Any pattern may match; case counts on every system."""
    policy = Policy(name="p", allow=("openai/*-small", "local/*"))
    assert [subject.allows(policy, m) for m in MODELS] == [True, False, False, True]
    assert not subject.allows(policy, "OpenAI/text-embedding-3-small")


# ---- JSON


@given(policies)
def test_json_round_trips(policy):
    """A policy comes back the same from JSON text, and its money is strings of nine decimals."""
    values = json.loads(json.dumps(subject.to_dict(policy)))
    assert subject.from_dict(values) == policy
    for budget in values["budgets"]:
        assert len(budget["amount_usd"].partition(".")[2]) == 9


@given(st.dictionaries(st.sampled_from([*subject.to_dict(Policy(name="x")), "extra"]), json_values, max_size=5))
def test_any_json_object_is_a_policy_or_bad_input(values):
    """Nothing that a file can hold raises anything else, and what is taken can be written again."""
    try:
        policy = subject.from_dict({"name": "x"} | values)
    except BadInput:
        return
    assert subject.from_dict(subject.to_dict(policy)) == policy


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "name"),
        ({"name": "x", "colour": 1}, "colour"),
        ({"name": "x", "local_only": "false"}, "local_only"),
        ({"name": "x", "version": True}, "version"),
        ({"name": "x", "allow": "openai/*"}, "allow"),
        ({"name": "x", "allow": [1]}, "allow"),
        ({"name": "x", "min_quality": "50"}, "key `min_quality`: it must be a number, not '50'"),
        ({"name": "x", "min_quality": 10**400}, "key `min_quality`: .* out of range"),
        ({"name": "x", "budgets": [5]}, "budget"),
        ({"name": "x", "budgets": [{"amount_usd": 5, "window": "day"}]}, "amount_usd"),
        ({"name": "x", "budgets": [{"amount_usd": "5", "window": "day", "soft": True}]}, "soft"),
        ({"name": "x", "budgets": [{"amount_usd": "5"}]}, "window"),
    ],
)
def test_wrong_json_is_refused_by_name(values, named):
    """Unknown keys and wrong types are named."""
    with pytest.raises(BadInput, match=named):
        subject.from_dict(values)


def test_keys_left_out_take_their_default():
    """A name is enough."""
    assert subject.from_dict({"name": "x"}) == Policy(name="x")


# ---- differences


def test_differences_in_plain_words():
    """A line for each change, with money and yes and no as people write them."""
    old = Policy(name="p", budgets=(Budget(amount=5_000_000_000, window="month"),))
    new = replace(
        old,
        goal="economy",
        min_quality=50.0,
        allow=("openai/*", "local/*"),
        normalise=True,
        budgets=(Budget(amount=8_000_000_000, window="month"), Budget(amount=250_000_000, window="day", hard=False)),
        version=7,
    )
    assert subject.differences(old, new) == [
        "goal: balanced → economy",
        "least quality: none → 50",
        "allowed models: * → openai/*, local/*",
        "normalise texts: no → yes",
        "budget: none → $0.25 a day (soft)",
        "budget: $5.00 a month → $8.00 a month",
    ]


def test_differences_finer_than_shown_are_shown_exactly():
    """Two amounts that read alike are told apart."""
    old, new = (Policy(name="p", budgets=(Budget(amount=a, window="total"),)) for a in (5_000_000_000, 5_000_000_001))
    assert subject.differences(old, new) == ["budget: 5/total → 5.000000001/total"]


@given(policies, policies)
def test_no_difference_goes_unsaid(old, new):
    """There are lines exactly where something but the version or the order of budgets differs."""
    same = replace(old, version=0, budgets=()) == replace(new, version=0, budgets=())
    same = same and set(old.budgets) == set(new.budgets)
    assert (subject.differences(old, new) == []) == same
    assert all(" → " in line for line in subject.differences(old, new))
    assert all(len(set(line.partition(": ")[2].split(" → "))) == 2 for line in subject.differences(old, new))
    assert subject.differences(old, old) == []
