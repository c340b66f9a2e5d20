"""Servers: those that others run, and one that is started here and ends with this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from m2rl_core.errors import StageError
from m2rl_engine_vllm.arguments import arguments, environment, flags
from m2rl_engine_vllm.backend import Backend
from m2rl_engine_vllm.config import VllmConfig
from m2rl_engine_vllm.serve import TIED
from m2rl_engine_vllm.server import PATIENCE, Server

__all__ = ["own_server", "reach_server"]


async def reach_server(url: str, model: Path, context: int) -> Backend:
    """The server at ``url``; one that is not up yet is waited for.

    Raises:
        ConfigError: it was started with other settings.
        StageError: nobody is there.
    """
    server = Server(url)
    try:
        await server.greet(model, context)
    except TimeoutError as error:
        raise StageError(
            f"engine.urls: nobody answers at {url}", then="start it with `python -m m2rl_engine_vllm.serve`"
        ) from error
    except BaseException:
        await server.close()
        raise
    return server


async def own_server(config: VllmConfig, model: Path, context: int) -> Backend:
    """A server on this machine's loopback.

    Raises:
        StageError: it did not start.
    """
    import torch

    cuda = torch.cuda.is_available()
    port = _free_port()
    given = arguments(config, model, context, cuda=cuda)
    options = flags({name: value for name, value in given.items() if name != "model"})
    said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
    process = subprocess.Popen(
        [sys.executable, "-m", "m2rl_engine_vllm.serve", str(model), *options, "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=subprocess.STDOUT,
        env=os.environ | environment(cuda=cuda) | {TIED: "1"},
        start_new_session=True,
    )
    server = Server(f"http://127.0.0.1:{port}", process, said)
    try:
        await server.greet(model, context)
    except BaseException as error:
        await server.close()
        if isinstance(error, TimeoutError):
            raise StageError(f"the vLLM server was not up after {PATIENCE:g} s") from error
        raise
    return server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
