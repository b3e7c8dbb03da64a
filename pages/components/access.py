"""Access control: who may see the pages, and who may change something.

Without `[auth]` in .streamlit/secrets.toml there is no sign-in, and only this machine is answered. With it, people sign
in by OpenID Connect, and `[access]` lists the `editors`, who may do everything, and the `viewers`, who may only look. A
viewer's buttons are disabled; Streamlit's server ignores a click on a disabled widget, so forging one does nothing.
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

READ_ONLY = "You are signed in as a viewer, so you cannot spend or change anything."
ALLOW_PUBLIC = "ROUTER_ALLOW_PUBLIC_WITHOUT_SIGN_IN"
NOT_PUBLIC = f"Without sign-in, only this machine is answered. See README.md: [auth], {ALLOW_PUBLIC}.\n"
HOSTS = "ROUTER_HOSTS"
UNKNOWN_HOST = (
    "This app answers only to localhost and 127.0.0.1, so that no web page can reach it under another name."
    f" To use another name, list it in {HOSTS}.\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who looks at the page. `address` is empty where there is no sign-in."""

    address: str
    role: Role


def role_of(address: str, verified: object, access: Mapping[str, Any]) -> Role:
    """The role that `[access]` gives an email address; one that the identity provider has not verified gets none."""
    if not address or verified not in (None, True):  # a provider that does not say so is trusted
        return "stranger"
    if _is_listed(address, access.get("editors", ())):
        return "editor"
    return "viewer" if _is_listed(address, access.get("viewers", ())) else "stranger"


def _is_listed(address: str, listed: object) -> bool:
    # A bare string is meant as a list of one; `in` would search it for a part.
    names: Iterable[object] = [listed] if isinstance(listed, str) or not isinstance(listed, Iterable) else listed
    return address.strip().casefold() in {str(name).strip().casefold() for name in names}


def signs_in() -> bool:
    """Whether sign-in is configured."""
    return _section("auth") is not None


def person() -> Person | None:
    """Who looks at the page; None where they have not signed in yet."""
    if not signs_in():
        return Person(address="", role="editor")
    if not st.user.get("is_logged_in"):
        return None
    address = str(st.user.get("email") or "")
    role = role_of(address, st.user.get("email_verified"), _section("access") or {})
    return Person(address=address, role=role)


def may_change() -> bool:
    """Whether the person may spend and change things."""
    who = person()
    return who is not None and who.role == "editor"


def only_editors(*, disabled: bool = False, help: str | None = None) -> dict[str, Any]:
    """Arguments `disabled` and `help` of a widget that spends or changes something."""
    return {"disabled": disabled, "help": help} if may_change() else {"disabled": True, "help": READ_ONLY}


def providers() -> list[str]:
    """The names of the identity providers, `[auth.NAME]`; empty where `[auth]` itself is the only one."""
    return [name for name, value in (_section("auth") or {}).items() if isinstance(value, Mapping)]


def _section(name: str) -> Mapping[str, Any] | None:
    section = st.secrets.get(name) if st.secrets.load_if_toml_exists() else None
    return section if isinstance(section, Mapping) else None


# ---- the server --------------------------------------------------------------------------------


def why_not_listen(address: str | None, *, sign_in: bool, env: Mapping[str, str]) -> str:
    """Why the server must not listen at this `server.address`, or "". None and "" mean every address of the machine."""
    if sign_in or is_loopback(address) or env.get(ALLOW_PUBLIC) == "yes":
        return ""
    where = f"at {address}" if address else "at every address of this machine"
    return (
        f"Not started: the app would listen {where}, and anybody who can reach it could spend your money. Remove"
        " server.address (the default is 127.0.0.1), or put [auth] and [access] into .streamlit/secrets.toml, or set"
        f" {ALLOW_PUBLIC}=yes if a proxy in front of it signs people in."
    )


class Gate:
    """Middleware that refuses requests from elsewhere with status 403. In this order:

    - by the rule of `why_not_listen`, what arrives at an address that others can reach: a server such as `uvicorn
      app:app --host 0.0.0.0` never reads `server.address`, but names the address of every request;
    - without sign-in, a `Host` that is not this machine's: a web page can have its own name point at 127.0.0.1 (DNS
      rebinding) and would then read everything here;
    - websockets, and requests that change something, whose `Origin` is not a page of this server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an HTTP request or a websocket on, or refuse it."""
        app = self._app
        if scope["type"] != "lifespan" and (why := _why_refused(scope)):
            app = PlainTextResponse(why, 403) if scope["type"] == "http" else WebSocketClose(1008)
        await app(scope, receive, send)


def _why_refused(scope: Scope) -> str:
    """Why a request or websocket is refused; "" where it is not."""
    signed, env = signs_in(), os.environ
    if why_not_listen((scope.get("server") or ("",))[0], sign_in=signed, env=env):
        return NOT_PUBLIC
    hosts, origins = _headers(scope, b"host"), _headers(scope, b"origin")
    if len(hosts) != 1 or not (place := host_and_port(hosts[0])):
        return UNKNOWN_HOST
    if not (signed or env.get(ALLOW_PUBLIC) == "yes" or is_loopback(place[0]) or place[0] in listed_hosts(env)):
        return UNKNOWN_HOST
    if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return ""
    for origin in origins:
        told = host_and_port(urlsplit(origin).netloc)
        if told != place and (not told or told[0] not in listed_hosts(env)):
            return UNKNOWN_HOST
    return ""


def _headers(scope: Scope, wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope.get("headers", ()) if name.lower() == wanted]


def host_and_port(host: str) -> tuple[str, str] | None:
    """The host, in lower case, and the port ("" without one) of a Host header; None where it is malformed."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+?)\.?)(?::(\d*))?", host.strip().lower())
    return (found[1] or found[2], found[3] or "") if found else None


def listed_hosts(env: Mapping[str, str]) -> set[str]:
    """The names in `ROUTER_HOSTS`: the app answers to them without sign-in."""
    return {place[0] for one in env.get(HOSTS, "").split(",") if (place := host_and_port(one))}


def is_loopback(address: str | None) -> bool:
    """Whether an address can be reached from this machine only: `localhost`, names under it, 127.x.x.x, ::1."""
    if not address:
        return False
    if address == "localhost" or address.endswith(".localhost"):  # RFC 6761: neither is looked up
        return True
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:  # a name, which may be another machine's
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback  # `::` reports 127.0.0.1 as ::ffff:127.0.0.1
