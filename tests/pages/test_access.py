"""Sign-in: nothing of a page runs before it, a stranger stays outside, a viewer looks and cannot touch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from pages.components import access
from router.host import host
from tests.pages.conftest import MAIN
from tests.pages.test_pages import PAGES, button, words

ALLOWED = {"editors": ["Edith@Example.com"], "viewers": ["victor@example.com"]}
Enter = Callable[..., AppTest]


@pytest.fixture
def enter(data: Path) -> Enter:
    """`enter("spend", "a@b.c")` opens a page as this person, where people have to sign in; "" has not signed in."""

    def run(name: str, address: str, *, verified: bool | None = True, **query: str) -> AppTest:
        app = AppTest.from_file(MAIN, default_timeout=120)
        app.secrets.update({"auth": {"client_id": "x"}, "access": ALLOWED})
        app.user = {"is_logged_in": bool(address)}
        if address:
            app.user |= {"email": address} | ({} if verified is None else {"email_verified": verified})
        for key, value in query.items():
            app.query_params[key] = value
        return (app if name == "overview" else app.switch_page(f"{name}.py")).run()

    return run


def forge(element):  # type: ignore[no-untyped-def]  # AppTest's elements are not public
    """The element as a client has it that does not care what is disabled."""
    assert element.disabled
    element.proto.disabled = False
    return element


@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_before_sign_in(name: str, data: Path, enter: Enter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever page is asked: a button to sign in, no figure, no switch, and the data folder is not even opened."""
    app = enter(name, "")
    assert not app.exception
    assert [b.label for b in app.button] == ["Sign in"]
    assert not [*app.metric, *app.toggle, *app.dataframe, *app.caption]
    assert not data.exists()


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_stays_outside_and_is_told_why(name: str, data: Path, enter: Enter) -> None:
    """Signed in, but not on the list; or on it with an address that nobody verified."""
    for address, verified in (("mallory@example.com", True), ("edith@example.com", False)):
        app = enter(name, address, verified=verified)
        assert not app.exception
        assert "may not use this app" in words(app)
        assert [b.label for b in app.button] == ["Sign out"]
        assert not data.exists()


@pytest.mark.parametrize("name", PAGES)
def test_a_viewer_sees_every_page(name: str, enter: Enter) -> None:
    """Each page is drawn, with who it is and the switch out of reach."""
    app = enter(name, "victor@example.com")
    assert not app.exception
    assert len(app.title) == 1
    assert "victor@example.com · viewer" in words(app).replace("⁠", "")
    assert app.sidebar.toggle[0].disabled


def test_a_viewer_can_neither_save_nor_stop_nor_embed_nor_add_a_key(data: Path, enter: Enter) -> None:
    """The buttons say why; a click or a change that is sent all the same does nothing."""
    app = enter("policies", "victor@example.com", policy="default")
    app.text_input(key="amount 0 default/1").set_value("8").run()
    save = button(app, "Save")
    assert save.help == access.READ_ONLY
    forge(save).click().run()
    forge(app.sidebar.toggle[0]).set_value(False).run()
    assert len(host().router.policies.versions("default")) == 1
    assert host().router.policies.paid_enabled()
    app = enter("overview", "victor@example.com")
    sample = button(app, "Embed six sample texts (free, local)")
    forge(sample).click().run()
    assert "samples" not in app.session_state
    app = enter("connections", "victor@example.com")
    forge(app.text_input(key="key openai")).set_value("sk-forged")
    forge(app.button(key="FormSubmitter:form openai-Use key")).click().run()
    assert host().router.settings.endpoints["openai"].key is None
    forge(app.button(key="test local")).click().run()
    assert "tested local" not in app.session_state
    app = enter("route", "victor@example.com")
    app.text_area(key="texts").set_value("a text")
    app.selectbox(key="policy").set_value("local").run()
    forge(app.button(key="embed")).click().run()
    assert "embedding" not in app.session_state
    assert not host().router.usage.requests(since=0, until=2e12)


def test_an_editor_does_everything(enter: Enter) -> None:
    """Addresses are compared without regard to case; a provider that does not speak of verification is believed."""
    app = enter("policies", "edith@example.com", verified=None, policy="default")
    app.text_input(key="amount 0 default/1").set_value("8").run()
    button(app, "Save").click().run()
    assert not app.exception
    assert len(host().router.policies.versions("default")) == 2
    assert "edith@example.com · editor" in words(app).replace("⁠", "")


def test_without_a_section_nobody_has_to_sign_in(data: Path) -> None:
    """Off by default; secrets with keys alone do not turn it on."""
    app = AppTest.from_file(MAIN, default_timeout=120)
    app.secrets["OPENAI_API_KEY"] = "k"
    app.run()
    assert not app.exception
    assert not app.sidebar.toggle[0].disabled
    assert all(b.label != "Sign out" for b in app.button)


