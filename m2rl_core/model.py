"""``kind: model`` — a model trained elsewhere: a local folder, used where it lies, or a pinned revision from the hub.

This module imports no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from m2rl_core.config import ModelStage, is_local
from m2rl_core.errors import DataError
from m2rl_core.run import StageRun

__all__ = ["model"]

FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
"""What is fetched from the hub: safetensors only, never pickled weights, and code only where the study trusts it."""


def model(run: StageRun[ModelStage]) -> None:
    """Fetch or find the model of ``run.stage`` and link ``checkpoint`` to it.

    Raises:
        DataError: no usable model is there.
    """
    folder = Path(run.stage.path) if is_local(run.stage) else _fetched(run)
    for pattern, what in {
        "config.json": "configuration",
        "tokenizer*": "tokenizer",
        "*.safetensors": "weights",
    }.items():
        if not list(folder.glob(pattern)):
            raise DataError(
                f"{folder} is no usable model: no {what} ({pattern})",
                then="save it with transformers' save_pretrained (weights as safetensors, the tokenizer too)",
            )
    link = run.folder / f".checkpoint.part-{os.getpid()}"
    link.symlink_to(folder.resolve(), target_is_directory=True)
    link.replace(run.folder / "checkpoint")


def _fetched(run: StageRun[ModelStage]) -> Path:
    from huggingface_hub import snapshot_download

    stage = run.stage
    patterns = [*FILES, *(["*.py"] if run.study.model.trust_remote_code else [])]
    run.report(text=f"fetching {stage.path}")
    try:
        return Path(snapshot_download(stage.path, revision=stage.revision, allow_patterns=patterns))
    except Exception as error:  # the hub's errors have no common base, and every one means the same here
        raise DataError(
            f"{stage.path} at {stage.revision} could not be fetched: {type(error).__name__}: {error}",
            then="check the id and the connection, or download it and name the folder",
        ) from error
