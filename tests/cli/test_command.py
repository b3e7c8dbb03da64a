"""The real commands in processes of their own: `python -m router`, its start and its servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from router.cli.demo import environment
from router.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
SMALL = "openai/text-embedding-3-small"
HEAVY = {"numpy", "torch", "openai", "streamlit", "pyarrow", "pandas", "sqlite_utils", "pysqlite3", "uvicorn"}


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m router ARGS`."""
    command = [sys.executable, "-m", "router", *args]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def test_json_is_one_object_and_nothing_else(shell, openai: Sandbox, tmp_path: Path) -> None:
    """As another program sees it: stdout, stderr, exit code, and the file."""
    done = run("embed", shell.jsonl(["a", "", "b"]), "--model", SMALL, "--out", str(tmp_path / "v.npz"), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["routes"]["api"] == 2
    assert (tmp_path / "v.npz").stat().st_size > 2 * 1536 * 4
    assert openai.bill().texts == 2


def test_help_and_the_commands_load_nothing_heavy() -> None:
    """Of the commands, only the one that runs may load what it needs."""
    code = "import sys, router.__main__; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "typer" in done.stdout.split()
    assert HEAVY & set(done.stdout.split()) == set()


def test_the_sandbox_serves_until_it_is_told_to_end() -> None:
    """Its first line says where it is and what to set."""
    command = [sys.executable, "-m", "router", "sandbox", "--vectors", "hash", "--rpm", "600"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            variables = dict(word.split("=", 1) for word in line.split() if "=" in word)
            url = variables["OPENAI_BASE_URL"].removesuffix("/openai/v1")
            assert f"sandbox at {url};" in line
            with urllib.request.urlopen(f"{url}/sandbox/config", timeout=120) as reply:
                config = json.load(reply)
            assert (config["requests_per_minute"], config["vectors"]) == (600, "hash")
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "loopback only"),
        (["--max-in-flight", "0"], "at least 1"),
        (["--vectors", "random"], "'random'"),
        (["--latency-ms", "-1"], "negative"),
    ],
)
def test_a_sandbox_that_cannot_be_is_exit_2(shell, options: list[str], words: str) -> None:
    """It accepts every key, so it never listens beyond this machine."""
    said = shell("sandbox", *options)
    assert (said.code, words in said.err) == (2, True)


def test_a_taken_port_is_exit_1(shell, openai: Sandbox) -> None:
    """Said with the port's number."""
    port = openai.url.rsplit(":", 1)[1]
    said = shell("sandbox", "--port", port, "--vectors", "hash")
    assert (said.code, port in said.err) == (1, True)


def test_a_demo_never_sees_a_real_key_or_the_real_data(openai: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and addresses are the sandbox's, the data folder is `demo-data` unless another is set."""
    ours = {"OPENAI_API_KEY": "real", "CO_API_URL": "https://api.example", "PATH": "/bin"}
    env = environment(ours, openai.environment)
    assert env["ROUTER_DEMO"] == "1"
    assert env["PATH"] == "/bin"
    assert "real" not in env.values()
    assert all(env[name].startswith(openai.url) for name in ("OPENAI_BASE_URL", "CO_API_URL", "VOYAGE_BASE_URL"))
    assert Path(env["ROUTER_DATA"]) == Path("demo-data").absolute()
    assert environment({"ROUTER_DATA": "/x"}, {})["ROUTER_DATA"] == "/x"
