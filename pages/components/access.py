"""Who may do what. Without `[auth]` in .streamlit/secrets.toml: whoever can open the page, which is this machine.

With it, Streamlit's OpenID Connect says who somebody is, and `[access]` says what they may: `editors` everything,
`viewers` look, everybody else nothing. A viewer's buttons are disabled, which the server holds to as well: Streamlit
throws away the click of a disabled widget, also a forged one.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import streamlit as st
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

Role = Literal["editor", "viewer", "stranger"]

READ_ONLY = "You are signed in as a viewer: you see everything, but cannot spend or change anything."
ALLOW_PUBLIC = "ROUTER_ALLOW_PUBLIC_WITHOUT_SIGN_IN"
NOT_HERE = f"Nobody has to sign in here, so only this machine is answered. See README.md: [auth], {ALLOW_PUBLIC}.\n"
HOSTS = "ROUTER_HOSTS"
NOT_THAT_NAME = (
    "This app answers to the names of its own machine only (localhost, 127.0.0.1), so that no web page can reach it"
    f" under a name of its own. To use another name, list it in {HOSTS}.\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who looks at the page. `address` is empty where nobody has to sign in."""

    address: str
    role: Role


def role_of(address: str, verified: object, access: Mapping[str, Any]) -> Role:
    """What `[access]` lets an address do; an address that the identity provider calls unverified is a stranger's."""
    if not address or verified not in (None, True):  # a provider that says nothing of it vouches for its addresses
        return "stranger"
    if _among(address, access.get("editors", ())):
        return "editor"
    return "viewer" if _among(address, access.get("viewers", ())) else "stranger"


def _among(address: str, listed: object) -> bool:
    # A bare string is a mistake for a list of one; `in` would look for a part of it.
    names: Iterable[object] = [listed] if isinstance(listed, str) or not isinstance(listed, Iterable) else listed
    return address.strip().casefold() in {str(name).strip().casefold() for name in names}


def signs_in() -> bool:
    """Whether people have to sign in here."""
    return _section("auth") is not None


def person() -> Person | None:
    """Who looks at the page; None where they have still to sign in."""
    if not signs_in():
        return Person(address="", role="editor")
    if not st.user.get("is_logged_in"):
        return None
    address = str(st.user.get("email") or "")
    role = role_of(address, st.user.get("email_verified"), _section("access") or {})
    return Person(address=address, role=role)


def may_change() -> bool:
    """Whether who looks at the page may spend and change."""
    who = person()
    return who is not None and who.role == "editor"


def only_editors(*, disabled: bool = False, help: str | None = None) -> dict[str, Any]:
    """`disabled` and `help` of a widget that spends or changes something."""
    return {"disabled": disabled, "help": help} if may_change() else {"disabled": True, "help": READ_ONLY}


def providers() -> list[str]:
    """The names of the identity providers, `[auth.NAME]`; none where `[auth]` itself is the only one."""
    return [name for name, value in (_section("auth") or {}).items() if isinstance(value, Mapping)]


def _section(name: str) -> Mapping[str, Any] | None:
    section = st.secrets.get(name) if st.secrets.load_if_toml_exists() else None
    return section if isinstance(section, Mapping) else None


# ---- who may reach the server ------------------------------------------------------------------


def why_not_listen(address: str | None, *, sign_in: bool, env: Mapping[str, str]) -> str:
    """Why the server must not listen at this `server.address`, or "". None and "" are every address of the machine."""
    if sign_in or is_loopback(address) or env.get(ALLOW_PUBLIC) == "yes":
        return ""
    where = f"at {address}" if address else "at every address of this machine"
    return (
        f"Not started: the app would listen {where} and anybody who can reach it could spend your money. Remove"
        " server.address (it is then 127.0.0.1), or put [auth] and [access] into .streamlit/secrets.toml, or, where"
        f" something before it asks who people are, set {ALLOW_PUBLIC}=yes."
    )


class Gate:
    """Refuses, with status 403 and nothing of the app, whom the app is not for.

    First what came in at an address beyond this machine, by the rule of `why_not_listen`: a server such as
    `uvicorn app:app --host 0.0.0.0` never asks for `server.address`, but says of every request where it came in. Then,
    where nobody has to sign in, what was asked of another name than this machine's: any page that somebody visits can
    have its own name point at 127.0.0.1 (DNS rebinding) and would then read everything here. Last, websockets and
    what changes something, unless they come from a page of this server: browsers say in `Origin` whose page it is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An HTTP request or a websocket is let through, or refused."""
        app = self._app
        if scope["type"] != "lifespan" and (why := _against(scope)):
            app = PlainTextResponse(why, 403) if scope["type"] == "http" else WebSocketClose(1008)
        await app(scope, receive, send)


def _against(scope: Scope) -> str:
    """Why a request or websocket is refused, or ""."""
    signed, env = signs_in(), os.environ
    if why_not_listen((scope.get("server") or ("",))[0], sign_in=signed, env=env):
        return NOT_HERE
    hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
    if len(hosts) != 1 or not (place := host_and_port(hosts[0])):
        return NOT_THAT_NAME
    if not (signed or env.get(ALLOW_PUBLIC) == "yes" or is_loopback(place[0]) or place[0] in listed_hosts(env)):
        return NOT_THAT_NAME
    if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return ""
    for origin in origins:
        told = host_and_port(urlsplit(origin).netloc)
        if told != place and (not told or told[0] not in listed_hosts(env)):
            return NOT_THAT_NAME
    return ""


def _headers(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == wanted]


def host_and_port(host: str) -> tuple[str, str] | None:
    """The name or address, in small letters, and the port ("" without one) of a Host header; None for anything else."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::(\d*))?", host.strip().lower())
    return (found[1] or found[2], found[3] or "") if found else None


def listed_hosts(env: Mapping[str, str]) -> set[str]:
    """The names in `ROUTER_HOSTS`, which the app answers to without sign-in."""
    return {place[0] for one in env.get(HOSTS, "").split(",") if (place := host_and_port(one))}


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can reach a server at this address: `localhost` and names under it, 127.x.x.x, ::1."""
    if not address:
        return False
    if address == "localhost" or address.endswith(".localhost"):  # the latter too are never looked up: RFC 6761
        return True
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:  # a name, which may be any machine's
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback  # ::ffff:127.0.0.1 is how `::` says 127.0.0.1
