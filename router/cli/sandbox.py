"""`sandbox`: the stand-in for the paid providers, on loopback."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import typer

from router.domain.errors import BadInput, RouterError


def sandbox(
    host: Annotated[str, typer.Option(help="Loopback only: it accepts every key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 0,
    latency_ms: Annotated[float, typer.Option(help="Least time of a call.")] = 0,
    max_in_flight: Annotated[int | None, typer.Option(help="Calls at once, a provider.")] = None,
    rpm: Annotated[int | None, typer.Option(help="Requests a minute, a provider.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens a minute, a provider.")] = None,
    vectors: Annotated[
        str, typer.Option(metavar="model|hash", help="By the local model, so that neighbours make sense; or fast.")
    ] = "model",
) -> None:
    """Serve the OpenAI, Cohere and Voyage wire on loopback, with a bill of its own, until interrupted."""
    from router.sandbox import SandboxConfig, run

    try:
        config = SandboxConfig(
            latency_ms=latency_ms,
            max_in_flight=max_in_flight,
            requests_per_minute=rpm,
            tokens_per_minute=tpm,
            vectors=cast(Literal["hash", "model"], vectors),  # checked by it
        )
        run(host, port, config)
    except ValueError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise RouterError(f"Port {port} on {host} cannot be used: {error.strerror}.", "Choose another port.") from error
