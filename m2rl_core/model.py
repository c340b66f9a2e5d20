"""``kind: model`` — a model trained elsewhere: a local folder, used where it lies, or a pinned revision from the hub.

This module imports no torch.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from m2rl_core.config import ModelStage, Study
from m2rl_core.errors import ConfigError, DataError
from m2rl_core.run import StageRun

__all__ = ["grounded", "is_local", "model"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
"""What is fetched from the hub: safetensors only, never pickled weights, never code."""


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


def is_local(stage: ModelStage) -> bool:
    """True for a folder of a study that has been :func:`grounded`, False for a hub id."""
    return Path(stage.path).is_absolute()


def grounded(study: Study, root: Path) -> Study:
    """``study`` with the local folders of its models as absolute paths; relative ones start from ``root``.

    Raises:
        DataError: neither a folder nor a hub id.
        ConfigError: a hub id without the commit that pins it.
    """
    stages = {
        name: s.model_copy(update={"path": _place(f"stages.{name}.path", s.path, s.revision, root)})
        if isinstance(s, ModelStage)
        else s
        for name, s in study.stages.items()
    }
    start = study.model
    if start.base is not None:
        start = start.model_copy(update={"base": _place("model.base", start.base, start.revision, root)})
    return study.model_copy(update={"stages": stages, "model": start})


def _place(owner: str, path: str, revision: str | None, root: Path) -> str:
    folder = root.resolve() / Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    if path.startswith((".", "/", "~")) or not HUB_ID.fullmatch(path):
        raise DataError(
            f"{owner}: there is no folder {folder}", allowed="a folder, or a hub id such as Qwen/Qwen3-4B-Base"
        )
    if not COMMIT.fullmatch(revision or ""):
        raise ConfigError(
            f"{owner.rpartition('.')[0]}.revision: '{path}' is no local folder, and what comes from the hub is pinned",
            found=revision,
            allowed="a commit, 40 hexadecimal digits",
            then=f"copy the newest from https://huggingface.co/{path}/commits",
        )
    return path


def _fetched(run: StageRun[ModelStage]) -> Path:
    from huggingface_hub import snapshot_download

    stage = run.stage
    run.report(text=f"fetching {stage.path}")
    try:
        return Path(snapshot_download(stage.path, revision=stage.revision, allow_patterns=FILES))
    except Exception as error:  # the hub's errors have no common base, and every one means the same here
        raise DataError(
            f"{stage.path} at {stage.revision} could not be fetched: {type(error).__name__}: {error}",
            then="check the id and the connection, or download it and name the folder",
        ) from error