@pytest.mark.parametrize(
    ("address", "verified", "listed", "role"),
    [
        ("a@b.c", True, {"editors": ["a@b.c"], "viewers": ["a@b.c"]}, "editor"),
        ("A@B.c ", None, {"viewers": ["a@b.c"]}, "viewer"),
        ("a@b.c", True, {}, "stranger"),
        ("a@b.c", False, {"editors": ["a@b.c"]}, "stranger"),
        ("a@b.c", "false", {"editors": ["a@b.c"]}, "stranger"),
        ("", None, {"editors": [""]}, "stranger"),
        ("b.c", True, {"editors": "a@b.c"}, "stranger"),
        ("a@b.c", True, {"editors": "a@b.c"}, "editor"),
        ("a@b.c", True, {"editors": 7}, "stranger"),
    ],
)
def test_roles(address: str, verified: object, listed: dict[str, object], role: str) -> None:
    """Nobody is let in by an empty list, a part of an address, or an address that is not verified."""
    assert access.role_of(address, verified, listed) == role


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("", False), (None, False), ("192.168.1.4", False), ("8.8.8.8", False),
        ("my-machine", False), ("localhost.example.com", False), ("127.0.0.1.example.com", False),
    ],
)  # fmt: skip
def test_a_public_address_needs_sign_in(address: str | None, loopback: bool) -> None:
    """An empty address is every address of the machine; only the words in full allow it without sign-in."""
    assert access.is_loopback(address) is loopback
    assert (access.why_not_listen(address, sign_in=False, env={}) == "") is loopback
    assert access.why_not_listen(address, sign_in=True, env={}) == ""
    assert access.why_not_listen(address, sign_in=False, env={access.ALLOW_PUBLIC: "yes"}) == ""
    for word in ("1", "true", "", "no"):
        refused = access.why_not_listen(address, sign_in=False, env={access.ALLOW_PUBLIC: word})
        assert (refused == "") is loopback
        assert loopback or access.ALLOW_PUBLIC in refused


@pytest.mark.parametrize(
    ("server", "passes"),
    [
        (("127.0.0.1", 8501), True), (("::1", 8501), True), (("::ffff:127.0.0.1", 8501), True),
        (("192.168.1.4", 8501), False), (("::ffff:192.168.1.4", 8501), False), (("fe80::1%eth0", 8501), False),
        (("/run/app.sock", None), False), (None, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("open_by", ["", "sign-in", "words"])
async def test_a_server_that_asks_nobody_where_to_listen_is_gated(
    kind: str, server: tuple[str, int | None] | None, passes: bool, open_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uvicorn app:app --host 0.0.0.0`: what comes in at another address than loopback is refused, as at the start."""
    monkeypatch.setattr(access, "signs_in", lambda: open_by == "sign-in")
    if open_by == "words":
        monkeypatch.setenv(access.ALLOW_PUBLIC, "yes")
    reached, sent = [], []

    async def inner(scope: object, receive: object, send: object) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "server": server, "method": "GET", "headers": [(b"host", b"localhost")]}
    await access.Gate(inner)(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    assert bool(reached) is (passes or open_by != "")
    assert bool(sent) is not bool(reached)
    if sent and kind == "http":
        assert sent[0]["status"] == 403
        assert access.ALLOW_PUBLIC.encode() in sent[1]["body"]
    elif sent:
        assert sent[0]["type"] == "websocket.close"


HERE = "127.0.0.1:8501"


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        (HERE, None, True), (HERE, f"http://{HERE}", True), ("localhost:8501", "http://localhost:8501", True),
        ("LOCALHOST.:8501", "http://localhost:8501", True), ("[::1]:8501", "http://[::1]:8501", True),
        ("app.localhost", "http://app.localhost", True), ("router.lan", "https://router.lan", True),
        ("router.lan:8501", "https://elsewhere.lan", True), ("evil.example", "http://evil.example", False),
        ("evil.example:8501", None, False), ("127.0.0.1.evil.example", None, False),
        ("localhost.evil.example", None, False), ("notlocalhost", None, False), ("user@127.0.0.1", None, False),
        ("127.0.0.1@evil.example", None, False), ("127.0.0.1 evil.example", None, False), ("", None, False),
        (None, None, False), ("0.0.0.0:8501", None, False), (HERE, "http://evil.example", False), (HERE, "null", False),
        (HERE, "http://127.0.0.1:9999", False), (HERE, "http://localhost:8501", False),
        (HERE, f"http://{HERE}@evil.example", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "method"), [("websocket", "GET"), ("http", "POST"), ("http", "PUT"), ("http", "GET")])
async def test_only_this_machines_names_and_pages_of_this_server_are_answered(
    kind: str, method: str, host: str | None, origin: str | None, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that was pointed at 127.0.0.1 is still the name that is asked for; reading a page needs no Origin."""
    monkeypatch.setattr(access, "signs_in", lambda: False)
    monkeypatch.setenv(access.HOSTS, "router.lan, elsewhere.lan")
    reached = await through_the_gate(kind, method, [host], origin)
    only_host = (kind, method) == ("http", "GET")
    assert reached is (passes or (only_host and host == HERE))


async def through_the_gate(kind: str, method: str, hosts: list[str | None], origin: str | None) -> bool:
    """Whether a request comes through to the app."""
    reached = []

    async def inner(scope: object, receive: object, send: object) -> None:
        reached.append(scope)

    async def send(message: Any) -> None:
        assert message.get("status", 403) == 403

    headers = [(b"host", host.encode()) for host in hosts if host is not None]
    headers += [(b"origin", origin.encode())] if origin is not None else []
    scope = {"type": kind, "server": ("127.0.0.1", 8501), "method": method, "headers": headers}
    await access.Gate(inner)(scope, None, send)  # type: ignore[arg-type]  # nothing is received
    return bool(reached)


async def test_two_host_headers_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands between may go by the other one."""
    monkeypatch.setattr(access, "signs_in", lambda: False)
    assert not await through_the_gate("http", "GET", [HERE, "evil.example"], None)


async def test_with_sign_in_the_name_is_the_deployments_and_the_origin_must_be_its(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """People have to say who they are; a page of another host can still press no button in their name."""
    monkeypatch.setattr(access, "signs_in", lambda: True)
    assert await through_the_gate("http", "GET", ["router.example.org"], None)
    assert await through_the_gate("websocket", "GET", ["router.example.org"], "https://router.example.org")
    assert not await through_the_gate("websocket", "GET", ["router.example.org"], "https://evil.example")


def test_the_gate_stands_before_the_app() -> None:
    """The app that any server imports has it, outermost."""
    import app

    assert app.app._user_middleware[0].cls is access.Gate
