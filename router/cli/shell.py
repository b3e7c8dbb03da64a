"""What all commands share: the engine for the length of a command, and errors as messages and exit codes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from typer.core import TyperGroup

from router.cli.output import emit, warn
from router.domain.errors import BadInput, RouterError

if TYPE_CHECKING:
    from router.engine import Router
    from router.library import Library

T = TypeVar("T")
FAILED, WRONG_USE, INTERRUPTED = 1, BadInput.exit_code, 130


def with_router(work: Callable[[Router], Awaitable[T]]) -> T:
    """Open the data folder, do the work on a loop of its own, close the folder."""
    from router.engine import Router

    async def run() -> T:
        async with Router.open() as router:
            return await work(router)

    return asyncio.run(run())


def with_library(work: Callable[[Library], Awaitable[T]]) -> T:
    """Open the data folder and its collections, do the work, close both."""
    from router.library import Library

    async def run(router: Router) -> T:
        async with aclosing(Library(router)) as library:
            return await work(library)

    return with_router(run)


class Shell(TyperGroup):
    """The outermost group: the one place where an error becomes a message and an exit code."""

    _json = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether machines are asking, before anything can go wrong."""
        self._json = "--json" in args
        if not os.environ.get("ROUTER_TRACEBACK"):  # the command says what is wrong with a file
            logging.getLogger("router.reading").addHandler(logging.NullHandler())
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; errors are reported on stderr, or with `--json` as an object on stdout."""
        try:
            return super().invoke(ctx)
        except RouterError as error:
            self._end(error.message, error.hint, type(error).__name__, error.exit_code, error)
        except KeyboardInterrupt as error:
            said = "Interrupted. What was answered is in the cache."
            self._end(said, "Run it again to go on.", "Interrupted", INTERRUPTED, error)
        except typer.TyperException as error:
            if not self._json:
                raise  # typer shows the usage
            self._end(error.format_message(), "", "Usage", WRONG_USE, error)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:  # the outermost border: nobody above could do better than to print it
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # the reader of our pipe has gone; typer ends quietly
            if isinstance(error, OSError) and error.strerror:
                where = f"{error.filename}: " if error.filename else ""
                self._end(f"{where}{error.strerror}.", "", type(error).__name__, FAILED, error)
            said = f"Internal error: {type(error).__name__}: {error}"
            self._end(said, "Run with ROUTER_TRACEBACK=1 to see where.", "InternalError", FAILED, error)

    def _end(self, message: str, hint: str, kind: str, code: int, cause: BaseException) -> None:
        if os.environ.get("ROUTER_TRACEBACK"):
            traceback.print_exception(cause, file=sys.stderr)
        if self._json:
            emit({"error": {"message": message, "hint": hint, "kind": kind}})
        else:
            warn(f"{message}\n{hint}" if hint else message)
        raise typer.Exit(code) from cause
