"""A server on loopback that speaks OpenAI's embeddings with the habits of real ones; the first part of the path tells
which.

`nan500` answers 500 to a call that holds a text with POISON in it; `nullrow` answers it with null for that text's
vector, `emptyrow` with a vector of no numbers; `bad400` answers 400 to it; `refuses` answers 400 to everything.
`usage0`, `usage-5`, `usage1000000000000` say so many tokens, `silent` says none; `gemini` says none and leaves out an
`index` of 0; `otherone` names another model; `small` answers with vectors of another size.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIMENSIONS = 8
MODEL = "habit/model"
TOML = """
[endpoints.habit]
base_url = "{url}/{habit}/v1"
[[models]]
id = "habit/model"
space = "habit/model"
dimensions = 8
tokenizer = "cl100k_base"
source = "made up for a test"
[models.limits]
texts_per_call = {texts}
[[models.prices]]
since = 2026-01-01
now = "{price}"
source = "made up for a test"
checked = 2026-01-01
"""
"""`router.toml` for a model at the server; the price is in USD per million tokens."""


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of a text, of unit length."""
    values = [byte / 127.5 - 1 for byte in hashlib.sha256(text.encode()).digest()[:dimensions]]
    norm = sum(value * value for value in values) ** 0.5
    return [value / norm for value in values]


class Habits:
    """The server while it runs: its address, and the texts of every call that came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: list[list[str]] = []

    def toml(self, habit: str, *, price: str = "0.02", texts: int = 2_048) -> str:
        """`router.toml` for a model with one of the habits."""
        return TOML.format(url=self.url, habit=habit, price=price, texts=texts)

    def with_poison(self) -> int:
        """Calls that held the text to blame."""
        return sum(any("POISON" in text for text in texts) for texts in self.calls)

    def answer(self, habit: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(status, body) for a call."""
        texts = body["input"]
        self.calls.append(texts)
        poisoned = any("POISON" in text for text in texts)
        if habit == "nan500" and poisoned:
            return 500, {"error": {"message": "unsupported value: NaN", "type": "api_error"}}
        if habit == "refuses" or (habit == "bad400" and poisoned):
            return 400, {"error": {"message": "no such parameter", "type": "invalid_request_error"}}
        size = DIMENSIONS // 2 if habit == "small" else DIMENSIONS
        data: list[dict[str, Any]] = [{"index": n, "embedding": vector(text, size)} for n, text in enumerate(texts)]
        for row, text in zip(data, texts, strict=True):
            if habit == "nullrow" and "POISON" in text:
                row["embedding"] = [None] * DIMENSIONS
            elif habit == "emptyrow" and "POISON" in text:
                row["embedding"] = []
            elif habit not in {"nullrow", "emptyrow"} and body.get("encoding_format") == "base64":
                row["embedding"] = base64.b64encode(struct.pack(f"<{size}f", *row["embedding"])).decode()
        tokens = sum(len(text.split()) for text in texts)
        if habit.startswith("usage"):
            tokens = int(habit.removeprefix("usage"))
        answer: dict[str, Any] = {"data": data, "model": "somebody-else" if habit == "otherone" else body["model"]}
        if habit == "gemini":
            del data[0]["index"]
        elif habit != "silent":
            answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return 200, answer


@contextmanager
def running_habits() -> Iterator[Habits]:
    """The server on a free port."""
    habits: Habits

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Nothing is printed."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = habits.answer(self.path.split("/")[1], body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    habits = Habits(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield habits
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
