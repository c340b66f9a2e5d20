"""Gram matrices of what goes into a model's linear layers: the sum of x·xᵀ over tokens, divided by their number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from m2rl_core.errors import DataError
from m2rl_core.policy import Policy
from m2rl_core.types import Batch

__all__ = ["linear_layers", "matrices_of", "turns"]


def linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    """Name of the weight → layer; a head that is tied to the embeddings is none."""
    own = {name for name, _ in model.named_parameters()}
    layers = ((f"{name}.weight", m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear))
    return {name: layer for name, layer in layers if name in own}


def turns(shapes: Mapping[str, tuple[int, int]], limit: int) -> Iterator[list[str]]:
    """Names in order, cut where their float64 matrices would exceed ``limit`` bytes."""
    group: list[str] = []
    held = 0
    for name, (rows, columns) in shapes.items():
        size = 8 * rows * columns
        if group and held + size > limit:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    yield group


@torch.no_grad()
def matrices_of(
    policy: Policy, layers: Mapping[str, torch.nn.Linear], batches: Sequence[Batch]
) -> Iterator[tuple[str, Tensor]]:
    """(name, Gram matrix) of some layers, after all batches have gone through the model."""
    head = policy.model.get_output_embeddings()  # the policy multiplies by its weight without calling it
    with _Watch(layers).on() as watch:
        for batch in batches:
            watch.real_T = batch.sequence_T >= 0
            places = torch.nonzero(watch.real_T)[:, 0]
            hidden_N = policy.run(batch, _states, (places, places))
            for name in (name for name, layer in layers.items() if layer is head):
                watch.add(name, hidden_N)
        yield from watch.means()


def _states(hidden_N: Tensor, head: Tensor, ids_N: Tensor, **_: Any) -> Tensor:
    return hidden_N


class _Watch:
    """Adds up x·xᵀ of the inputs x of some layers: products in float32, sums in float64."""

    def __init__(self, layers: Mapping[str, torch.nn.Linear]) -> None:
        self._layers = layers
        self._sums: dict[str, Tensor] = {}
        self._tokens = dict.fromkeys(layers, 0)
        self._last: tuple[Tensor, Tensor] | None = None
        """An input and its product: the layers that follow one another often see the same."""
        self.real_T = torch.zeros(0, dtype=torch.bool)
        """Which tokens of the batch are no filling."""

    @contextmanager
    def on(self) -> Iterator[_Watch]:
        """Watch while the block runs."""
        hooks = [layer.register_forward_pre_hook(partial(self._look, name)) for name, layer in self._layers.items()]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _look(self, name: str, layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0]
        if seen.shape[:-1].numel() != len(self.real_T):
            raise DataError(
                f"layer '{name}' sees only some of the tokens, so that their Gram matrix cannot be gathered",
                found=list(seen.shape),
                then="merge with a method that needs no 'gram'",
            )
        if self._last is None or self._last[0] is not seen:
            states_N = seen.flatten(0, -2)[self.real_T].float()
            self._last = seen, states_N.T @ states_N
        self._add(name, self._last[1], int(self.real_T.sum()))

    def add(self, name: str, states_N: Tensor) -> None:
        """Inputs [N, I] of a layer that is not called."""
        states_N = states_N.float()
        self._add(name, states_N.T @ states_N, len(states_N))

    def _add(self, name: str, product: Tensor, tokens: int) -> None:
        if name not in self._sums:
            self._sums[name] = torch.zeros_like(product, dtype=torch.float64)
        self._sums[name] += product
        self._tokens[name] += tokens

    def means(self) -> Iterator[tuple[str, Tensor]]:
        """(name, float64 [I, I]); each is forgotten when the next is asked for.

        Raises:
            DataError: a layer that no token went through.
        """
        self._last = None
        for name, tokens in self._tokens.items():
            if tokens == 0:
                raise DataError(f"no token went through layer '{name}'", then="merge without 'gram'")
            yield name, self._sums.pop(name) / tokens
