"""Bidirectional attention, a text at a time: the fast way through a BERT encoder on a CPU in bfloat16.

PyTorch's fused CPU kernel is no faster in bfloat16 than in float32 where a head is 32 wide, as MiniLM's are: its
tiles are too small for the processor's bfloat16 instructions. Plain batched products use them, and a text at a time
the scores stay in the processor's cache, padding costs nothing, and no mask has to be added. The result is the same
attention; `precision` measures it against the untouched model before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

NAME = "router_text_by_text"
"""For `attn_implementation`, after `register()`."""
FAMILIES = frozenset({"bert"})
"""Model types of transformers that this is right for: every token sees every token, one key head a query head."""


def register() -> None:
    """Make `NAME` known to transformers. May be called again."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _keep)


def _keep(*_: Any, attention_mask: Tensor | None = None, **__: Any) -> Tensor | None:
    """The mask as the tokenizer made it, `(texts, tokens)`; True where there is a token. None where all are full."""
    return attention_mask


def _attend(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """`(texts, heads, tokens, width)` three times -> `(texts, tokens, heads, width)`, zeros where there is padding.

    Texts are padded on the right, as BERT's tokenizer does.
    """
    import torch

    texts, heads, tokens, width = query.shape
    lengths = [tokens] * texts if attention_mask is None else attention_mask.sum(1).tolist()
    out = torch.zeros((texts, tokens, heads, width), dtype=query.dtype)
    query = query * scaling
    for i, n in enumerate(lengths):
        scores = torch.bmm(query[i, :, :n], key[i, :, :n].transpose(1, 2))
        out[i, :n] = torch.bmm(torch.softmax(scores, -1), value[i, :, :n]).transpose(0, 1)
    return out, None
