"""AdamW, and AdamW whose moments rest in host memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.adamw import adamw

from m2rl_core.config import OptimSection
from m2rl_core.policy import sharding

__all__ = ["OffloadedAdamW", "moments", "open_optimizer"]

PIECE = 1 << 24
"""Most elements of a parameter whose moments are on the device at a time: 2 · 64 MiB. It is a multiple of every vector
register's length, so that kernels round as on the whole."""


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW with both moments in host memory: 8 bytes per parameter less on the device, the same numbers.

    They come to the device for the update, one piece of a parameter after the other, and go back: 16 bytes per
    parameter between host and device, once per update.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None, "a closure would be run once for all pieces"
        for group in self.param_groups:
            settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "maximize", "amsgrad")}
            settings |= dict(zip(("beta1", "beta2"), group["betas"], strict=True))
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, moments(self, parameter), settings)


def _update(parameter: Tensor, state: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """AdamW on this rank's rows of a parameter."""
    assert parameter.grad is not None
    flat = [sharding.local(tensor).view(-1) for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"])]
    flat.insert(1, sharding.local(parameter.grad).reshape(-1))
    for pieces in zip(*(torch.split(tensor, PIECE) for tensor in flat), strict=True):
        weights, gradient, *hosted = pieces
        mean, square = (moment.to(weights.device, copy=True) for moment in hosted)
        step = state["step"].to(weights.device, copy=True)  # every piece counts this update
        adamw([weights], [gradient], [mean], [square], [], [step], fused=True, **settings)
        for there, here in zip(hosted, (mean, square), strict=True):
            there.copy_(here)
    state["step"] += 1


def open_optimizer(model: torch.nn.Module, optim: OptimSection, *, offload: bool) -> torch.optim.AdamW:
    """AdamW for a float32 model; no weight decay of vectors (norms, biases)."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = OffloadedAdamW if offload else torch.optim.AdamW
    return kind(groups, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)


def moments(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state of one parameter; before its first step, what AdamW would begin with."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        for name in ("exp_avg", "exp_avg_sq"):
            zeros = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state[name] = _hosted(zeros) if isinstance(optimizer, OffloadedAdamW) else zeros
    return state


def _hosted(tensor: Tensor) -> Tensor:
    """The same tensor in host memory, pinned where there is a GPU; a sharded one stays sharded."""
    if isinstance(tensor, DTensor):
        tensor._local_tensor = _hosted(tensor._local_tensor)  # as FSDP2's own offloading has it: no public way
        return tensor
    return torch.zeros(tensor.shape, dtype=tensor.dtype, pin_memory=torch.cuda.is_available())
