"""The settings of ``engine: {use: vllm, ...}``. The paper used vLLM and is silent on all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from m2rl_core.http import Address
from m2rl_core.interfaces import ComponentConfig

__all__ = ["VllmConfig"]


class VllmConfig(ComponentConfig):
    """How and where vLLM runs."""

    placement: Literal["colocated", "server"] = "colocated"
    """``colocated``: a child of this process on the same devices. ``server``: ``vllm serve``, at ``urls`` or started
    here."""
    urls: tuple[Address, ...] = ()
    """Servers that were started with ``python -m m2rl_engine_vllm.serve``; none: one is started on this machine."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Of weights, activations, keys and values in vLLM. A server at one of ``urls`` must have been given the same."""
    memory: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the device's memory (of the machine's, on a CPU) for weights, activations, keys and values."""
    cache_gib: PositiveFloat | None = None
    """Memory [GiB] for keys and values, exactly; ``None``: what ``memory`` leaves."""
    rows: PositiveInt = 256
    """Most samples that one vLLM draws together; others wait."""
    eager: bool = False
    """No CUDA graphs and no compilation: starts faster and draws more slowly."""
    in_flight: Literal["finish", "abort", "continue"] = "finish"
    """What becomes of samples that are being drawn when new weights come: they are finished first, given up (their
    verdict is then ``failed``), or go on under the new weights with the keys and values of the old."""
    sleep: Literal[0, 1, 2] | None = None
    """Between phases of drawing, when ``colocated``: 1 moves the weights to host memory and frees keys and values, 2
    frees the weights too, which then come from ``folder`` again; 0 keeps all. ``None``: 1 on a GPU, 0 on a CPU, where
    there is nothing to free."""
    folder: Path | None = None
    """Weights pass through here as safetensors, and the newest are kept to restore a vLLM that died. A server on
    another machine must see it under the same path. ``None``: a temporary folder."""
    parity_tokens: NonNegativeInt = 32
    """Tokens of the check after every update: vLLM's log-probs beside those of the weights in transformers; 0: none."""
    restarts: NonNegativeInt = 3
    """How often a vLLM that died is replaced during one stage."""

    @model_validator(mode="after")
    def _urls_are_of_servers(self) -> VllmConfig:
        if self.urls and self.placement != "server":
            raise ValueError("urls are of servers: set placement: server")
        return self
