"""`policy`, `budget` and `pay`."""

from __future__ import annotations

import pytest

from router.sandbox import Sandbox

SMALL = "openai/text-embedding-3-small"


def test_a_policy_is_made_changed_shown_and_ended(shell) -> None:
    """What is not named stays as it was; every change is a version."""
    options = [
        *("--goal", "economy", "--min-quality", "50", "--budget", "5/month", "--budget", "0.25/day:soft"),
        *("--allow", "openai/*", "--allow", "local/*", "--when-exhausted", "wait", "--deadline", "24h"),
        *("--long-texts", "cut", "--normalise", "--timezone", "Europe/Paris"),
    ]
    made = shell("policy", "set", "mine", *options, "--json").json
    assert made == {
        "name": "mine",
        "goal": "economy",
        "min_quality": 50.0,
        "allow": ["openai/*", "local/*"],
        "local_only": False,
        "budgets": [
            {"amount_usd": "5.000000000", "window": "month", "hard": True},
            {"amount_usd": "0.250000000", "window": "day", "hard": False},
        ],
        "when_exhausted": "wait",
        "deadline": "24h",
        "long_texts": "cut",
        "queries": "same",
        "normalise": True,
        "timezone": "Europe/Paris",
        "version": 1,
    }
    changed = shell(
        "policy", "set", "mine", "--min-quality", "none", "--no-normalise", "--budget", "none", "--json"
    ).json
    assert changed == {**made, "min_quality": None, "normalise": False, "budgets": [], "version": 2}
    assert "goal: economy → quality" in shell("policy", "set", "mine", "--goal", "quality").out
    shown = shell("policy", "show", "mine", "--json").json
    assert (shown["goal"], shown["version"]) == ("quality", 3)
    assert [state["owner"] for state in shown["states"]] == ["account"]
    assert shell("policy", "delete", "mine", "--json").json == {"deleted": "mine"}
    names = [p["name"] for p in shell("policy", "list", "--json").json["policies"]]
    assert names == ["default", "economy", "local", "quality"]
    assert shell("policy", "show", "mine").code == 2


def test_a_change_that_changes_nothing_is_no_version(shell) -> None:
    """Setting what is set already says so."""
    shell("policy", "set", "mine", "--goal", "economy")
    said = shell("policy", "set", "mine", "--goal", "economy")
    assert "is so already" in said.out
    assert shell("policy", "show", "mine", "--json").json["version"] == 1


WRONG = {
    "--budget -5/month": "cannot be negative",
    "--budget 5": "no window",
    "--budget 5/year": "'year'",
    "--budget many/day": "'many'",
    "--budget 1/day --budget 2/day": "same window",
    "--goal best": "'best'",
    "--min-quality high": "'high'",
    "--min-quality 101": "0 to 100",
    "--min-quality nan": "0 to 100",
    "--allow none/*": "matches no model",
    "--when-exhausted stop": "'stop'",
    "--deadline 48h": "'48h'",
    "--long-texts shred": "'shred'",
    "--timezone Mars": "'Mars'",
}


@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_policy_is_exit_2_and_not_saved(shell, options: str) -> None:
    """For a new policy as for one that there is."""
    before = shell("policy", "list", "--json").json
    for name in ("new", "default"):
        said = shell("policy", "set", name, *options.split())
        assert said.code == 2
        assert WRONG[options] in said.err
    assert shell("policy", "list", "--json").json == before


@pytest.mark.parametrize(("name", "words"), [("default", "cannot be deleted"), ("nobody", "no policy 'nobody'")])
def test_what_cannot_be_deleted_is_exit_2(shell, name: str, words: str) -> None:
    """`default` serves requests that name no policy."""
    said = shell("policy", "delete", name)
    assert (said.code, words in said.err) == (2, True)


def test_the_account_budget_counts_what_was_spent_before(shell, openai: Sandbox) -> None:
    """It is replaced as a whole, and `none` removes it."""
    shell("embed", shell.jsonl(["apple"]), "--model", SMALL)
    spent = openai.bill().nanodollars
    (month,) = shell("budget", "show", "--json").json["budgets"]
    assert (month["budget"], month["used_usd"]) == ("10/month", f"{spent / 1e9:.9f}")
    both = shell("budget", "set", "20/month", "1/day:soft", "--json").json["budgets"]
    assert {(b["budget"], b["used_usd"]) for b in both} == {
        ("20/month", f"{spent / 1e9:.9f}"),
        ("1/day:soft", f"{spent / 1e9:.9f}"),
    }
    assert shell("budget", "set", "none", "--json").json == {"budgets": [], "timezone": "UTC", "paid": True}
    tokyo = shell("budget", "set", "10/day", "--timezone", "Asia/Tokyo", "--json").json
    assert tokyo["timezone"] == "Asia/Tokyo"
    assert tokyo["budgets"][0]["resets"].endswith("15:00:00+00:00")
    assert shell("budget", "set", "none", "--timezone", "Mars").code == 2
    assert "those of Asia/Tokyo" in shell("budget", "show").out
    assert shell("budget", "set", "none", "--timezone", "UTC").code == 0
    assert "no account budget" in shell("budget", "show").out


@pytest.mark.parametrize("budget", ["-5/month", "5/year", "five/month"])
def test_a_wrong_account_budget_is_exit_2_and_changes_nothing(shell, budget: str) -> None:
    """A minus sign is not taken for an option."""
    said = shell("budget", "set", budget)
    assert said.code == 2
    assert "No such option" not in said.err
    assert shell("budget", "show", "--json").json["budgets"][0]["budget"] == "10/month"


def test_the_kill_switch_stops_paid_calls_and_lets_them_go_on(shell, openai: Sandbox) -> None:
    """Off: refused with exit 3 and no call. On: billed."""
    file = shell.jsonl(["a"])
    assert shell("pay", "off", "--json").json == {"paid": False}
    assert "paid calls are stopped" in shell("budget", "show").out
    assert shell("embed", file, "--model", SMALL).code == 3
    assert openai.bill().requests == 0
    assert shell("pay", "on", "--json").json == {"paid": True}
    assert shell("embed", file, "--model", SMALL).code == 0
    assert shell("pay", "maybe").code == 2
