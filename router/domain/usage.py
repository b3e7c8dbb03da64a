"""How much of what a provider says that it billed can be true. The one place where that is judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """What is booked for a call. Unit: tokens.

    Attributes:
        tokens: settled.
        beyond: said to be billed on top of that, and more than the texts can be: booked as unconfirmed.
        doubt: why the figures are not the provider's own; "" where they are.
    """

    tokens: int
    beyond: int = 0
    doubt: str = ""


def believe(said: int | None, *, texts: int, held: int, most: int) -> Believed:
    """What to book where a provider says that it billed `said` tokens for a call, or does not say (None).

    A text is a token at least, so less than that is settled at what was held. The truth may be more than was held, and
    is settled up to the most that the bytes of the texts can be; what is said beyond that is left to be confirmed.

    Args:
        texts: in the call, none of them empty.
        held: tokens that money was held for.
        most: an upper bound of the tokens of these texts, from their bytes.
    """
    most = max(held, most)
    if said is None:
        return Believed(tokens=held, doubt="the answer names no usage that can be true")
    if said < texts:
        of = "a text" if texts == 1 else f"{texts:,} texts"
        return Believed(tokens=held, doubt=f"the answer says {said:,} tokens for {of}")
    if said > most:
        doubt = f"the answer says {said:,} tokens, where the texts can be {most:,} at most"
        return Believed(tokens=most, beyond=said - most, doubt=doubt)
    return Believed(tokens=said)
