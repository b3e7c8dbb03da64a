"""The catalog holds what the vendors say, and its reader lets no mistake through."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from router.domain.catalog import Catalog, merge, parse_catalog, quality, read_catalog
from router.domain.errors import BadInput
from router.domain.values import Model

CATALOG = Path(__file__).parents[2] / "router" / "catalog.toml"

GOOD = """
[meta]
scale = "S"
note = "n"

[[models]]
id = "acme/one"
space = "acme/one"
dimensions = 64
default_dimensions = 32
sizes = [32, 16]
tokenizer = "bytes"

[models.limits]
texts_per_call = 10

[[models.prices]]
since = 2026-01-01
now = "0.02"
batch = "0.01"
source = "page"
checked = 2026-01-01

[[models.prices]]
since = 2026-06-01
now = "0.03"
source = "page"
checked = 2026-06-01

[[models.scores]]
scale = "S"
value = 50
source = "run"
checked = 2026-01-01
"""


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    """The catalog of the project."""
    return parse_catalog(CATALOG.read_text(encoding="utf-8"), origin="catalog.toml")


def model(**changes: object) -> dict[str, object]:
    """A small valid model table with changes; a change to None removes the key."""
    table: dict[str, object] = {
        "id": "acme/one",
        "space": "acme/one",
        "dimensions": 64,
        "tokenizer": "bytes",
        "limits": {"texts_per_call": 10},
    }
    table.update(changes)
    return {key: value for key, value in table.items() if value is not None}


def price(**changes: object) -> dict[str, object]:
    """A small valid price table with changes; a change to None removes the key."""
    day = date(2026, 1, 1)
    table: dict[str, object] = {"since": day, "now": "0.02", "source": "page", "checked": day, **changes}
    return {key: value for key, value in table.items() if value is not None}


def score(**changes: object) -> dict[str, object]:
    """A small valid score table with changes."""
    return {"scale": "S", "value": 50.0, "source": "run", "checked": date(2026, 1, 1), **changes}


def read(*models: dict[str, object]) -> Catalog:
    """A catalog of these model tables."""
    return read_catalog({"models": list(models)}, origin="x.toml")


# ---- what ships --------------------------------------------------------------------------------

# id, space, full, default, sizes, texts a call, tokens a text, tokens a call, now, batch
V5, SMALL = (1536, 1024, 768, 512, 256), (768, 512, 256, 128)
LARGE = (2048, 1536, 1024, *SMALL)
SHIPPED = [
    ("openai/text-embedding-3-small", None, 1536, 1536, "any", 2048, 8192, 300_000, "0.02", "0.01"),
    ("openai/text-embedding-3-large", None, 3072, 3072, "any", 2048, 8192, 300_000, "0.13", "0.065"),
    ("openai/text-embedding-ada-002", None, 1536, 1536, (), 2048, 8192, 300_000, "0.10", "0.05"),
    ("cohere/embed-v5.0-pro", "embed-v5.0", 2048, 2048, V5, 96, 128_000, None, "0.12", None),
    ("cohere/embed-v5.0-fast", "embed-v5.0", 2048, 2048, V5, 96, 128_000, None, "0.08", None),
    ("cohere/embed-v4.0", None, 1536, 1536, (1024, 512, 256), 96, 128_000, None, "0.12", None),
    ("cohere/embed-english-v3.0", None, 1024, 1024, (), 96, 512, None, "0.10", None),
    ("cohere/embed-multilingual-v3.0", None, 1024, 1024, (), 96, 512, None, "0.10", None),
    ("voyage/voyage-4-large", "voyage-4", 2048, 1024, (1024, 512, 256), 1000, 32_000, 120_000, "0.12", "0.0804"),
    ("voyage/voyage-4", "voyage-4", 2048, 1024, (1024, 512, 256), 1000, 32_000, 320_000, "0.06", "0.0402"),
    ("voyage/voyage-4-lite", "voyage-4", 2048, 1024, (1024, 512, 256), 1000, 32_000, 1_000_000, "0.02", "0.0134"),
    ("voyage/voyage-3-large", None, 2048, 1024, (1024, 512, 256), 1000, 32_000, 120_000, "0.18", "0.1206"),
    ("voyage/voyage-3.5", None, 2048, 1024, (1024, 512, 256), 1000, 32_000, 320_000, "0.06", "0.0402"),
    ("voyage/voyage-3.5-lite", None, 2048, 1024, (1024, 512, 256), 1000, 32_000, 1_000_000, "0.02", "0.0134"),
    ("voyage/voyage-3", None, 1024, 1024, (), 1000, 32_000, 120_000, "0.06", "0.0402"),
    ("voyage/voyage-3-lite", None, 512, 512, (), 1000, 32_000, 120_000, "0.02", "0.0134"),
    ("gemini/gemini-embedding-2", None, 3072, 3072, (1536, 768), 100, 8_192, None, "0.20", None),
    ("mistral/mistral-embed", None, 1024, 1024, (), 512, 8_000, 16_000, "0.10", None),
    ("mistral/codestral-embed", None, 3072, 1536, (1536, 1024, 512, 256), 512, 8_192, 16_000, "0.15", None),
    *(
        (f"openrouter/{name}", name.split("/")[1], full, full, sizes, 128, 32_000, None, price, None)
        for name, full, sizes, price in (
            ("qwen/qwen3-embedding-0.6b", 1024, SMALL, "0.01"),
            ("qwen/qwen3-embedding-4b", 2560, LARGE, "0.02"),
            ("perplexity/pplx-embed-v1-0.6b", 1024, SMALL, "0.004"),
            ("perplexity/pplx-embed-v1-4b", 2560, LARGE, "0.03"),
        )
    ),
]


@pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row[0])
def test_paid_model_is_as_the_vendor_says(shipped: Catalog, row: tuple[object, ...]) -> None:
    """Each paid model has the vendor's sizes, limits and prices."""
    found = shipped.get(str(row[0]))
    (only,) = found.prices
    limits = found.limits
    assert (
        found.id,
        None if found.space == found.id else found.space,
        found.dimensions,
        found.default_dimensions,
        found.sizes,
        limits.texts_per_call,
        limits.tokens_per_text,
        limits.tokens_per_call,
        only.now,
        only.batch,
    ) == (*row[:8], Decimal(str(row[8])), None if row[9] is None else Decimal(str(row[9])))


