"""Gathers evidence of a model: what its weights mean for its own words (``fisher``), what its layers saw (``gram``).

``fisher`` is the diagonal of the empirical Fisher information: the mean over samples of the *squared gradient of one
sample's* log-prob, so every sample has a backward pass of its own. (Others square the gradient of a whole batch's sum,
in which samples cancel out.) ``gram`` is the mean of x·xᵀ over the inputs x that a linear layer saw, one per token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2rl_core.errors import ConfigError, DataError, DivergedError, RunError
from m2rl_core.files import atomic_folder
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.merge.evidence import ABOUT
from m2rl_core.merge.gram import linear_layers, matrices_of, turns
from m2rl_core.policy import Policy
from m2rl_core.train_sft import NegativeLogLikelihood
from m2rl_core.types import Sample
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
        RunError: ``out`` is there already, or its disk is full.
    """
    if unknown := sorted(kinds - _GATHERERS.keys()):
        raise ConfigError("nobody can gather this evidence", found=", ".join(unknown), allowed=sorted(_GATHERERS))
    if not any(sample.length for sample in samples_S):
        raise DataError(f"no samples to gather evidence of {model} from", found=f"{len(samples_S)} without own tokens")
    if out.exists():
        raise RunError(f"{out} exists already", then="name a new folder, or remove it")
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
    layers = linear_layers(policy.model)
    batches = policy.pack(samples_S, limit)
    shapes = {name: (layer.in_features, layer.in_features) for name, layer in layers.items()}
    groups = list(turns(shapes, HELD_BYTES))

    def matrices() -> Iterator[tuple[str, Tensor]]:
        for done, group in enumerate(groups):
            report(done, len(groups))
            yield from matrices_of(policy, {name: layers[name] for name in group}, batches)

    _write(folder, shapes, matrices())


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
