"""What the sandbox's providers sell: models, limits and prices, written out here a second time on purpose.

The sandbox is the oracle of every money test, so it reads neither the router's catalog nor its ledger: a price that
is wrong there must show as a difference here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Literal, get_args

Provider = Literal["openai", "cohere", "voyage", "gemini"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

TEXTS_PER_CALL: dict[Provider, int] = {"openai": 2048, "cohere": 96, "voyage": 1000, "gemini": 100}
BATCH_SHARE: dict[Provider, Decimal] = {"openai": Decimal("0.5"), "voyage": Decimal("0.67")}
"""What part of a model's price a batch costs, where there are batches."""
WITH_ROLES: frozenset[Provider] = frozenset({"cohere", "voyage"})
NANO_PER_MICRO = 1_000  # USD per million tokens is micro-dollars a token; a nanodollar is a thousandth of that


@dataclass(frozen=True, slots=True)
class Sold:
    """One model as its vendor sells it.

    Attributes:
        price: USD per million tokens.
        dimensions: full size. default: what is answered where no size is given. sizes: what may be given,
            "any" for every size up to the full one, () for none.
        tokens_per_text: longest text; tokens_per_call: most tokens a call, None where the vendor states none.
        family: models of one family share a space.
    """

    provider: Provider
    name: str
    price: Decimal
    dimensions: int
    default: int
    sizes: tuple[int, ...] | Literal["any"]
    tokens_per_text: int
    tokens_per_call: int | None = None
    family: str = ""

    @property
    def id(self) -> str:
        """`provider/name`."""
        return f"{self.provider}/{self.name}"

    @property
    def space(self) -> str:
        """What the vectors are drawn from."""
        return f"{self.provider}/{self.family or self.name}"

    def serves(self, dimensions: int) -> bool:
        """True where this size may be given."""
        if self.sizes == "any":
            return 0 < dimensions <= self.dimensions
        return dimensions in self.sizes

    def cost(self, tokens: int, share: Decimal = Decimal(1)) -> int:
        """Nanodollars for one call of `tokens` tokens: ceil(tokens * USD per million * 1000 * share)."""
        exact = Decimal(tokens) * self.price * NANO_PER_MICRO * share
        return int(exact.to_integral_value(rounding=ROUND_CEILING))


COHERE_5 = (2048, 1536, 1024, 768, 512, 256)
VOYAGE = (2048, 1024, 512, 256)
_ALL = (
    Sold("openai", "text-embedding-3-small", Decimal("0.02"), 1536, 1536, "any", 8192, 300_000),
    Sold("openai", "text-embedding-3-large", Decimal("0.13"), 3072, 3072, "any", 8192, 300_000),
    Sold("openai", "text-embedding-ada-002", Decimal("0.10"), 1536, 1536, (), 8192, 300_000),
    Sold("cohere", "embed-v5.0-pro", Decimal("0.12"), 2048, 2048, COHERE_5, 128_000, family="embed-v5.0"),
    Sold("cohere", "embed-v5.0-fast", Decimal("0.08"), 2048, 2048, COHERE_5, 128_000, family="embed-v5.0"),
    Sold("cohere", "embed-v4.0", Decimal("0.12"), 1536, 1536, (1536, 1024, 512, 256), 128_000),
    Sold("cohere", "embed-english-v3.0", Decimal("0.10"), 1024, 1024, (), 512),
    Sold("cohere", "embed-multilingual-v3.0", Decimal("0.10"), 1024, 1024, (), 512),
    Sold("voyage", "voyage-4-large", Decimal("0.12"), 2048, 1024, VOYAGE, 32_000, 120_000, "voyage-4"),
    Sold("voyage", "voyage-4", Decimal("0.06"), 2048, 1024, VOYAGE, 32_000, 320_000, "voyage-4"),
    Sold("voyage", "voyage-4-lite", Decimal("0.02"), 2048, 1024, VOYAGE, 32_000, 1_000_000, "voyage-4"),
    Sold("voyage", "voyage-3-large", Decimal("0.18"), 2048, 1024, VOYAGE, 32_000, 120_000),
    Sold("voyage", "voyage-3.5", Decimal("0.06"), 2048, 1024, VOYAGE, 32_000, 320_000),
    Sold("voyage", "voyage-3.5-lite", Decimal("0.02"), 2048, 1024, VOYAGE, 32_000, 1_000_000),
    Sold("voyage", "voyage-3", Decimal("0.06"), 1024, 1024, (1024,), 32_000, 120_000),
    Sold("voyage", "voyage-3-lite", Decimal("0.02"), 512, 512, (512,), 32_000, 120_000),
    Sold("gemini", "gemini-embedding-2", Decimal("0.20"), 3072, 3072, "any", 8192),
)
MODELS: dict[str, Sold] = {model.id: model for model in _ALL}


def find(provider: Provider, name: object) -> Sold | None:
    """The model that a provider sells under a name, or None."""
    return MODELS.get(f"{provider}/{name}")
