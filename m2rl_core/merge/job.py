"""A merge whose inputs are open and checked: the streams, and what stands beside the weights."""

from __future__ import annotations

import functools
import operator
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from m2rl_core.errors import RunError, StageError
from m2rl_core.interfaces import Merger
from m2rl_core.merge import card
from m2rl_core.merge.checks import Model
from m2rl_core.merge.evidence import Evidence
from m2rl_core.merge.inputs import Inputs, Piece
from m2rl_core.merge.parts import Share
from m2rl_core.merge.remarks import remarks
from m2rl_core.merge.stream import Report, Stream
from m2rl_core.merge.sweep import Sweep, output_of
from m2rl_core.model_card import published
from m2rl_core.weights import Fingerprint, Layout, Writer, copy_companions, fingerprint


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
    unmoved: Sequence[str]
    """A sentence for each expert that its training has not moved."""
    called: Mapping[Path, str] = field(default_factory=dict)
    """What the recipe on the card calls a folder, where that is not its path."""

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
        """Fill the folders, one per output of the merger.

        What is copied comes first, so that a file which cannot be read is told of before the weights take their time.
        """
        for folder in folders.values():
            copy_companions(self.anchor.checkpoint.folder, folder)
        with ExitStack() as stack:
            writers = [stack.enter_context(Writer(folders[name], self.layout)) for name in self.merger.outputs()]
            streams = self._streams(writers)
            for stream in streams:
                stream.run()
        survey = functools.reduce(operator.add, [stream.survey for stream in streams])
        means = functools.reduce(operator.or_, [stream.diagnostics.values for stream in reversed(streams)])
        said = [*self.unmoved, *remarks(self.anchor, self.models[1:])]
        own = [text for stream in streams for text in stream.remarks]
        found = card.Diagnostics(list(self.experts), survey, self._fingerprints(streams), means, [*said, *own])
        self.evidence.check_models(found.fingerprints)
        for output, folder in folders.items():
            if isinstance(self.merger, Sweep):
                member, told = self.merger.members[output], output_of(output, means)
                own = list(member.remarks(found.experts, told))
                self._complete(folder, replace(found, own=told, remarks=[*said, *own]), member)
            else:
                self._complete(folder, found, self.merger)
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

    def _complete(self, folder: Path, found: card.Diagnostics, merger: Merger) -> None:
        """What is told of the weights, which ``merger`` has made, and the parts'."""
        types = [dtype for dtype, _ in self.layout.values()]
        card.write_config(self.anchor.config, folder, max(set(types), key=types.count))
        references = dict.fromkeys([merger.reference, *(share.merger.reference for share in self.shares[1:])])
        origins = dict.fromkeys(each for model in self.models for each in published(model.checkpoint.folder))
        recipe = self._recipe(merger)
        card.write_card(folder, recipe, "; ".join(references), found, _presets(merger), list(origins))

    def _recipe(self, merger: Merger) -> dict[str, Any]:
        parts = [{"tensors": list(share.tensors), "merger": _use(share.merger)} for share in self.shares[1:]]
        return {
            "merger": _use(merger),
            "base": None if self.base is None else self._called(self.base),
            "experts": {name: self._called(folder) for name, folder in self.experts.items()},
            **({"evidence": {n: self._called(at) for n, at in self.evidence.folders.items()}} if merger.needs else {}),
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
            **({"parts": parts} if parts else {}),
        }

    def _called(self, folder: Path) -> str:
        return self.called.get(folder, str(folder))


def _use(merger: Merger) -> dict[str, Any]:
    """As a recipe says it."""
    config = getattr(merger, "config", None)  # by convention; the interface does not ask for it
    settings = config.model_dump(mode="json") if isinstance(config, BaseModel) else {}
    parts = {field: _use(getattr(merger, field)) for field in merger.parts if hasattr(merger, field)}
    return {"use": merger.name, **settings, **parts}


def _presets(merger: Merger) -> list[str]:
    """A sentence for each preset that a merger's settings are, whether or not they were called so."""
    config = getattr(merger, "config", None)
    return [
        f"These are the settings of preset `{name}`: {preset.note}"
        for name, preset in merger.presets.items()
        if isinstance(config, BaseModel) and config == type(config).model_validate(dict(preset.settings))
    ]
