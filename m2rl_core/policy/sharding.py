"""What changes when several processes train together: FSDP2 through ``torch.distributed``.

Without a process group every function here is the identity, so that one process needs no ports and no group.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from m2rl_core.run.team import leads, rank, ranks

__all__ = [
    "add_up", "forget", "joined", "leads", "local", "plain_name", "rank", "ranks", "rows", "shard", "summed",
    "whole", "wholes",
]  # fmt: skip

BUCKET_BYTES = 64 << 20
"""Parameters that are gathered at once; over gloo each message costs about a millisecond."""
_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.", "_fsdp_wrapped_module.")


def shard(root: torch.nn.Module, layers: Iterable[torch.nn.Module], dtype: torch.dtype) -> None:
    """Shard every decoder layer, then the rest; parameters are gathered in ``dtype``, gradients summed in float32.

    The model may be on the meta device; :func:`m2rl_core.policy.meta.give_memory` is then called next.
    """
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


def rows(parameter: Tensor) -> tuple[int, int]:
    """(first, how many) of a parameter's rows that this rank holds, as FSDP2 deals them: the last may have none."""
    if not isinstance(parameter, DTensor):
        return 0, len(parameter)
    share = -(-len(parameter) // ranks())
    first = min(rank() * share, len(parameter))
    return first, min(share, len(parameter) - first)


def local(parameter: Tensor) -> Tensor:
    """The rows that this rank holds."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


@torch.no_grad()
def wholes(parameters: Sequence[Tensor]) -> Iterator[Tensor]:
    """The full tensors, one bucket of them in memory at a time. Collective: every rank must drain it."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        if bucket and sum(p.numel() * p.element_size() for p in (*bucket, parameter)) > BUCKET_BYTES:
            yield from _gathered(bucket)
            bucket = []
        bucket.append(parameter.detach())
    yield from _gathered(bucket)


def _gathered(bucket: Sequence[Tensor]) -> Iterator[Tensor]:
    """Full tensors through one collective: shards are laid end to end, each filled up to the length of the longest."""
    if not any(isinstance(parameter, DTensor) for parameter in bucket):
        yield from bucket
        return
    sizes = [-(-len(p) // ranks()) * (p.numel() // len(p)) for p in bucket]
    own = torch.zeros(sum(sizes), dtype=bucket[0].dtype, device=bucket[0].device)
    for parameter, place in zip(bucket, torch.split(own, sizes), strict=True):
        held = local(parameter).flatten()
        place[: len(held)] = held
    all_R = own.new_empty(ranks() * len(own))
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # its older name
    gather(all_R, own)
    for parameter, part in zip(bucket, torch.split(all_R.view(ranks(), -1), sizes, dim=1), strict=True):
        yield part.flatten()[: parameter.numel()].view(parameter.shape)


def forget(root: torch.nn.Module) -> None:
    """Drop parameters that are still gathered from a pass without a backward: what is read and written are shards."""
    if not dist.is_initialized():
        return
    from torch.distributed.fsdp import FSDPModule

    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def summed(*values: float) -> list[float]:
    """Each value added up over all ranks. Collective."""
    totals = torch.tensor(values, dtype=torch.float64)
    if dist.is_initialized():
        dist.all_reduce(totals)
    return [float(total) for total in totals]


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace CPU tensors of one type by their sums over all ranks, in one message. Collective."""
    if dist.is_initialized() and tensors:
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, total in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))


@contextmanager
def joined(file: str | None) -> Iterator[None]:
    """Be one of the processes that an elastic agent has started.

    Args:
        file: where those of one machine meet; ``None``: at the agent's address.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"  # numbers and objects travel over gloo
    meeting = "env://" if file is None else f"file://{file}"
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(backend, init_method=meeting, rank=number, world_size=count)
    yield
    dist.destroy_process_group()  # not after an exception: it would wait for the others


def plain_name(name: str) -> str:
    """A parameter's Hugging Face name."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name
