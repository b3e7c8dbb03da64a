"""The attention that a BERT encoder gets on the CPU: the same sums as transformers' own."""

from __future__ import annotations

import pytest

from router.providers import attention


@pytest.mark.slow
def test_it_is_the_attention_of_transformers_for_every_token_that_is_there() -> None:
    """Random weights, texts of 1 to 9 tokens padded to 9, and a full batch, which comes without a mask."""
    import torch
    from transformers import BertConfig, BertModel

    attention.register()
    torch.manual_seed(7)
    config = BertConfig(vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32)
    model = BertModel(config).eval()
    tokens = torch.randint(1, 50, (9, 9))
    padded = (torch.arange(9)[None, :] < torch.arange(1, 10)[:, None]).long()
    for mask in (padded, torch.ones_like(padded), None):
        there = padded.bool() if mask is padded else torch.ones_like(padded).bool()
        with torch.inference_mode():
            model.set_attn_implementation("sdpa")
            expected = model(input_ids=tokens, attention_mask=mask).last_hidden_state
            model.set_attn_implementation(attention.NAME)
            got = model(input_ids=tokens, attention_mask=mask).last_hidden_state
        assert torch.allclose(got[there], expected[there], atol=1e-6)
        assert bool(got.isfinite().all()), "padding must not spoil what is averaged over"
