"""The command line: one file a group of commands. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import typer

from router.cli import budget, collections, demo, doctor, embed, jobs, pages, policy, quote, sandbox, spend
from router.cli.shell import Shell

__all__ = ["app"]

app = typer.Typer(
    cls=Shell,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Vectors from the cache, a local model or a paid API, by a quality and budget policy. "
    "Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by a policy or a budget.",
)
single = (embed.embed, quote.quote, spend.spend, budget.pay, doctor.doctor, pages.app, sandbox.sandbox, demo.demo)
for command in single:
    app.command()(command)
app.add_typer(policy.policy_app, name="policy")
app.add_typer(budget.budget_app, name="budget")
app.add_typer(jobs.jobs_app, name="jobs")
app.add_typer(collections.collections_app, name="collections")