def test_catalog_has_those_models_and_the_local_one(shipped: Catalog) -> None:
    """Nothing else ships, and the local model is free and stops at 256 tokens."""
    local_ids = {"local/all-MiniLM-L6-v2", "local/static-MiniLM"}
    assert {found.id for found in shipped.models} == {row[0] for row in SHIPPED} | local_ids
    local = shipped.get("local/all-MiniLM-L6-v2")
    assert (local.local, local.prices, local.dimensions, local.sizes) == (True, (), 384, ())
    assert (local.limits.tokens_per_text, local.tokenizer, local.languages) == (256, "wordpiece", "en")


def test_two_families_share_a_space_each(shipped: Catalog) -> None:
    """The three voyage-4 models and the two embed-v5.0 share one each; every other model is alone in its own."""
    by_space: dict[str, list[str]] = {}
    for found in shipped.models:
        by_space.setdefault(found.space, []).append(found.name)
    assert by_space["voyage-4"] == ["voyage-4-large", "voyage-4", "voyage-4-lite"]
    assert by_space["embed-v5.0"] == ["embed-v5.0-pro", "embed-v5.0-fast"]
    assert len(by_space) == len(shipped.models) - 3


def test_roles_and_tokenizers_follow_the_provider(shipped: Catalog) -> None:
    """Cohere and Voyage tell documents from queries by a field, Gemini and Qwen by a prefix; OpenAI's is exact."""
    for found in shipped.models:
        told = found.name.startswith(("gemini-embedding-2", "qwen/"))
        assert bool(found.prefix) == told
        assert found.roles == (told or found.provider in {"cohere", "voyage"})
        assert found.tokenizer == {"openai": "cl100k_base", "local": "wordpiece"}.get(found.provider, "bytes")


