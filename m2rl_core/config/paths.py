"""What a study names on this machine: paths start from the study's folder, wherever m2rl is run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m2rl_core.config.stages import AnyStage, MergeStage, ModelStage, SftStage
from m2rl_core.config.study import Study
from m2rl_core.errors import ConfigError, DataError
from m2rl_core.rows import is_commit, is_hub_id

__all__ = ["grounded", "is_local", "local_path"]


def grounded(study: Study, root: Path) -> Study:
    """``study`` with absolute paths of its models' folders and of the local files that domains, blends and merges name.

    Relative ones start from ``root``, the folder of the study's file. What a domain names and is not there stays as it
    is, so that the domain can say so. Grounding twice changes nothing.

    Raises:
        DataError: a model that is neither a folder nor a hub id.
        ConfigError: a hub id without the commit that pins it.
    """
    root = root.resolve()
    stages = {name: _stage(name, stage, root) for name, stage in study.stages.items()}
    start = study.model
    if start.base is not None:
        start = start.model_copy(update={"base": _model("model.base", start.base, start.revision, root)})
    domains = {
        name: section.model_copy(update={"config": _placed(section.config, root)})
        for name, section in study.domains.items()
    }
    return study.model_copy(update={"stages": stages, "model": start, "domains": domains})


def _stage(name: str, stage: AnyStage, root: Path) -> AnyStage:
    if isinstance(stage, ModelStage):
        return stage.model_copy(update={"path": _model(f"stages.{name}.path", stage.path, stage.revision, root)})
    if isinstance(stage, MergeStage) and stage.evidence is not None:
        files = _placed(stage.evidence.conversations, root)
        return stage.model_copy(update={"evidence": stage.evidence.model_copy(update={"conversations": files})})
    if isinstance(stage, SftStage) and stage.blend:
        blend = {key: each.model_copy(update=_placed(each.model_dump(), root)) for key, each in stage.blend.items()}
        return stage.model_copy(update={"blend": blend})
    return stage


def is_local(stage: ModelStage) -> bool:
    """True for a folder of a study that has been :func:`grounded`, False for a hub id."""
    return Path(stage.path).is_absolute()


def local_path(text: str, root: Path = Path()) -> Path | None:
    """The existing file or folder that ``text`` names, starting from ``root``; ``None`` where it names none.

    A path has a letter or digit, and a slash or, for a file, at least a suffix: a word such as ``generated`` is never
    taken for one, nor is ``/``.
    """
    if "\0" in text or not any(map(str.isalnum, text)) or ("/" not in text and not Path(text).suffix):
        return None
    path = root / os.path.expanduser(text)
    found = os.path.isfile(path) or ("/" in text and os.path.isdir(path))  # false also for text that can be no path
    return path if found else None


def _placed(value: Any, root: Path) -> Any:
    """``value``, a part of a domain's settings, with the paths of what is there made absolute."""
    match value:
        case str():
            here, elsewhere = local_path(value, root), local_path(value)
            return str(here or (root / value if elsewhere else value))  # not what lies in the working directory
        case Mapping():
            return {key: _placed(below, root) for key, below in value.items()}
        case list():
            return [_placed(below, root) for below in value]
    return value


def _model(owner: str, path: str, revision: str | None, root: Path) -> str:
    folder = root / Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    if path.startswith((".", "/", "~")) or not is_hub_id(path):
        raise DataError(
            f"{owner}: there is no folder {folder}", allowed="a folder, or a hub id such as Qwen/Qwen3-4B-Base"
        )
    if not is_commit(revision or ""):
        raise ConfigError(
            f"{owner.rpartition('.')[0]}.revision: '{path}' is no local folder, and what comes from the hub is pinned",
            found=revision,
            allowed="a commit, 40 hexadecimal digits",
            then=f"copy the newest from https://huggingface.co/{path}/commits",
        )
    return path
