"""Who may do what. Without `[auth]` in .streamlit/secrets.toml: whoever can open the page, which is this machine.

With it, Streamlit's OpenID Connect says who somebody is, and `[access]` says what they may: `editors` everything,
`viewers` look, everybody else nothing. A viewer's buttons are disabled, which the server holds to as well: Streamlit
throws away the click of a disabled widget, also a forged one.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

Role = Literal["editor", "viewer", "stranger"]

READ_ONLY = "You are signed in as a viewer: you see everything, but cannot spend or change anything."
ALLOW_PUBLIC = "ROUTER_ALLOW_PUBLIC_WITHOUT_SIGN_IN"
NOT_HERE = f"Nobody has to sign in here, so only this machine is answered. See README.md: [auth], {ALLOW_PUBLIC}.\n"


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
    """Refuses what came in at an address beyond this machine, by the same rule as `why_not_listen`.

    `uvicorn app:app --host 0.0.0.0`, or another ASGI server, never asks for `server.address`; but it says of every
    request at which of the machine's addresses it came in.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An HTTP request or a websocket is let through, or refused with status 403."""
        app = self._app
        if scope["type"] != "lifespan":
            address = (scope.get("server") or ("",))[0]
            if why_not_listen(address, sign_in=signs_in(), env=os.environ):
                app = PlainTextResponse(NOT_HERE, 403) if scope["type"] == "http" else WebSocketClose(1008)
        await app(scope, receive, send)


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can reach a server at this address: `localhost`, 127.x.x.x, ::1."""
    if not address:
        return False
    if address == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:  # a name, which may be any machine's
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback  # ::ffff:127.0.0.1 is how `::` says 127.0.0.1
