"""`python -m router`: the command line."""

from __future__ import annotations

from router.cli import app

if __name__ == "__main__":
    app(prog_name="python -m router")
