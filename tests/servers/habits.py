"""A loopback server of OpenAI-like embeddings with the habits of real servers: `habits.py PORT`. See ../README.md."""

import base64
import hashlib
import json
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CALLS = []
DIMENSIONS = 8


def vector(text):
    raw = hashlib.sha256(text.encode()).digest()[:DIMENSIONS]
    values = [byte / 127.5 - 1 for byte in raw]
    norm = sum(value * value for value in values) ** 0.5
    return [value / norm for value in values]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer(200, {"calls": CALLS})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        habit = self.path.split("/")[1]
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        CALLS.append([habit, len(texts)])
        if habit == "nan500" and any("POISON" in text for text in texts):
            self.answer(500, {"error": {"message": "unsupported value: NaN", "type": "api_error"}})
            return
        data = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
        if body.get("encoding_format") == "base64" and habit != "gemini":
            for row in data:
                row["embedding"] = base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *row["embedding"])).decode()
        tokens = sum(len(text.split()) for text in texts)
        answer = {
            "object": "list",
            "data": data,
            "model": body["model"],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        if habit == "gemini":
            del answer["usage"], data[0]["index"]
        if habit == "usage0":
            answer["usage"] = {"prompt_tokens": 0, "total_tokens": 0}
        self.answer(200, answer)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
