"""Out of memory: said with the settings that would need less, where it happened.

This module imports no torch: its errors are known by their names and words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from m2rl_core.config import AnalyzeStage, EvalStage, MergeStage, ModelSection, RlStage, SftStage

__all__ = ["remedies", "shortage"]

DOING = {
    "rollout": "drawing samples",
    "sync": "giving the engine new weights",
    "score": "computing log-probs",
    "train": "training",
}
"""Kind of work, as clocks name it → what the stage was doing."""
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")
_SIZES = ("memory", "cache", "gib", "rows", "seqs")
"""Words in the names of an engine's settings that say how much it holds."""


def shortage(error: BaseException | None) -> str:
    """What ran out of memory, in the words of whoever noticed, or nothing for errors of other kinds."""
    while error is not None:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return text or type(error).__name__
        if isinstance(error, RuntimeError | OSError) and any(words in text.lower() for words in _WORDS):
            return text
        error = error.__cause__
    return ""


def remedies(kind: str, name: str, stage: object, model: ModelSection, engine: Mapping[str, Any]) -> str:
    """The settings to change, with the values found, as one sentence; for all kinds of work where ``kind`` is none.

    Args:
        kind: of work, as clocks name it.
        name: of the stage.
        engine: its settings, with defaults where these are known.
    """
    found = list(_remedies(kind, f"stages.{name}", stage, model, engine))
    return f"change {', or '.join(found)}" if found else "take a smaller model or a larger device"


def _remedies(kind: str, owner: str, stage: object, model: ModelSection, engine: Mapping[str, Any]) -> Iterator[str]:
    anywhere = kind not in DOING
    if isinstance(stage, RlStage | SftStage) and (anywhere or kind in ("train", "score")):
        if kind != "score" and not model.activation_checkpointing:
            yield "model.activation_checkpointing (false) to true, after which the stage goes on where it is"
        if kind != "score" and not model.optimizer_offload:
            yield "on a GPU model.optimizer_offload (false) to true, after which it goes on, too"
        longest, value = _longest(stage)
        if stage.tokens_per_device > value:
            yield f"{owner}.tokens_per_device ({stage.tokens_per_device}) to less, at least {longest} = {value}"
        else:
            yield f"{owner}.{longest} ({value}) and tokens_per_device ({stage.tokens_per_device}) to less"
    if isinstance(stage, MergeStage) and stage.search is not None and kind == "score":
        yield f"{owner}.search.tokens_per_device ({stage.search.tokens_per_device}) to less"
    if isinstance(stage, AnalyzeStage) and (anywhere or kind in ("train", "score")):
        yield f"{owner}.tokens_per_device ({stage.tokens_per_device}) to less"
    if isinstance(stage, RlStage | EvalStage | AnalyzeStage) and (anywhere or kind in ("rollout", "sync")):
        yield from (f"engine.{key} ({value}) to less" for key, value in engine.items() if _is_size(key, value))
        if kind != "sync" and not isinstance(stage, AnalyzeStage):
            yield f"{owner}.max_tokens ({stage.max_tokens}) to less"
    if isinstance(stage, RlStage) and (anywhere or kind == "rollout"):
        yield f"{owner}.prompts ({stage.prompts}) or group ({stage.group}) to less"


def _longest(stage: RlStage | SftStage) -> tuple[str, int]:
    """The setting that bounds a sequence, and its value."""
    return ("max_tokens", stage.max_tokens) if isinstance(stage, RlStage) else ("max_length", stage.max_length)


def _is_size(key: str, value: object) -> bool:
    return isinstance(value, int | float) and any(word in key for word in _SIZES)
