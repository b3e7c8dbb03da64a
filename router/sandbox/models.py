"""What the sandbox's providers sell: models, limits and prices, written out here a second time on purpose.

The sandbox is the oracle of every money test, so it reads neither the router's catalog nor its ledger: a price that
is wrong there must show as a difference here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal

Provider = Literal["openai", "cohere", "voyage", "gemini"]
PROVIDERS: tuple[Provider, ...] = ("openai", "cohere", "voyage", "gemini")

HALF = Decimal("0.5")
VOYAGE_BATCH = Decimal("0.67")
NANO_PER_MICRO = 1_000  # USD per million tokens is micro-dollars a token; a nanodollar is a thousandth of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """One model as its vendor sells it.

    Attributes:
        space: what the vectors are drawn from; members of one family share it.
        dimensions: full size. default: what is answered where no size is given. sizes: what may be given,
            "any" for every size up to the full one, () for none.
        price: USD per million tokens. batch: share of it that a batch costs, None where there is no batch.
        tokens_per_text: longest text; tokens_per_call: most tokens a call, None where the vendor states none.
    """

    provider: Provider
    name: str
    space: str
    dimensions: int
    default: int
    sizes: tuple[int, ...] | Literal["any"]
    price: Decimal
    batch: Decimal | None
    texts_per_call: int
    tokens_per_text: int
    tokens_per_call: int | None
    roles: bool

    @property
    def id(self) -> str:
        """`provider/name`."""
        return f"{self.provider}/{self.name}"

    def serves(self, dimensions: int) -> bool:
        """True where this size may be given."""
        if self.sizes == "any":
            return 0 < dimensions <= self.dimensions
        return dimensions in self.sizes

    def cost(self, tokens: int, share: Decimal = Decimal(1)) -> int:
        """Nanodollars for one call of `tokens` tokens: ceil(tokens * USD per million * 1000 * share)."""
        exact = Decimal(tokens) * self.price * NANO_PER_MICRO * share
        return int(exact.to_integral_value(rounding=ROUND_CEILING))


def _openai(name: str, price: str, dimensions: int, *, cut: bool) -> Sold:
    return Sold(
        provider="openai", name=name, space=f"openai/{name}", dimensions=dimensions, default=dimensions,
        sizes="any" if cut else (), price=Decimal(price), batch=HALF, texts_per_call=2048, tokens_per_text=8192,
        tokens_per_call=300_000, roles=False,
    )  # fmt: skip


def _cohere(
    name: str, price: str, dimensions: int, sizes: tuple[int, ...], tokens_per_text: int, family: str | None = None
) -> Sold:
    return Sold(
        provider="cohere", name=name, space=f"cohere/{family or name}", dimensions=dimensions, default=dimensions,
        sizes=sizes, price=Decimal(price), batch=None, texts_per_call=96, tokens_per_text=tokens_per_text,
        tokens_per_call=None, roles=True,
    )  # fmt: skip


def _voyage(
    name: str, price: str, tokens_per_call: int, *, full: int = 2048, default: int = 1024, family: str | None = None
) -> Sold:
    return Sold(
        provider="voyage", name=name, space=f"voyage/{family or name}", dimensions=full, default=default,
        sizes=(2048, 1024, 512, 256) if full == 2048 else (full,), price=Decimal(price), batch=VOYAGE_BATCH,
        texts_per_call=1000, tokens_per_text=32_000, tokens_per_call=tokens_per_call, roles=True,
    )  # fmt: skip


_ALL = (
    _openai("text-embedding-3-small", "0.02", 1536, cut=True),
    _openai("text-embedding-3-large", "0.13", 3072, cut=True),
    _openai("text-embedding-ada-002", "0.10", 1536, cut=False),
    _cohere("embed-v5.0-pro", "0.12", 2048, (2048, 1536, 1024, 768, 512, 256), 128_000, "embed-v5.0"),
    _cohere("embed-v5.0-fast", "0.08", 2048, (2048, 1536, 1024, 768, 512, 256), 128_000, "embed-v5.0"),
    _cohere("embed-v4.0", "0.12", 1536, (1536, 1024, 512, 256), 128_000),
    _cohere("embed-english-v3.0", "0.10", 1024, (), 512),
    _cohere("embed-multilingual-v3.0", "0.10", 1024, (), 512),
    _voyage("voyage-4-large", "0.12", 120_000, family="voyage-4"),
    _voyage("voyage-4", "0.06", 320_000, family="voyage-4"),
    _voyage("voyage-4-lite", "0.02", 1_000_000, family="voyage-4"),
    _voyage("voyage-3-large", "0.18", 120_000),
    _voyage("voyage-3.5", "0.06", 320_000),
    _voyage("voyage-3.5-lite", "0.02", 1_000_000),
    _voyage("voyage-3", "0.06", 120_000, full=1024),
    _voyage("voyage-3-lite", "0.02", 120_000, full=512, default=512),
    Sold(
        provider="gemini", name="gemini-embedding-2", space="gemini/gemini-embedding-2", dimensions=3072, default=3072,
        sizes="any", price=Decimal("0.20"), batch=None, texts_per_call=100, tokens_per_text=8192, tokens_per_call=None,
        roles=False,
    ),
)  # fmt: skip
MODELS: dict[str, Sold] = {model.id: model for model in _ALL}


def find(provider: Provider, name: object) -> Sold | None:
    """The model that a provider sells under a name, or None."""
    return MODELS.get(f"{provider}/{name}")