def test_second_hand_prices_are_marked(shipped: Catalog) -> None:
    """Exactly the prices that were not read at the vendor carry the mark."""
    now = {found.id for found in shipped.models if found.prices and found.prices[0].second_hand}
    batch = {found.id for found in shipped.models if found.prices and found.prices[0].batch_second_hand}
    assert now == {
        *("cohere/embed-english-v3.0", "cohere/embed-multilingual-v3.0"),
        *("cohere/embed-v5.0-pro", "cohere/embed-v5.0-fast", "gemini/gemini-embedding-2"),
        *("mistral/mistral-embed", "mistral/codestral-embed"),
        *("openrouter/qwen/qwen3-embedding-0.6b", "openrouter/qwen/qwen3-embedding-4b"),
        "openrouter/perplexity/pplx-embed-v1-4b",
    }
    assert batch == set()
    for model_id in now | batch:
        assert "second-hand" in shipped.get(model_id).prices[0].source


def test_every_price_and_score_says_where_and_when(shipped: Catalog) -> None:
    """No figure ships without a source and a day."""
    for found in shipped.models:
        assert found.source
        for figure in (*found.prices, *found.scores):
            assert figure.source
            assert figure.checked in (date(2026, 11, 1), date(2026, 11, 25))


def test_legacy_models_and_retirements_are_those_of_the_vendors(shipped: Catalog) -> None:
    """Voyage's generation 3 and Cohere's v3 have successors; the end of three is announced, for December 2027."""
    assert {found.id for found in shipped.models if found.legacy} == {
        *("cohere/embed-english-v3.0", "cohere/embed-multilingual-v3.0", "voyage/voyage-3-large", "voyage/voyage-3.5"),
        *("voyage/voyage-3.5-lite", "voyage/voyage-3", "voyage/voyage-3-lite"),
    }
    assert {found.id: found.retires for found in shipped.models if found.retires} == dict.fromkeys(
        ("voyage/voyage-3-large", "voyage/voyage-3.5", "voyage/voyage-3.5-lite"), date(2027, 12, 1)
    )
    assert [found.id for found in shipped.models if found.usage == "absent"] == ["gemini/gemini-embedding-2"]


@pytest.mark.parametrize(
    ("model_id", "rteb", "mteb"),
    [
        ("openai/text-embedding-3-small", 54.8, 53.5),
        ("openai/text-embedding-3-large", 62.0, 58.0),
        ("openai/text-embedding-ada-002", None, None),
        ("cohere/embed-english-v3.0", 50.2, 55.7),
        ("cohere/embed-multilingual-v3.0", None, None),
        ("cohere/embed-v4.0", 65.9, None),
        ("voyage/voyage-3-lite", None, 50.3),
        ("voyage/voyage-3", None, 53.5),
        ("voyage/voyage-3.5", 73.8, None),
        ("voyage/voyage-3.5-lite", None, None),
        ("voyage/voyage-3-large", 76.7, None),
        ("voyage/voyage-4-lite", 73.9, None),
        ("voyage/voyage-4", 76.3, None),
        ("voyage/voyage-4-large", 78.4, None),
        ("local/all-MiniLM-L6-v2", 42.7, 42.9),
    ],
)
def test_scores_are_the_published_ones(shipped: Catalog, model_id: str, rteb: float | None, mteb: float | None) -> None:
    """Scores are given where there is one, and a model without stays without."""
    found = shipped.get(model_id)
    assert shipped.scale == "RTEB-en"
    assert (quality(found, "RTEB-en"), quality(found, "MTEB-v2-en")) == (rteb, mteb)


