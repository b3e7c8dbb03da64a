"""A small chat completion, deterministic and unbilled: the router's own prices know no chat models."""

from __future__ import annotations

import time
from typing import Any

from router.sandbox.bill import digest
from router.sandbox.tokens import TokenCounter
from router.sandbox.wire import WIRES

ENDPOINT = "/v1/chat/completions"


async def complete(tokens: TokenCounter, data: dict[str, Any]) -> dict[str, Any]:
    """The answer to a chat call. Raises WireError: no model, streaming, or messages that are not messages."""
    wire = WIRES["openai"]
    model, messages = data.get("model"), data.get("messages")
    if not isinstance(model, str):
        raise wire.error(400, "you must provide a model parameter", param="model")
    if not isinstance(messages, list) or not messages:
        raise wire.error(400, "Invalid 'messages': a list of at least one message.", param="messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            text = f"Invalid type for 'messages[{i}]': expected an object, but got another type instead."
            raise wire.error(400, text, param=f"messages[{i}]", code="invalid_type")
    if data.get("stream"):
        raise wire.error(400, "The sandbox does not stream.", param="stream")
    prompt_text = "\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)
    answer = f"Reply {digest(prompt_text).hex()[:12]}."
    prompt, completion = await tokens.count([prompt_text, answer], [digest(prompt_text), digest(answer)])
    return {
        "id": f"chatcmpl-{digest(prompt_text).hex()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion
        },
    }  # fmt: skip
