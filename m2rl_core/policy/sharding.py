"""What changes when several processes train together: FSDP2 through ``torch.distributed``.

Without a process group every function here is the identity, so that one process needs no ports and no group.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")


def shard(root: torch.nn.Module, layers: Iterable[torch.nn.Module], dtype: torch.dtype) -> None:
    """Shard every decoder layer, then the rest; parameters are gathered in ``dtype``, gradients summed in float32."""
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    # Casting the inputs would also round the rotary embeddings' tables.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*layers, root):
        fully_shard(module, mp_policy=policy)
        assert isinstance(module, FSDPModule)
        module.set_gradient_divide_factor(1.0)  # coefficients already hold the global denominators: only sum
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def whole(tensor: Tensor) -> Tensor:
    """The full tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(parameter: Tensor, tensor: Tensor) -> None:
    """Copy a whole tensor into a parameter: on every rank its own rows."""
    if isinstance(parameter, DTensor):
        rows = tensor.chunk(ranks())  # as FSDP2 shards: the last ranks may have none
        parameter = parameter.to_local()
        tensor = rows[rank()] if rank() < len(rows) else tensor[:0]
    parameter.copy_(tensor)


def forget(root: torch.nn.Module) -> None:
    """Drop parameters that are still gathered from a pass without a backward, because their shards have changed."""
    from torch.distributed.fsdp import FSDPModule

    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def summed(*values: float) -> list[float]:
    """Each value added up over all ranks. Collective."""
    if not dist.is_initialized():
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    totals = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    return [float(total) for total in totals]


def plain_name(name: str) -> str:
    """A parameter's Hugging Face name."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """True on the one process that writes files."""
    return rank() == 0