def test_prices_agree_with_genai_prices(shipped: Catalog) -> None:
    """A second book of prices says the same for every model that it knows."""
    from genai_prices import Usage, calc_price

    compared = []
    for found in shipped.models:
        provider = {
            "openai": "openai",
            "voyage": "voyageai",
            "cohere": "cohere",
            "gemini": "google",
            "mistral": "mistral",
        }.get(found.provider)
        if provider is None:
            continue
        try:
            theirs = calc_price(Usage(input_tokens=1_000_000), found.name, provider_id=provider)
        except LookupError:
            continue
        assert theirs.input_price == found.prices[-1].now, found.id
        compared.append(found.id)
    assert set(compared) >= {
        str(row[0])
        for row in SHIPPED
        if not any(new in str(row[0]) for new in ("-v3.0", "-v5.0", "codestral", "router/"))
    }


# ---- looking up --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [
        ("text-embedding-3-small", "openai/text-embedding-3-small"),
        ("voyage/voyage4", "voyage/voyage-4"),
        ("zzz", "The catalog has openai/text-embedding-3-small"),
    ],
)
def test_unknown_model_names_the_closest(shipped: Catalog, asked: str, suggested: str) -> None:
    """An unknown id is refused with the ids that it may have meant."""
    with pytest.raises(BadInput) as caught:
        shipped.get(asked)
    assert asked in caught.value.message
    assert suggested in caught.value.hint


# ---- the reader --------------------------------------------------------------------------------


def test_reader_reads_every_field() -> None:
    """A full table arrives as it is written, prices as Decimal and in their order."""
    catalog = parse_catalog(GOOD, origin="x.toml")
    found: Model = catalog.get("acme/one")
    assert (catalog.scale, catalog.note) == ("S", "n")
    assert (found.provider, found.name, found.sizes, found.default_dimensions) == ("acme", "one", (32, 16), 32)
    assert [(each.now, each.batch) for each in found.prices] == [
        (Decimal("0.02"), Decimal("0.01")),
        (Decimal("0.03"), None),
    ]
    assert quality(found, "S") == 50.0
    assert (found.limits.tokens_per_text, found.limits.tokens_per_call) == (None, None)


def test_text_that_is_not_toml_is_refused() -> None:
    """A syntax error names the file and the line."""
    with pytest.raises(BadInput, match=r"x\.toml is not valid TOML.*line 1"):
        parse_catalog("models = ]", origin="x.toml")


