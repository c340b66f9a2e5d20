"""The weights of several models side by side, for analyzers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from m2rl_core.merge.checks import agree, opened
from m2rl_core.merge.inputs import Inputs
from m2rl_core.types import Block

__all__ = ["blocks"]


def blocks(base: Path, models: Mapping[str, Path]) -> Iterator[Block]:
    """Blocks of all tensors, in the order of the file of ``base``; each is overwritten by the next one.

    Raises:
        DataError: folders that hold no weights, or models that do not share the base's tensors, function or tokens.
    """
    with opened({"the base": base, **{f"model '{name}'": folder for name, folder in models.items()}}) as there:
        anchor, *others = there
        agree(anchor, others)
        experts = {name: model.checkpoint for name, model in zip(models, others, strict=True)}
        inputs = Inputs(anchor.checkpoint, experts, anchor.names)
        for name in anchor.names:
            for piece in inputs.pieces(name):
                yield inputs.load(piece)
