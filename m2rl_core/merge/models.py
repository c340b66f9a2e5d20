"""From model folders to model folders: checks, the stream, and what stands beside the weights."""

from __future__ import annotations

import functools
import operator
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
from m2rl_core.merge.parts import Parted, Share, check_parts, shares
from m2rl_core.merge.stream import Report, Stream
from m2rl_core.weights import Fingerprint, Layout, Writer, copy_companions, fingerprint


def merge_models(
    merger: Merger,
    *,
    base: Path | None,
    experts: Mapping[str, Path],
    out: Path | Mapping[str, Path],
    dtype: str | None = None,
    parts: Sequence[Parted] = (),
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
        parts: other mergers for some tensors; the first that names a tensor merges it.
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
    with prepared(merger, base, experts, dtype, threads, report, evidence, parts) as job, ExitStack() as stack:
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
    parts: Sequence[Parted] = (),
) -> Iterator[Job]:
    """A merge whose inputs are open and have passed every check that comes before the stream; see merge_models."""
    if not experts:
        raise ConfigError(f"merger '{merger.name}' was given no experts")
    for each in (merger, *(part.merger for part in parts)):
        _check(each, base, list(experts))
    check_parts(merger, parts)
    need_evidence(merger, experts, evidence)
    folders = {f"expert '{name}'": folder for name, folder in experts.items()}
    with checks.opened(folders if base is None else {"the base": base, **folders}) as models:
        checks.agree(models[0], models[1:])
        checks.distinct(models)
        kind = None if dtype is None else getattr(torch, dtype)
        named = dict(zip(experts, models[-len(experts) :], strict=True))
        with opened_evidence(merger, evidence, named, models[0].names) as seen:
            yield Job(shares(merger, parts, models[0]), base, experts, models, kind, threads, report, seen)


def _check(merger: Merger, base: Path | None, experts: Sequence[str]) -> None:
    """Refuse a merger that does not fit what it is given, before anything is opened."""
    check_experts(merger, experts, f"merger '{merger.name}'")
    if merger.needs_base and base is None:
        raise ConfigError(f"merger '{merger.name}' needs a base", then="name the model that the experts started from")


@dataclass(frozen=True, slots=True)
class Job:
    """A merge that is ready to be written."""

    shares: Sequence[Share]
    """The merger's own, and its parts'."""
    base: Path | None
    experts: Mapping[str, Path]
    models: Sequence[Model]
    """The anchor, or else the first expert, comes first."""
    dtype: torch.dtype | None
    threads: int
    report: Report | None
    evidence: Evidence

    @property
    def merger(self) -> Merger:
        """Of all tensors that no part names."""
        return self.shares[0].merger

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
        with ExitStack() as stack:
            writers = [stack.enter_context(Writer(folders[name], self.layout)) for name in self.merger.outputs()]
            streams = self._streams(writers)
            for stream in streams:
                stream.run()
        survey = functools.reduce(operator.add, [stream.survey for stream in streams])
        found = card.Diagnostics(list(self.experts), survey, self._fingerprints(streams))
        self.evidence.check_models(found.fingerprints)
        for folder in folders.values():
            self._complete(folder, found)
        return found

    def _streams(self, writers: Sequence[Writer]) -> list[Stream]:
        """One per share; they fill the same files, and gather the same fingerprints."""
        layout, streams = self.layout, list[Stream]()
        base = None if self.base is None else self.anchor.checkpoint
        experts = [model.checkpoint for model in self.models[-len(self.experts) :]]
        named = dict(zip(self.experts, experts, strict=True))

        def write(piece: Piece, outputs: list[Tensor]) -> None:
            for writer, values in zip(writers, outputs, strict=True):
                writer.write(piece.name, piece.offset, self._rounded(piece, values, layout[piece.name][0]))

        def report(before: Sequence[Stream], done: int, _: int) -> None:
            if self.report is not None:
                self.report(sum(stream.to_read for stream in before) + done, sum(s.to_read for s in streams))

        fingerprints = [Fingerprint(model.checkpoint.tensors) for model in self.models]
        for share in self.shares:
            if share.names or len(self.shares) == 1:
                evidence = self.evidence.kinds if share.merger.needs else {}
                inputs = Inputs(base, named, share.names, granularity=share.merger.granularity, evidence=evidence)
                told = functools.partial(report, streams[:])
                streams.append(Stream(share.merger, inputs, write, fingerprints, threads=self.threads, report=told))
        return streams

    def _rounded(self, piece: Piece, values: Tensor, dtype: torch.dtype) -> Tensor:
        """The one rounding of a block."""
        low, high = torch.aminmax(values)
        limit = torch.finfo(dtype).max
        if not -limit <= low.item() <= high.item() <= limit:
            raise StageError(
                f"merging made a weight of tensor '{piece.name}' that {dtype} cannot hold",
                found=f"{low.item()} … {high.item()}",
                then="choose another dtype or smaller coefficients",
            )
        return values.flatten().to(dtype)

    def _fingerprints(self, streams: Sequence[Stream]) -> dict[str, str]:
        """By model; inputs whose fingerprint the streams could not take on their way are read again."""
        names = ["base", *self.experts] if self.base is not None else list(self.experts)
        whole, read = all(stream.whole_leaves for stream in streams), set(self.anchor.names)
        return {
            name: found if whole and source.tensors.keys() == read else fingerprint(source.folder, self.threads)
            for name, source, found in zip(
                names, (model.checkpoint for model in self.models), streams[0].fingerprints, strict=True
            )
        }

    def _complete(self, folder: Path, found: card.Diagnostics) -> None:
        """Everything but the weights."""
        types = [dtype for dtype, _ in self.layout.values()]
        copy_companions(self.anchor.checkpoint.folder, folder)
        card.write_config(self.anchor.config, folder, max(set(types), key=types.count))
        references = dict.fromkeys(share.merger.reference for share in self.shares)
        card.write_card(folder, self._recipe(), "; ".join(references), found)

    def _recipe(self) -> dict[str, Any]:
        parts = [{"tensors": list(share.tensors), "merger": _use(share.merger)} for share in self.shares[1:]]
        return {
            "merger": _use(self.merger),
            "base": None if self.base is None else str(self.base),
            "experts": {name: str(folder) for name, folder in self.experts.items()},
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            **({"parts": parts} if parts else {}),
        }


def _use(merger: Merger) -> dict[str, Any]:
    """As a recipe says it."""
    config = getattr(merger, "config", None)  # by convention; the interface does not ask for it
    settings = config.model_dump(mode="json") if isinstance(config, BaseModel) else {}
    return {"use": merger.name, **settings}
