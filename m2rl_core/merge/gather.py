"""Gathers evidence of a model: what its weights mean for its own words (``fisher``), what its layers saw (``gram``).

``fisher`` is the diagonal of the empirical Fisher information: the mean over samples of the *squared gradient of one
sample's* log-prob, so every sample has a backward pass of its own. (Others square the gradient of a whole batch's sum,
in which samples cancel out.) ``gram`` is the mean of x·xᵀ over the inputs x that a linear layer saw, one per token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.errors import ConfigError, DataError, DivergedError
from m2rl_core.files import atomic_folder
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.merge.evidence import ABOUT
from m2rl_core.policy import Policy
from m2rl_core.train_sft import NegativeLogLikelihood
from m2rl_core.types import Batch, Sample
from m2rl_core.weights import Layout, Writer, fingerprint

__all__ = ["gather_evidence"]

HELD_BYTES = 1 << 31
"""Gram matrices held at once; the layers of larger models take turns, with one reading of the samples each."""
Report = Callable[[str, int, int], None]
"""Is told what is being gathered, how many of its rounds (samples, or groups of layers) are done, and their number."""


def gather_evidence(
    model: Path,
    samples_S: Sequence[Sample],
    kinds: frozenset[str],
    out: Path,
    *,
    tokens_per_device: int = 36864,
    report: Report | None = None,
    **held: Any,
) -> None:
    """Write the evidence of ``model`` into the new folder ``out``, whole or not at all.

    Memory holds the model in float32, and for ``fisher`` twice as much again: less than training it takes.

    Args:
        samples_S: what it has said, as tokens; the log-prob is that of the tokens that ``sampled_L`` marks.
        kinds: ``fisher`` and ``gram``.
        tokens_per_device: most tokens of one forward or backward pass.
        held: ``dtype`` of the matrix products, ``checkpointing``, ``trust_remote_code``: as :meth:`Policy.load`.

    Raises:
        ConfigError: another kind, or a sample longer than ``tokens_per_device``.
        DataError: no sample, or none of whose tokens was sampled; a model that cannot be opened; a layer that sees
            only some of the tokens.
        DivergedError: what was gathered is not finite.
    """
    if unknown := sorted(kinds - _GATHERERS.keys()):
        raise ConfigError("nobody can gather this evidence", found=", ".join(unknown), allowed=sorted(_GATHERERS))
    if not any(sample.length for sample in samples_S):
        raise DataError(f"no samples to gather evidence of {model} from", found=f"{len(samples_S)} without own tokens")
    policy = Policy.load(model, **{"dtype": "float32", **held})
    with atomic_folder(out) as folder:
        for kind in sorted(kinds):
            (folder / kind).mkdir()
            tell = partial(report, kind) if report is not None else lambda done, total: None
            _GATHERERS[kind](policy, samples_S, folder / kind, tokens_per_device, tell)
        about = {"model": fingerprint(model), "samples": len(samples_S), "tokens": sum(s.length for s in samples_S)}
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


# ── Fisher ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fisher(
    policy: Policy, samples_S: Sequence[Sample], folder: Path, limit: int, report: Callable[[int, int], None]
) -> None:
    parameters = dict(policy.model.named_parameters())
    squares = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    loss = NegativeLogLikelihood(ComponentConfig())
    for done, sample in enumerate(samples_S):
        report(done, len(samples_S))
        for batch in policy.pack([replace(sample, coef_L=torch.tensor(sample.sampled_L).float())], limit):
            policy.backward(batch, loss)
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                squares[name].addcmul_(parameter.grad, parameter.grad, value=1.0 / len(samples_S))
                parameter.grad = None
    _write(folder, {name: tuple(square.shape) for name, square in squares.items()}, squares.items())


# ── Gram matrices ────────────────────────────────────────────────────────────────────────────────────────────────────


def _gram(
    policy: Policy, samples_S: Sequence[Sample], folder: Path, limit: int, report: Callable[[int, int], None]
) -> None:
    layers = _linear_layers(policy.model)
    batches = policy.pack(samples_S, limit)
    shapes = {name: (layer.in_features, layer.in_features) for name, layer in layers.items()}
    groups = list(_groups(shapes))

    def matrices() -> Iterator[tuple[str, Tensor]]:
        for done, group in enumerate(groups):
            report(done, len(groups))
            yield from _seen(policy, {name: layers[name] for name in group}, batches)

    _write(folder, shapes, matrices())


def _linear_layers(model: Any) -> dict[str, torch.nn.Linear]:
    """Name of the weight → layer; a head that is tied to the embeddings is none."""
    own = {name for name, _ in model.named_parameters()}
    layers = ((f"{name}.weight", m) for name, m in model.named_modules() if isinstance(m, torch.nn.Linear))
    return {name: layer for name, layer in layers if name in own}


def _groups(shapes: Mapping[str, tuple[int, int]]) -> Iterator[list[str]]:
    """Names in order, cut where their float64 matrices would exceed :data:`HELD_BYTES`."""
    group: list[str] = []
    held = 0
    for name, (rows, columns) in shapes.items():
        size = 8 * rows * columns
        if group and held + size > HELD_BYTES:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    yield group


@torch.no_grad()
def _seen(
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


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(folder: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Any) -> None:
    """(name, tensor) as float32, one after another.

    Raises:
        DivergedError: a number that is not finite.
    """
    layout: Layout = {name: (torch.float32, shape) for name, shape in shapes.items()}
    with Writer(folder, layout) as writer:
        for name, tensor in tensors:
            values = tensor.detach().float().cpu().flatten()
            if not values.isfinite().all():
                raise DivergedError(
                    f"the {folder.name} of tensor '{name}' is not finite", then="train that model again"
                )
            writer.write(name, 0, values)


_GATHERERS: Mapping[str, Callable[[Policy, Sequence[Sample], Path, int, Callable[[int, int], None]], None]] = {
    "fisher": _fisher,
    "gram": _gram,
}
