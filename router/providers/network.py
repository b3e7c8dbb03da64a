"""What decides how a provider is reached: its base URL, a proxy and the certificates that are trusted.

All three are looked at before a client is made, so that a setting that cannot work is named before anything is sent.
httpx2 (which openai brings) would read the same variables; it says neither which one is wrong nor which proxy it took.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

from router.config import Endpoint
from router.domain.errors import NotConfigured

if TYPE_CHECKING:
    from httpx2 import URL

SCHEMES = ("http", "https")
SOCKS = ("socks5", "socks5h")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
UNREAD = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables by which other programs name their certificates; they are not read here."""
_NOTHING = "Nothing was sent or billed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that calls go through. `setting` is the variable that names it, `place` its host and port."""

    setting: str
    place: str
    url: str = field(repr=False)  # it may hold a password


def check_address(endpoint: Endpoint) -> URL:
    """The base URL of an endpoint.

    Raises:
        NotConfigured: it is none that can be called. It is not repeated: it may hold a password.
    """
    try:
        return _parse(endpoint.base_url, SCHEMES)
    except ValueError as exc:
        raise NotConfigured(
            f"{endpoint.url_setting} is not an address: {exc}.", f"Write it like https://host/v1. {_NOTHING}"
        ) from None


def check_proxy(url: URL) -> Proxy | None:
    """The proxy that the environment names for an address, or None.

    Raises:
        NotConfigured: it cannot be used, and why.
    """
    named = getproxies()
    scheme = next((scheme for scheme in (url.scheme, "all") if named.get(scheme)), None)
    if scheme is None or proxy_bypass(url.host):  # NO_PROXY
        return None
    variables = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    setting = next((name for name in variables if os.environ.get(name)), "the proxy in the system's settings")
    address = named[scheme] if "://" in named[scheme] else f"http://{named[scheme]}"
    try:
        parsed = _parse(address, (*SCHEMES, *SOCKS))
    except ValueError as exc:
        raise NotConfigured(
            f"{setting} is not the address of a proxy: {exc}.", f"Write it like http://host:3128. {_NOTHING}"
        ) from None
    if parsed.scheme in SOCKS and importlib.util.find_spec("socksio") is None:
        raise NotConfigured(
            f"{setting} names a SOCKS proxy, and the package that speaks with one is not installed.",
            f"Run `pip install socksio`, or name an HTTP proxy. {_NOTHING}",
        )
    return Proxy(setting=setting, place=place_of(parsed), url=address)


def check_certificates() -> ssl.SSLContext:
    """The certificates that are trusted: SSL_CERT_FILE's, else SSL_CERT_DIR's, else the system's.

    Raises:
        NotConfigured: they cannot be read; the variable and the file are named.
    """
    from httpx2 import create_ssl_context

    setting = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    path = Path(os.environ[setting]) if setting else None
    what = f"{setting} names {path}" if setting else "The system's certificates cannot be read"
    hint = f"Name certificates that are there, or unset {setting}. {_NOTHING}" if setting else _NOTHING
    if path is not None and not (path.is_file() if setting == "SSL_CERT_FILE" else path.is_dir()):
        kind = "file" if setting == "SSL_CERT_FILE" else "folder"
        raise NotConfigured(f"{what}, and there is no such {kind}.", hint)
    try:
        return create_ssl_context()
    except OSError as exc:  # SSLError is one
        if exc.filename is None:
            raise NotConfigured(f"{what}, in which there is no certificate that can be read.", hint) from exc
        raise NotConfigured(
            f"{exc.filename} cannot be opened: {exc.strerror}.", f"See SSLKEYLOGFILE. {_NOTHING}"
        ) from exc


def place_of(url: URL) -> str:
    """`host:port` of an address, without what else it may hold."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme, 1080)
    return f"{url.host}:{port}"


def _parse(address: str, schemes: tuple[str, ...]) -> URL:
    """A URL.

    Raises:
        ValueError: what is wrong with it.
    """
    from httpx2 import URL, InvalidURL

    try:
        url = URL(address.strip())
    except InvalidURL:
        raise ValueError("it cannot be read as a URL") from None
    if url.scheme not in schemes:
        raise ValueError(f"it begins with none of {', '.join(f'{scheme}://' for scheme in schemes)}")
    if not url.host or "%" in url.host:
        raise ValueError("it names no host")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise ValueError("its port is not a number from 1 to 65,535")
    return url
