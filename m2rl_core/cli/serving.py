"""``m2rl serve-verifier``: a domain's verifier over HTTP, for other trainers."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from m2rl_core.cli.options import DomainName, GateOfAll, Local, Settings, installed

__all__ = ["serve_verifier"]


def serve_verifier(
    domain: DomainName,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = 8080,
    expose: Annotated[
        bool, typer.Option("--expose", help="Let --host be reached by other machines. There is no authentication.")
    ] = False,
    settings: Settings = None,
    local: Local = None,
    reasoning: GateOfAll = None,
) -> None:
    """Serve a domain's verifier over HTTP until it is interrupted: POST /verify takes a row, or a list of rows.

    Rows are as 'm2rl verify' reads them. A reward is null where the verifier failed. GET /health says who is there.
    """
    from m2rl_core.config import settings as read
    from m2rl_core.serve import open_server
    from m2rl_core.verify import build_domain, cores

    plugins = local or ()
    _, spec = build_domain(domain, read(settings or ()), plugins, installed(plugins))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with open_server(spec, host=host, port=port, expose=expose, workers=cores(), reasoning=reasoning) as server:
        typer.echo(f"Serving '{domain}' at {server.url}: POST /verify, GET /health. Ctrl-C ends it.")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("Ended.", err=True)
