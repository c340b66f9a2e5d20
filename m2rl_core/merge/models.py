"""From model folders to model folders: checks, the stream, and what stands beside the weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from m2rl_core.config import check_experts
from m2rl_core.errors import ConfigError, RunError, StageError
from m2rl_core.files import atomic_folder
from m2rl_core.interfaces import Merger
from m2rl_core.merge import card, checks
from m2rl_core.merge.checks import Model
from m2rl_core.merge.evidence import Evidence, need_evidence, opened_evidence
from m2rl_core.merge.inputs import Inputs, Piece
from m2rl_core.merge.stream import Report, Stream
from m2rl_core.weights import Layout, Writer, copy_companions, fingerprint


def merge_models(
    merger: Merger,
    *,
    base: Path | None,
    experts: Mapping[str, Path],
    out: Path | Mapping[str, Path],
    dtype: str | None = None,
    threads: int = 1,
    report: Report | None = None,
    evidence: Mapping[str, Path] | None = None,
) -> card.Diagnostics:
    """Merge model folders into new ones, which appear whole or not at all.

    Args:
        merger: how.
        base: the anchor: its configuration and tokenizer are the result's, and diagnostics start from it, also where
            the merger does not need it. Without one, the first expert's are, and there are fewer diagnostics.
        experts: by name; names are for messages and the card.
        out: the new folder; for a merger of several outputs, one per name.
        dtype: of the result, as in ``torch``; ``None`` keeps each tensor's type in the anchor.
        threads: work on so many blocks at once. The result does not depend on it.
        report: is told the bytes read so far, and those to be read in all.
        evidence: what the merger ``needs`` beyond weights: expert → a folder that
            :func:`m2rl_core.merge.gather.gather_evidence` has made.

    Raises:
        ConfigError: the merger does not fit what it is given, or needs evidence that it is not given.
        DataError: models that do not belong together, or a weight that is no finite number.
        RunError: an output folder that is not empty, or too small a disk.
        StageError: the merger's own code failed.
    """
    folders = {"": out} if isinstance(out, Path) else dict(out)
    if set(folders) != set(merger.outputs()):
        raise ConfigError(
            f"merger '{merger.name}' has other outputs than folders were named for",
            found=", ".join(map(repr, folders)),
            allowed=", ".join(map(repr, merger.outputs())),
        )
    for folder in folders.values():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} exists already", then="name a new folder, or remove it")
    with prepared(merger, base, experts, dtype, threads, report, evidence) as job, ExitStack() as stack:
        for folder in folders.values():
            job.need_room(folder)
        return job.write({name: stack.enter_context(atomic_folder(folder)) for name, folder in folders.items()})


@contextmanager
def prepared(
    merger: Merger,
    base: Path | None,
    experts: Mapping[str, Path],
    dtype: str | None,
    threads: int,
    report: Report | None,
    evidence: Mapping[str, Path] | None = None,
) -> Iterator[Job]:
    """A merge whose inputs are open and have passed every check that comes before the stream; see merge_models."""
    if not experts:
        raise ConfigError(f"merger '{merger.name}' was given no experts")
    check_experts(merger, list(experts), f"merger '{merger.name}'")
    need_evidence(merger, experts, evidence)
    if merger.needs_base and base is None:
        raise ConfigError(f"merger '{merger.name}' needs a base", then="name the model that the experts started from")
    folders = {f"expert '{name}'": folder for name, folder in experts.items()}
    with checks.opened(folders if base is None else {"the base": base, **folders}) as models:
        checks.agree(models[0], models[1:])
        checks.distinct(models)
        kind = None if dtype is None else getattr(torch, dtype)
        named = dict(zip(experts, models[-len(experts) :], strict=True))
        with opened_evidence(merger, evidence, named, models[0].names) as seen:
            yield Job(merger, base, experts, models, kind, threads, report, seen)


@dataclass(frozen=True, slots=True)
class Job:
    """A merge that is ready to be written."""

    merger: Merger
    base: Path | None
    experts: Mapping[str, Path]
    models: Sequence[Model]
    """The anchor, or else the first expert, comes first."""
    dtype: torch.dtype | None
    threads: int
    report: Report | None
    evidence: Evidence

    @property
    def anchor(self) -> Model:
        return self.models[0]

    @property
    def layout(self) -> Layout:
        """Type and shape of every tensor of the result."""
        stored = self.anchor.checkpoint.tensors
        return {name: (self.dtype or stored[name].dtype, stored[name].shape) for name in self.anchor.names}

    def need_room(self, folder: Path) -> None:
        """Refuse a disk that cannot hold the results.

        Raises:
            RunError: with the bytes that are free and needed.
        """
        needed = sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in self.layout.values())
        needed *= len(self.merger.outputs())
        free = shutil.disk_usage(next(p for p in folder.absolute().parents if p.exists())).free
        if free < needed:
            raise RunError(
                f"the disk of {folder} is too small for the merged model",
                found=f"{free / 1e9:.2f} GB free",
                allowed=f"at least {needed / 1e9:.2f} GB",
            )

    def write(self, folders: Mapping[str, Path]) -> card.Diagnostics:
        """Fill the folders, one per output of the merger."""
        layout = self.layout
        experts = [model.checkpoint for model in self.models[-len(self.experts) :]]
        inputs = Inputs(
            None if self.base is None else self.anchor.checkpoint,
            dict(zip(self.experts, experts, strict=True)),
            self.anchor.names,
            granularity=self.merger.granularity,
            evidence=self.evidence.kinds,
        )
        with ExitStack() as stack:
            writers = [stack.enter_context(Writer(folders[name], layout)) for name in self.merger.outputs()]

            def write(piece: Piece, outputs: list[Tensor]) -> None:
                for writer, values in zip(writers, outputs, strict=True):
                    writer.write(piece.name, piece.offset, self._rounded(piece, values, layout[piece.name][0]))

            stream = Stream(self.merger, inputs, write, threads=self.threads, report=self.report)
            stream.run()
        found = card.Diagnostics(list(self.experts), stream.survey, self._fingerprints(inputs, stream))
        self.evidence.check_models(found.fingerprints)
        for folder in folders.values():
            self._complete(folder, found)
        return found

    def _rounded(self, piece: Piece, values: Tensor, dtype: torch.dtype) -> Tensor:
        """The one rounding of a block."""
        low, high = torch.aminmax(values)
        limit = torch.finfo(dtype).max
        if not -limit <= low.item() <= high.item() <= limit:
            raise StageError(
                f"merger '{self.merger.name}' made a weight of tensor '{piece.name}' that {dtype} cannot hold",
                found=f"{low.item()} … {high.item()}",
                then="choose another dtype or smaller coefficients",
            )
        return values.flatten().to(dtype)

    def _fingerprints(self, inputs: Inputs, stream: Stream) -> dict[str, str]:
        """By model; inputs whose fingerprint the stream could not take on its way are read again."""
        names = ["base", *self.experts] if inputs.base is not None else list(self.experts)
        return {
            name: found
            if inputs.whole_leaves and source.tensors.keys() == inputs.tensors.keys()
            else fingerprint(source.folder, self.threads)
            for name, source, found in zip(names, inputs.sources, stream.fingerprints, strict=True)
        }

    def _complete(self, folder: Path, found: card.Diagnostics) -> None:
        """Everything but the weights."""
        types = [dtype for dtype, _ in self.layout.values()]
        copy_companions(self.anchor.checkpoint.folder, folder)
        card.write_config(self.anchor.config, folder, max(set(types), key=types.count))
        card.write_card(folder, self._recipe(), self.merger.reference, found)

    def _recipe(self) -> dict[str, Any]:
        config = getattr(self.merger, "config", None)  # by convention; the interface does not ask for it
        settings = config.model_dump(mode="json") if isinstance(config, BaseModel) else {}
        return {
            "merger": {"use": self.merger.name, **settings},
            "base": None if self.base is None else str(self.base),
            "experts": {name: str(folder) for name, folder in self.experts.items()},
            **(
                {"evidence": {name: str(at) for name, at in self.evidence.folders.items()}} if self.merger.needs else {}
            ),
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
        }
