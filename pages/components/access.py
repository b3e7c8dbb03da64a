"""Who may do what. Without `[auth]` in .streamlit/secrets.toml: whoever can open the page, which is this machine.

With it, Streamlit's OpenID Connect says who somebody is, and `[access]` says what they may: `editors` everything,
`viewers` look, everybody else nothing. A viewer's buttons are disabled, which the server holds to as well: Streamlit
throws away the click of a disabled widget, also a forged one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

Role = Literal["editor", "viewer", "stranger"]

READ_ONLY = "You are signed in as a viewer: you see everything, but cannot spend or change anything."
ALLOW_PUBLIC = "ROUTER_ALLOW_PUBLIC_WITHOUT_SIGN_IN"


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


# ---- before the server listens -----------------------------------------------------------------


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


def is_loopback(address: str | None) -> bool:
    """Whether only this machine can reach a server at this address: `localhost`, 127.x.x.x, ::1."""
    if not address:
        return False
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:  # a name, which may be any machine's
        return False
