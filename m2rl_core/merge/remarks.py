"""What is allowed when models are merged, and yet seldom meant: told on the card and on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from m2rl_core.merge.checks import Model

__all__ = ["remarks"]


def remarks(anchor: Model, models: Sequence[Model]) -> list[str]:
    """One sentence for each way in which a model differs from the anchor, whose files the result will have."""
    return [text for model in models for text in (*_precision(anchor, model), *_files(anchor, model))]


def _precision(anchor: Model, model: Model) -> Iterator[str]:
    for name in anchor.names:
        ours, theirs = anchor.checkpoint.tensors[name].dtype, model.checkpoint.tensors[name].dtype
        if torch.finfo(theirs).eps > torch.finfo(ours).eps:
            yield (
                f"Tensor '{name}' of {model.label} is stored as {theirs}, that of {anchor.label} as {ours}: "
                "what rounding has moved counts as trained."
            )
            return


def _files(anchor: Model, model: Model) -> Iterator[str]:
    ours, theirs = anchor.checkpoint.folder, model.checkpoint.folder
    if (mine := _template(ours)) != (other := _template(theirs)) and other is not None:
        has = "has another chat template than" if mine is not None else "has a chat template, unlike"
        yield f"{_capital(model.label)} {has} {anchor.label}; the result will have that of {anchor.label}."
    key, file = "eos_token_id", "generation_config.json"
    mine, other = _field(ours / file, key), _field(theirs / file, key)
    if mine != other and other is not None:
        yield (
            f"{_capital(model.label)} stops at other tokens than {anchor.label} "
            f"({file}: {key} {other}, against {mine}); the result will stop at those of {anchor.label}."
        )


def _template(folder: Path) -> Any:
    """The chat template, wherever it is kept."""
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return _field(folder / "tokenizer_config.json", "chat_template")


def _field(file: Path, key: str) -> Any:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get(key) if isinstance(found, dict) else None


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