@pytest.mark.parametrize(
    ("table", "place"),
    [
        (model(colour="red"), r" \(acme/one\), key `colour`"),
        (model(limits={"texts_per_call": 1, "rpm": 2}), "limits, key `rpm`"),
        (model(prices=[price(), price(until="x", since=date(2026, 2, 1))]), "prices 2, key `until`"),
        (model(scores=[score(task="x")]), "scores 1, key `task`"),
        (model(id=None), "key `id`: it is missing"),
        (model(space=None), "key `space`: it is missing"),
        (model(dimensions=None), "key `dimensions`: it is missing"),
        (model(tokenizer=None), "key `tokenizer`: it is missing"),
        (model(limits=None), "key `limits`: it is missing"),
        (model(limits={}), "key `texts_per_call`: it is missing"),
        (model(prices=[price(now=None)]), "key `now`: it is missing"),
        (model(prices=[price(source=None)]), "key `source`: it is missing"),
        (model(prices=[price(now="-0.01")]), "key `now`: '-0.01'"),
        (model(prices=[price(now="NaN")]), "key `now`: 'NaN'"),
        (model(prices=[price(now="cheap")]), "key `now`: 'cheap'"),
        (model(prices=[price(now=0.02)]), "key `now`: it must be a string"),
        (model(prices=[price(batch="-1")]), "key `batch`: '-1'"),
        (model(prices=[price(since="2026-01-01")]), "key `since`: it must be a date"),
        (model(prices=[price(), price()]), "prices 2, key `since`: 2026-01-01 is not after"),
        (model(prices={}), "key `prices`: it must be an array of tables"),
        (model(id="local/one", prices=[price()]), "key `prices`: a local model"),
        (model(scores=[score(value=101)]), "key `value`"),
        (model(scores=[score(), score()]), "scores 2, key `scale`"),
        (model(id="one"), "key `id`: 'one'"),
        (model(id=7), "key `id`: it must be a string"),
        (model(space=""), "key `space`"),
        (model(dimensions=True), "key `dimensions`: it must be a whole number"),
        (model(dimensions=0), "key `dimensions`: it must be a whole number from 1 to 1,000,000,000, not 0"),
        (model(sizes=[128]), "key `sizes`: 128"),
        (model(sizes=[64]), "key `sizes`: 64"),
        (model(sizes=[0]), "key `sizes`: 0"),
        (model(sizes=[32, 32]), "key `sizes`"),
        (model(sizes="all"), "key `sizes`"),
        (model(sizes=[True]), "key `sizes`"),
        (model(default_dimensions=32), "key `default_dimensions`: 32"),
        (model(tokenizer="gpt"), "key `tokenizer`: 'gpt' is not one of cl100k_base, wordpiece, bytes"),
        (model(languages="fr"), "key `languages`"),
        (model(roles="yes"), "key `roles`: it must be true or false"),
        (model(tokens_per_second=0), "key `tokens_per_second`"),
    ],
)
def test_mistake_is_refused_at_its_place(table: dict[str, object], place: str) -> None:
    """Every mistake is refused, naming the file, the table and the key."""
    read(model())
    with pytest.raises(BadInput, match=r"^x\.toml, models 1.*" + place):
        read(table)


@pytest.mark.parametrize("data", [{"model": []}, {"meta": {"scale": "S", "note": "", "x": 1}}, {"meta": {"note": ""}}])
def test_mistake_at_the_top_is_refused(data: dict[str, object]) -> None:
    """An unknown table, and an unknown or missing key of [meta], are refused."""
    with pytest.raises(BadInput, match="key `"):
        read_catalog(data, origin="x.toml")


def test_id_given_twice_is_refused() -> None:
    """Two models of one id would make the price a matter of luck."""
    with pytest.raises(BadInput, match="acme/one is given twice"):
        read(model(), model())


@pytest.mark.parametrize("change", [{"dimensions": 32}, {"roles": True}])
def test_members_of_a_space_must_be_alike(change: dict[str, object]) -> None:
    """Two models of one space have the same dimensions and the same roles."""
    read(model(), model(id="acme/two"))
    with pytest.raises(BadInput, match=f"acme/two and acme/one .*`{next(iter(change))}`"):
        read(model(), model(id="acme/two", **change))


def test_merge_appends_the_operators_models(shipped: Catalog) -> None:
    """The operator's models come after ours, on our scale."""
    merged = merge(shipped, read(model()))
    assert merged.models[:-1] == shipped.models
    assert merged.models[-1].id == "acme/one"
    assert (merged.scale, merged.note) == (shipped.scale, shipped.note)


def test_merge_refuses_an_id_that_is_there(shipped: Catalog) -> None:
    """An operator cannot silently replace a model and its price."""
    with pytest.raises(BadInput, match=r"cohere/embed-v4\.0 is in the catalog already"):
        merge(shipped, read(model(id="cohere/embed-v4.0")))


def test_merge_refuses_a_misfit_in_a_space(shipped: Catalog) -> None:
    """An operator's model cannot claim a space whose vectors have another size."""
    with pytest.raises(BadInput, match=r"acme/one and local/all-MiniLM-L6-v2 .*`dimensions`: 64 and 384"):
        merge(shipped, read(model(space="local/all-MiniLM-L6-v2")))
