"""The environment, the secrets file and `router.toml`: what they mean, and that no mistake in them passes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from router.config import Settings, load_settings
from router.domain.errors import BadInput

CANARY = "canary-in-the-file-51"
ENDPOINT = '[endpoints.mine]\nbase_url = "http://127.0.0.1:11434/v1"\n'
MODEL = """
[[models]]
id = "mine/nomic-embed-text"
space = "mine/nomic-embed-text"
dimensions = 768
tokenizer = "bytes"
limits = { texts_per_call = 64, tokens_per_text = 2048 }
prices = [{ since = 2026-01-01, now = "0", source = "our own machine", checked = 2026-01-01 }]
"""
MIRROR = """
[endpoints.mirror]
base_url = "https://mirror.example/v1"
key_variable = "MIRROR_KEY"
encoding = "float"
max_in_flight = 4
timeout_s = 12.5

[[models]]
id = "mirror/text-embedding-3-small"
like = "openai/text-embedding-3-small"
name = "my-deployment"
prices = [{ since = 2026-01-01, now = "0.03", source = "contract", checked = 2026-01-01 }]
"""


def load(folder: Path, text: str, **env: str) -> Settings:
    """The settings with this `router.toml`."""
    (folder / "router.toml").write_text(text, encoding="utf-8")
    return load_settings(folder, env=env)


def test_keys_and_urls_come_from_the_environment(tmp_path: Path) -> None:
    """Each provider has its own variables; white space around a key is not part of it; an empty one is none."""
    found = load(tmp_path, "", OPENAI_API_KEY=" k1\n", CO_API_URL="http://co", VOYAGE_API_KEY="  ").endpoints
    assert found["openai"].key is not None
    assert found["openai"].key.reveal() == "k1"
    assert (found["cohere"].key, found["cohere"].base_url) == (None, "http://co")
    assert (found["voyage"].key, found["voyage"].base_url) == (None, "https://api.voyageai.com/v1")


def test_keys_come_from_the_secrets_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.streamlit/secrets.toml` holds keys by the same names; the environment goes first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit/secrets.toml").write_text('CO_API_KEY = "s"\nOPENAI_API_KEY = "s"\nMIRROR_KEY = "s"\n')
    found = load(tmp_path, MIRROR, OPENAI_API_KEY="e").endpoints
    assert {name: e.key.reveal() for name, e in found.items() if e.key} == {"openai": "e", "cohere": "s", "mirror": "s"}


def test_limits_of_a_provider(tmp_path: Path) -> None:
    """`[providers.NAME]` sets what is asked of a provider."""
    openai = load(tmp_path, "[providers.openai]\nmax_in_flight = 8\ntimeout_s = 2.5\n").endpoints["openai"]
    assert (openai.max_in_flight, openai.timeout_s, openai.requests_per_minute) == (8, 2.5, None)


def test_a_server_of_ones_own_needs_no_key(tmp_path: Path) -> None:
    """Without `key_variable` an endpoint counts as configured, and some key is sent since the SDK insists."""
    settings = load(tmp_path, ENDPOINT + MODEL)
    mine = settings.endpoints["mine"]
    assert (mine.wire, mine.encoding, mine.base_url) == ("openai", "base64", "http://127.0.0.1:11434/v1")
    assert mine.key is not None
    model = settings.catalog.get("mine/nomic-embed-text")
    assert (model.name, model.prices[0].now) == ("nomic-embed-text", Decimal(0))


def test_a_mirror_is_like_the_model_it_mirrors(tmp_path: Path) -> None:
    """`like` takes everything but name and prices, so that space, size and scores cannot drift apart."""
    settings = load(tmp_path, MIRROR, MIRROR_KEY="m")
    mirror, model = settings.endpoints["mirror"], settings.catalog.get("mirror/text-embedding-3-small")
    assert (mirror.encoding, mirror.max_in_flight, mirror.timeout_s) == ("float", 4, 12.5)
    assert mirror.key is not None
    assert mirror.key.reveal() == "m"
    original = settings.catalog.get("openai/text-embedding-3-small")
    for field in ("space", "dimensions", "default_dimensions", "sizes", "roles", "tokenizer", "limits", "scores"):
        assert getattr(model, field) == getattr(original, field), field
    assert (model.name, model.prices[0].now) == ("my-deployment", Decimal("0.03"))
    assert original.prices[0].now == Decimal("0.02")


def test_like_works_for_families_and_is_overridden(tmp_path: Path) -> None:
    """Sizes that are a list come along, and what the model says itself goes first."""
    text = MIRROR.replace("openai/text-embedding-3-small", "voyage/voyage-4").replace(
        'encoding = "float"', 'wire = "voyage"'
    )
    text += "limits = { texts_per_call = 8 }\n"
    model = load(tmp_path, text).catalog.get("mirror/text-embedding-3-small")
    assert (model.space, model.sizes, model.roles) == ("voyage-4", (1024, 512, 256), True)
    assert (model.limits.texts_per_call, model.limits.tokens_per_text) == (8, None)


def test_without_its_key_an_endpoint_is_not_configured(tmp_path: Path) -> None:
    """A `key_variable` that is not set leaves the endpoint without a key, as with the built-in ones."""
    assert load(tmp_path, MIRROR).endpoints["mirror"].key is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[provider.openai]\n", "router.toml, key `provider`: unknown key. Known are: providers, endpoints"),
        ("providers = 3\n", "key `providers`: it must be a table"),
        ("[endpoints]\nmine = 3\n", "endpoints, key `mine`: it must be a table"),
        ("[providers.opnai]\nmax_in_flight = 3\n", "unknown provider 'opnai'"),
        (
            "[providers.openai]\nmax_inflight = 3\n",
            r"\[providers\.openai\], key `max_inflight`: unknown key. Known are: max_texts_per_call,",
        ),
        (
            "[providers.openai]\nmax_in_flight = 0\n",
            "max_in_flight`: it must be a whole number from 1 to 10,000, not 0",
        ),
        ("[providers.openai]\nmax_in_flight = true\n", "max_in_flight`: it must be a whole number, not True"),
        ('[providers.openai]\nbase_url = "http://x"\n', "key `base_url`: unknown key"),
        ('[endpoints.openai]\nbase_url = "http://x"\n', "cannot be called 'openai'"),
        ('[endpoints.local]\nbase_url = "http://x"\n', "cannot be called 'local'"),
        ('[endpoints.Mine]\nbase_url = "http://x"\n', "cannot be called 'Mine'"),
        ("[endpoints.mine]\n", "key `base_url`: it must be a URL like"),
        ('[endpoints.mine]\nbase_url = "ftp://x"\n', "key `base_url`: it must be a URL like"),
        (ENDPOINT + 'wire = "local"\n', "key `wire`: it must be the wire of a server: openai,"),
        (ENDPOINT + "encoding = 64\n", "key `encoding`: it is not one of base64, float"),
        (ENDPOINT + "sends_dimensions = true\n", "key `sends_dimensions`: unknown key. Known are: wire, "),
        (MODEL, "'mine', which is not configured"),
        (ENDPOINT + MODEL + "roles = true\n", "nothing tells its endpoint a query"),
        (ENDPOINT + MODEL + MODEL, "given twice"),
        (ENDPOINT + MODEL.replace("768", '"768"'), "dimensions"),
        (
            ENDPOINT + MODEL.replace("mine/nomic-embed-text", "openai/text-embedding-3-small", 1),
            "in the catalog already",
        ),
        (MIRROR.replace("like = ", "dimensions = 512\nlike = "), "differ in `dimensions`: 512 and 1536"),
        (MIRROR.replace("like = ", "like = 3 # "), "no model '3'"),
        (MIRROR.replace('text-embedding-3-small"\nname', 'text-embedding-3-smal"\nname'), "Did you mean"),
        ("models = 3\n", "array of tables"),
        ("models = [3]\n", "key `models`: it must be a table"),
        ("= 3", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    """Every key, name and value that is not understood is refused, and the message says where it stands."""
    with pytest.raises(BadInput, match=says):
        load(tmp_path, text)


@pytest.mark.parametrize(
    "line",
    [
        f'key = "{CANARY}"',
        f'api_key = "{CANARY}"',
        f'key_variable = "sk-{CANARY}"',
        f'wire = "{CANARY}"',
        f'encoding = "{CANARY}"',
    ],
)
def test_a_key_in_the_file_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    """Keys belong in the environment; one written into `router.toml` is not shown in the refusal."""
    with pytest.raises(BadInput) as caught:
        load(tmp_path, ENDPOINT + line + "\n")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url", [f"https://user:{CANARY}@host/v1", f"https://host/v1?key={CANARY}", f"https://{CANARY}@h"]
)
def test_a_url_with_a_key_in_it_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    """Base URLs are shown on pages, so they hold no secrets."""
    with pytest.raises(BadInput) as caught:
        load(tmp_path, f'[endpoints.mine]\nbase_url = "{url}"\n')
    assert CANARY not in str(caught.value)


def test_keys_do_not_print(tmp_path: Path) -> None:
    """Neither settings nor endpoints show a key when they are printed."""
    settings = load(tmp_path, MIRROR, MIRROR_KEY=CANARY, OPENAI_API_KEY=CANARY)
    assert settings.endpoints["mirror"].key is not None
    for shown in (settings, settings.endpoints, settings.endpoints["mirror"], settings.endpoints["mirror"].key):
        assert CANARY not in repr(shown) + str(shown)
