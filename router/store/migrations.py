"""The tables of `router.db`: policies, budgets, the ledger, usage, jobs. Append-only: a released migration stays."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

NAMES = [
    "m001_create_policies",
    "m002_create_ledger",
    "m003_create_usage",
    "m004_create_jobs",
    "m005_add_replay_facts",
    "m006_create_alerts",
    "m007_roll_up_by_grain",
    "m008_index_charges",
    "m009_learn_tokens",
    "m010_index_costs",
    "m011_expect_of_holds",
    "m012_batch_texts",
]


def migrations() -> Migrations:
    """The migrations of `router.db`, oldest first, named as in `NAMES`."""
    from sqlite_utils import Migrations as Registry

    registry = Registry("router")

    @registry()
    def m001_create_policies(db: Database) -> None:
        db.conn.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT")
        # One row a version; the newest counts, and `deleted` versions end a name.
        db.conn.execute(
            "CREATE TABLE policies (name TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL,"
            " body TEXT NOT NULL, deleted INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, version)) STRICT"
        )
        # The limits in force, read under the write lock by every hold. `owner` is `account` or `policy/NAME`.
        db.conn.execute(
            "CREATE TABLE budgets (owner TEXT NOT NULL, window TEXT NOT NULL, hard INTEGER NOT NULL,"
            " amount INTEGER NOT NULL CHECK (amount >= 0), PRIMARY KEY (owner, window, hard)) STRICT"
        )
        db.conn.execute("CREATE TABLE zones (owner TEXT PRIMARY KEY, timezone TEXT NOT NULL) STRICT")

    @registry()
    def m002_create_ledger(db: Database) -> None:
        # What each window of each owner holds and has spent; nanodollars. Kept for every window, budget or
        # not, so that a budget set later counts what was spent before. `start` is epoch seconds, for
        # `request` the request's number.
        db.conn.execute(
            "CREATE TABLE balances (owner TEXT NOT NULL, window TEXT NOT NULL, start INTEGER NOT NULL,"
            " held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0), settled INTEGER NOT NULL DEFAULT 0,"
            " unconfirmed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (owner, window, start)) STRICT, WITHOUT ROWID"
        )
        db.conn.execute(
            "CREATE TABLE processes (id TEXT PRIMARY KEY, lease_until REAL NOT NULL, started REAL NOT NULL) STRICT"
        )
        # `scopes` is the JSON list of [owner, window, start] that the money counts in.
        db.conn.execute(
            "CREATE TABLE holds (id INTEGER PRIMARY KEY, request INTEGER NOT NULL, process TEXT NOT NULL,"
            " state TEXT NOT NULL CHECK (state IN ('pending', 'settled', 'released', 'unconfirmed')),"
            " amount INTEGER NOT NULL CHECK (amount >= 0), sent INTEGER NOT NULL, scopes TEXT NOT NULL,"
            " policy TEXT NOT NULL, collection TEXT NOT NULL, model TEXT NOT NULL, route TEXT NOT NULL,"
            " texts INTEGER NOT NULL, tokens INTEGER NOT NULL, at REAL NOT NULL) STRICT"
        )
        db.conn.execute("CREATE INDEX holds_pending ON holds (process) WHERE state = 'pending'")
        # Append-only; a correction is an entry of its own. `settled` and `unconfirmed` add to a balance of
        # that name, `struck` takes its amount off `unconfirmed`.
        db.conn.execute(
            "CREATE TABLE charges (id INTEGER PRIMARY KEY, hold INTEGER NOT NULL REFERENCES holds (id),"
            " kind TEXT NOT NULL CHECK (kind IN ('settled', 'unconfirmed', 'struck')), amount INTEGER NOT NULL,"
            " tokens INTEGER NOT NULL, scopes TEXT NOT NULL, request INTEGER NOT NULL, policy TEXT NOT NULL,"
            " collection TEXT NOT NULL, model TEXT NOT NULL, route TEXT NOT NULL, at REAL NOT NULL,"
            " reason TEXT NOT NULL DEFAULT '') STRICT"
        )
        db.conn.execute("CREATE INDEX charges_by_hold ON charges (hold)")
        db.conn.execute("CREATE INDEX charges_by_time ON charges (at)")
        db.conn.execute(
            "CREATE TABLE claims (digest BLOB NOT NULL, kind TEXT NOT NULL, hold INTEGER NOT NULL,"
            " PRIMARY KEY (digest, kind)) STRICT, WITHOUT ROWID"
        )
        db.conn.execute("CREATE INDEX claims_by_hold ON claims (hold)")
        # The first judgement of a day stands for the day: what the window had used by then.
        db.conn.execute(
            "CREATE TABLE pace (owner TEXT NOT NULL, window TEXT NOT NULL, day INTEGER NOT NULL,"
            " used INTEGER NOT NULL, PRIMARY KEY (owner, window, day)) STRICT, WITHOUT ROWID"
        )

    @registry()
    def m003_create_usage(db: Database) -> None:
        db.conn.execute(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY, at REAL NOT NULL, status TEXT NOT NULL,"
            " policy TEXT NOT NULL, policy_version INTEGER NOT NULL, collection TEXT NOT NULL, role TEXT NOT NULL,"
            " model TEXT NOT NULL, space TEXT NOT NULL, dimensions INTEGER NOT NULL,"
            " texts INTEGER NOT NULL, distinct_texts INTEGER NOT NULL, repeated INTEGER NOT NULL,"
            " cache INTEGER NOT NULL, local INTEGER NOT NULL, api INTEGER NOT NULL, batch INTEGER NOT NULL,"
            " refused INTEGER NOT NULL, tokens INTEGER NOT NULL, charged INTEGER NOT NULL,"
            " unconfirmed INTEGER NOT NULL, avoided INTEGER NOT NULL, latency_ms REAL NOT NULL,"
            " decision TEXT NOT NULL, candidates TEXT NOT NULL, error TEXT NOT NULL) STRICT"
        )
        db.conn.execute("CREATE INDEX requests_by_time ON requests (at)")
        # The texts of a request for replay: digests (32 bytes each) and token counts (u32), never the texts.
        db.conn.execute(
            "CREATE TABLE replay (request INTEGER PRIMARY KEY REFERENCES requests (id) ON DELETE CASCADE,"
            " digests BLOB NOT NULL, tokens BLOB NOT NULL, counts BLOB NOT NULL) STRICT"
        )
        # Quarter-hours, so that days of any time zone add up. `quarter` is epoch seconds / 900.
        db.conn.execute(
            "CREATE TABLE rollups (quarter INTEGER NOT NULL, policy TEXT NOT NULL, collection TEXT NOT NULL,"
            " model TEXT NOT NULL, route TEXT NOT NULL, requests INTEGER NOT NULL DEFAULT 0,"
            " texts INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0,"
            " charged INTEGER NOT NULL DEFAULT 0, unconfirmed INTEGER NOT NULL DEFAULT 0,"
            " avoided_cache INTEGER NOT NULL DEFAULT 0, avoided_repeats INTEGER NOT NULL DEFAULT 0,"
            " avoided_dimensions INTEGER NOT NULL DEFAULT 0, avoided_local INTEGER NOT NULL DEFAULT 0,"
            " avoided_batch INTEGER NOT NULL DEFAULT 0, repeated INTEGER NOT NULL DEFAULT 0,"
            " errors INTEGER NOT NULL DEFAULT 0,"
            " PRIMARY KEY (quarter, policy, collection, model, route)) STRICT, WITHOUT ROWID"
        )
        db.conn.execute(
            "CREATE TABLE latencies (quarter INTEGER NOT NULL, policy TEXT NOT NULL, collection TEXT NOT NULL,"
            " model TEXT NOT NULL, route TEXT NOT NULL, bucket INTEGER NOT NULL, requests INTEGER NOT NULL,"
            " PRIMARY KEY (quarter, policy, collection, model, route, bucket)) STRICT, WITHOUT ROWID"
        )

    @registry()
    def m004_create_jobs(db: Database) -> None:
        # `collection` is the name that the books use; the collection itself, and its generations, are in corpora.db.
        # `revision` counts up with every confirmed addition, so that a runner never ends a job that has more to do.
        db.conn.execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, collection_id INTEGER NOT NULL, collection TEXT NOT NULL,"
            " generation INTEGER NOT NULL, kind TEXT NOT NULL DEFAULT 'embed', state TEXT NOT NULL DEFAULT 'queued'"
            " CHECK (state IN ('queued', 'running', 'paused', 'waiting', 'done', 'failed', 'cancelled')),"
            " reason TEXT NOT NULL DEFAULT '', wake REAL, revision INTEGER NOT NULL DEFAULT 0,"
            " total INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,"
            " spent INTEGER NOT NULL DEFAULT 0, rate REAL NOT NULL DEFAULT 0, policy TEXT NOT NULL,"
            " model TEXT NOT NULL, route TEXT NOT NULL, price_checked TEXT NOT NULL, created REAL NOT NULL,"
            " started REAL, finished REAL, lease_owner TEXT NOT NULL DEFAULT '', lease_until REAL NOT NULL DEFAULT 0)"
            " STRICT"
        )
        # One job at a time works on a generation.
        db.conn.execute(
            "CREATE UNIQUE INDEX jobs_open ON jobs (generation) WHERE state NOT IN ('done', 'failed', 'cancelled')"
        )
        db.conn.execute("CREATE INDEX jobs_by_collection ON jobs (collection_id)")
        # Texts that a job could not embed. `final`: not tried again unless somebody asks for it.
        db.conn.execute(
            "CREATE TABLE failures (job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, digest BLOB NOT NULL,"
            " tries INTEGER NOT NULL, final INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job, digest))"
            " STRICT, WITHOUT ROWID"
        )
        db.conn.execute("CREATE INDEX charges_by_collection ON charges (collection, at) WHERE collection <> ''")
        # What was sent to a provider's batch tier, and what came of it; see batches.py.
        db.conn.execute(
            "CREATE TABLE batches (id INTEGER PRIMARY KEY, job INTEGER NOT NULL, key TEXT UNIQUE NOT NULL,"
            " provider TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL, remote TEXT NOT NULL DEFAULT '',"
            " hold INTEGER NOT NULL, digests BLOB NOT NULL, texts INTEGER NOT NULL, tokens INTEGER NOT NULL,"
            " created REAL NOT NULL, submitted REAL, ended REAL, reason TEXT NOT NULL DEFAULT '') STRICT"
        )
        db.conn.execute("CREATE INDEX batches_by_job ON batches (job)")

    @registry()
    def m005_add_replay_facts(db: Database) -> None:
        # What the decision knew, as JSON; see pipeline/trace.py.
        db.conn.execute("ALTER TABLE replay ADD COLUMN facts TEXT NOT NULL DEFAULT ''")

    @registry()
    def m006_create_alerts(db: Database) -> None:
        # What was said of a budget, once a window; `tries` and `delivered` are of the webhook.
        db.conn.execute(
            "CREATE TABLE alerts_sent (id INTEGER PRIMARY KEY, at REAL NOT NULL, owner TEXT NOT NULL,"
            " window TEXT NOT NULL, start INTEGER NOT NULL, amount INTEGER NOT NULL, hard INTEGER NOT NULL,"
            " kind TEXT NOT NULL CHECK (kind IN ('actual', 'forecast')), threshold INTEGER NOT NULL,"
            " used INTEGER NOT NULL, expected INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0,"
            " tried REAL NOT NULL DEFAULT 0, delivered REAL,"
            " UNIQUE (owner, window, start, amount, hard, kind, threshold)) STRICT"
        )

    @registry()
    def m007_roll_up_by_grain(db: Database) -> None:
        # The same sums and histograms by several groups of dimensions, by hour and by day of UTC; see rollups.py.
        # `start` is epoch seconds / 900 / span.
        names = (
            *("requests", "texts", "tokens", "charged", "unconfirmed", "avoided_cache", "avoided_repeats"),
            *("avoided_dimensions", "avoided_local", "avoided_batch", "repeated", "errors"),
        )
        keys = ("policy", "collection", "model", "route")
        grains = {
            1: ("route",), 2: ("model",), 3: ("collection",), 4: ("policy", "route"), 5: ("policy", "model"),
            6: ("policy", "collection"), 0: keys,
        }  # fmt: skip
        columns = (
            f"span INTEGER NOT NULL, grain INTEGER NOT NULL, start INTEGER NOT NULL, {' TEXT NOT NULL, '.join(keys)}"
        )
        primary = f"span, grain, start, {', '.join(keys)}"
        amounts = ", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in names)
        db.conn.execute("ALTER TABLE rollups RENAME TO old_rollups")
        db.conn.execute("ALTER TABLE latencies RENAME TO old_latencies")
        db.conn.execute(
            f"CREATE TABLE rollups ({columns} TEXT NOT NULL, {amounts}, PRIMARY KEY ({primary})) STRICT, WITHOUT ROWID"
        )
        db.conn.execute(
            f"CREATE TABLE latencies ({columns} TEXT NOT NULL, bucket INTEGER NOT NULL, requests INTEGER NOT NULL,"
            f" PRIMARY KEY ({primary}, bucket)) STRICT, WITHOUT ROWID"
        )
        totals = ", ".join(f"sum({name})" for name in names)
        for span in (1, 4, 96):
            for grain, told in sorted(grains.items()):
                some = ", ".join(key if key in told else "''" for key in keys)
                # The coarser grains of hours and days come from their finest, which is smaller than the quarter-hours.
                derived = span > 1 and grain != 0
                place = "start" if derived else f"quarter / {span}"
                where = f"rollups WHERE span = {span} AND grain = 0" if derived else "old_rollups"
                db.conn.execute(
                    f"INSERT INTO rollups SELECT {span}, {grain}, {place}, {some}, {totals} FROM {where}"
                    " GROUP BY 3, 4, 5, 6, 7"
                )
                where = f"latencies WHERE span = {span} AND grain = 0" if derived else "old_latencies"
                db.conn.execute(
                    f"INSERT INTO latencies SELECT {span}, {grain}, {place}, {some}, bucket, sum(requests) FROM {where}"
                    " GROUP BY 3, 4, 5, 6, 7, 8"
                )
        db.conn.execute("DROP TABLE old_rollups")
        db.conn.execute("DROP TABLE old_latencies")
        for column in ("policy", "collection", "model"):
            db.conn.execute(f"CREATE INDEX requests_by_{column} ON requests ({column}, at)")
        db.conn.execute("CREATE INDEX charges_unconfirmed ON charges (id) WHERE kind = 'unconfirmed'")

    @registry()
    def m008_index_charges(db: Database) -> None:
        # For the requests behind a bar; see drilldown.py.
        for column in ("policy", "model", "route"):
            db.conn.execute(f"CREATE INDEX charges_by_{column} ON charges ({column}, at)")
        db.conn.execute("CREATE INDEX charges_by_request ON charges (request)")

    @registry()
    def m009_learn_tokens(db: Database) -> None:
        # What was learned of tokenizers that are not at hand, and how far off it was; see learned.py.
        db.conn.execute(
            "CREATE TABLE token_sums (model TEXT NOT NULL, a TEXT NOT NULL, b TEXT NOT NULL, total REAL NOT NULL,"
            " PRIMARY KEY (model, a, b)) STRICT, WITHOUT ROWID"
        )
        db.conn.execute(
            "CREATE TABLE token_errors (model TEXT PRIMARY KEY, calls INTEGER NOT NULL, expected INTEGER NOT NULL,"
            " billed INTEGER NOT NULL, absolute INTEGER NOT NULL, squares REAL NOT NULL) STRICT"
        )
        # What a batch is learned from when it is settled, as JSON; "" where its model's tokenizer is at hand.
        db.conn.execute("ALTER TABLE batches ADD COLUMN estimate TEXT NOT NULL DEFAULT ''")

    @registry()
    def m010_index_costs(db: Database) -> None:
        # For the most expensive requests; time and policy stand in it, so that rows of others are passed over unread.
        db.conn.execute("CREATE INDEX requests_by_cost ON requests (charged + unconfirmed, at, policy)")

    @registry()
    def m011_expect_of_holds(db: Database) -> None:
        # What a hold will likely be settled at, nanodollars; NULL is the amount, for holds from before this.
        db.conn.execute("ALTER TABLE holds ADD COLUMN expected INTEGER")

    @registry()
    def m012_batch_texts(db: Database) -> None:
        # What became of each text of a batch; `line` is its place in the batch's file, from one.
        db.conn.execute(
            "CREATE TABLE batch_texts (batch INTEGER NOT NULL REFERENCES batches (id) ON DELETE CASCADE,"
            " digest BLOB NOT NULL, line INTEGER NOT NULL, tokens INTEGER NOT NULL,"
            " state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'stored', 'failed')),"
            " reason TEXT NOT NULL DEFAULT '', PRIMARY KEY (batch, digest)) STRICT, WITHOUT ROWID"
        )
        # They were packed in `digests`: digest, tokens, and a state that is 0 (open), 1 (stored) or, of those that
        # failed, the number of the line of the batch's `reason` that says why. Withdrawn batches have none now.
        record, names = struct.Struct("<32sIB"), ("open", "stored", "failed")
        batches = db.conn.execute("SELECT id FROM batches WHERE state <> 'withdrawn' ORDER BY id").fetchall()
        for (batch,) in batches:
            packed, reason = db.conn.execute("SELECT digests, reason FROM batches WHERE id = ?", (batch,)).fetchone()
            said = dict(enumerate(reason.split("\n"), 1))
            db.conn.executemany(
                "INSERT INTO batch_texts VALUES (?, ?, ?, ?, ?, ?)",
                sorted(
                    (batch, digest, line, tokens, names[min(state, 2)], said.get(state, "") if state > 1 else "")
                    for line, (digest, tokens, state) in enumerate(record.iter_unpack(packed), 1)
                ),
            )
        db.conn.execute("UPDATE batches SET reason = substr(reason, 1, instr(reason || char(10), char(10)) - 1)")
        db.conn.execute("ALTER TABLE batches DROP COLUMN digests")

    return registry
