"""Rollouts with vLLM (https://docs.vllm.ai): token ids in, token ids and log-probs out, weights updated in place.

Read in this order: :mod:`.config`, :mod:`.engine` (the component), :mod:`.member` (one vLLM under supervision),
:mod:`.backend` (what a vLLM must be able to do) with its two kinds :mod:`.colocated` and :mod:`.server` (started by
:mod:`.launch`), :mod:`.mapping` (what is asked and answered), :mod:`.buckets` (weights on their way), :mod:`.worker`
(their arrival), :mod:`.parity` (the check after every update).

vLLM is imported by :mod:`.colocated`, by :mod:`.worker` and by :mod:`.serve` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from m2rl_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from m2rl_core.interfaces import Engine


@hookimpl
def m2rl_engines() -> Iterable[type[Engine]]:
    from m2rl_engine_vllm.engine import VllmEngine

    return [VllmEngine]
