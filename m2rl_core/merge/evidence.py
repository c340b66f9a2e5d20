"""What mergers may need beyond weights, on disk: one folder per expert, opened and checked beside the models.

Such a folder holds one folder per kind, e.g. ``fisher`` and ``gram``, of float32 safetensors with the weights' names,
and ``evidence.json``, which says of which weights it is. :mod:`m2rl_core.merge.gather` makes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from m2rl_core.errors import ConfigError, DataError, nearest
from m2rl_core.interfaces import Merger
from m2rl_core.merge.checks import Model
from m2rl_core.merge.inputs import GRAM
from m2rl_core.weights import Checkpoint

ABOUT = "evidence.json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Open evidence of all experts."""

    kinds: Mapping[str, Sequence[Checkpoint]] = field(default_factory=dict)
    """Kind → one checkpoint per expert, in their order."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Expert → fingerprint of the weights that its evidence is of."""
    folders: Mapping[str, Path] = field(default_factory=dict)

    def check_models(self, fingerprints: Mapping[str, str]) -> None:
        """Refuse evidence that was gathered from other weights than those that were merged.

        Raises:
            DataError: naming the expert.
        """
        for expert, found in self.models.items():
            if found != fingerprints[expert]:
                raise DataError(
                    f"the evidence of expert '{expert}' is of other weights than the expert's",
                    found=found,
                    allowed=fingerprints[expert],
                    then="gather it again",
                )


def need_evidence(merger: Merger, experts: Mapping[str, Path], folders: Mapping[str, Path] | None) -> None:
    """Refuse a merge without the evidence that its merger needs, or with evidence that nobody needs.

    Raises:
        ConfigError: naming the merger, what it needs, what is missing or too much, and how to give it.
    """
    if folders and not merger.needs:
        raise ConfigError(
            f"merger '{merger.name}' looks at weights alone",
            found=f"evidence of {', '.join(folders)}",
            then="leave it out",
        )
    for name in folders or ():
        if name not in experts:
            allowed = ", ".join(experts)
            raise ConfigError(f"evidence of '{name}', which is no expert.{nearest(name, experts)}", allowed=allowed)
    for kind in sorted(merger.needs):
        without = [name for name in experts if not (folders and name in folders and (folders[name] / kind).is_dir())]
        if without:
            raise ConfigError(
                f"merger '{merger.name}' needs evidence beyond the weights: '{kind}' of every expert",
                found=f"none of {', '.join(without)}",
                then="in a study, set 'evidence' of the merge stage; elsewhere, let "
                "m2rl_core.merge.gather.gather_evidence make a folder for each expert, and name these by --evidence "
                "NAME=DIR or under 'evidence' of a recipe",
            )


@contextmanager
def opened_evidence(
    merger: Merger, folders: Mapping[str, Path] | None, experts: Mapping[str, Model], names: Sequence[str]
) -> Iterator[Evidence]:
    """The evidence that a merger needs, open for a while.

    Args:
        folders: expert → folder.
        experts: open models by name, in order.
        names: tensors that are merged.

    Raises:
        DataError: evidence that does not fit the models, or is no evidence.
    """
    with ExitStack() as stack:
        kinds: dict[str, list[Checkpoint]] = {}
        for kind in sorted(merger.needs):
            assert folders is not None, "need_evidence comes first"
            kinds[kind] = [stack.enter_context(Checkpoint.open(folders[name] / kind)) for name in experts]
            for (name, model), found in zip(experts.items(), kinds[kind], strict=True):
                _check(kind, f"expert '{name}'", found, kinds[kind][0], model, names)
        used = {name: folders[name] for name in experts} if folders and kinds else {}
        yield Evidence(kinds, {name: _about(folder) for name, folder in used.items()}, used)


def _check(kind: str, who: str, found: Checkpoint, first: Checkpoint, model: Model, names: Sequence[str]) -> None:
    """Whether one expert's evidence of one kind fits its model."""
    wanted = names if kind != GRAM else [name for name in names if name in first.tensors]
    for name in wanted:
        if name not in found.tensors:
            raise DataError(f"{who}: its '{kind}' lacks tensor '{name}'", found=found.folder, then="gather it again")
        stored, shape = found.tensors[name], model.checkpoint.tensors[name].shape
        fits = shape if kind != GRAM else shape[1:] * 2
        if stored.shape != fits or stored.dtype != torch.float32:
            raise DataError(
                f"{who}: its '{kind}' does not fit tensor '{name}'",
                found=f"{list(stored.shape)} {stored.dtype}",
                allowed=f"{list(fits)} {torch.float32}",
                then="gather it again",
            )


def _about(folder: Path) -> str:
    """Fingerprint of the weights that the evidence in ``folder`` is of."""
    try:
        return str(json.loads((folder / ABOUT).read_text())["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no evidence", found=error, then="gather it again") from error
