"""Where a study's results lie: ``runs/<study>/<node>/``, one writer at a time, nothing lost by a changed setting.

The study's folder holds ``.m2rl`` (whose it is), ``.lock`` and ``study.yaml`` (resolved). A node's folder holds
``KEY`` and ``config.yaml`` (what the key is the hash of) from its first moment on, and ``DONE`` from its last. A folder
with another key is set aside in ``.stale/`` and comes back when its key is wanted again. ``.shared/`` holds what stages
address by its content, such as samples that several analyses look at; it may be removed at any time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml

from m2rl_core.config import Study, load_study
from m2rl_core.errors import RunError
from m2rl_core.files import atomic_folder, locked, sweep, write_text
from m2rl_core.study.graph import Node

__all__ = ["begin", "claim", "end", "is_done", "opened", "shared", "study_in"]

MARKER, LOCK, STALE, STUDY, KEY, DONE = ".m2rl", ".lock", ".stale", "study.yaml", "KEY", "DONE"
SHARED = ".shared"


@contextmanager
def opened(folder: Path, study: Study) -> Iterator[None]:
    """Make or enter the folder of ``study``, and keep others out.

    Raises:
        RunError: it is another study's or somebody else's, in use, or cannot be written; then nothing was touched.
    """
    try:
        _refuse_foreign(folder, study.name)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            write_text(folder / MARKER, json.dumps({"study": study.name}) + "\n")
    except OSError as error:
        raise RunError(f"{folder} cannot be used: {error.strerror}", then="choose another --runs folder") from error
    with locked(folder / LOCK):
        sweep(folder)
        write_text(folder / STUDY, yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        yield


def _refuse_foreign(folder: Path, name: str) -> None:
    marker = folder / MARKER
    if marker.is_file():
        owner = json.loads(marker.read_text())["study"]
        if owner != name:
            raise RunError(
                f"{folder} belongs to another study", found=owner, allowed=name, then="rename the folder back"
            )
    elif folder.exists() and (not folder.is_dir() or any(p.name != LOCK for p in folder.iterdir())):
        raise RunError(
            f"{folder} was not made by m2rl, and nothing in it has been touched",
            then="choose another --runs folder or another name for the study",
        )


def is_done(node: Node) -> bool:
    """True where the node's results are there and made with its key."""
    folder = node.folder
    # a model from the hub may have been cleared from the hub's cache
    return (
        _key(folder) == node.key
        and (folder / DONE).exists()
        and (node.kind != "model" or (folder / "checkpoint").exists())
    )


def claim(root: Path, node: Node) -> bool:
    """See to it that nothing but the node's own results is in its folder, and say whether it is done already.

    Raises:
        RunError: something else lies there.
    """
    folder = node.folder
    if folder.exists() and (found := _key(folder)) != node.key:
        if not found:
            raise RunError(f"{folder} was not made by m2rl", then="move it away")
        _move(folder, _aside(root, node.id, found))
    if not folder.exists() and _key(_aside(root, node.id, node.key)) == node.key:
        _move(_aside(root, node.id, node.key), folder)
    if is_done(node):
        shutil.rmtree(folder / "state", ignore_errors=True)
        return True
    return False


def study_in(folder: Path) -> Study:
    """The study that last worked in ``folder``.

    Raises:
        RunError: it is no study's folder.
        ConfigError: of a version that knew other settings.
    """
    if not (folder / STUDY).is_file():
        raise RunError(f"{folder} is no study's folder: it holds no {STUDY}", then="m2rl run STUDY makes one")
    return load_study(folder / STUDY)


def shared(node: Node) -> Path:
    """The folder that all stages of the node's study share."""
    return node.folder.parents[node.id.count("/")] / SHARED


def begin(node: Node) -> None:
    """Make the node's folder where it is not there."""
    if node.folder.exists():
        return
    with atomic_folder(node.folder) as new:
        (new / KEY).write_text(node.key + "\n")
        (new / "config.yaml").write_text(yaml.safe_dump(dict(node.covered), sort_keys=False))


def end(node: Node, seconds: float, cpu_seconds: float, started: datetime) -> None:
    """Mark the node as done; what it could have been resumed from is no longer needed."""
    facts = {
        "key": node.key,
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_text(node.folder / DONE, json.dumps(facts) + "\n")
    shutil.rmtree(node.folder / "state", ignore_errors=True)


def _key(folder: Path) -> str:
    return (folder / KEY).read_text().strip() if (folder / KEY).is_file() else ""


def _aside(root: Path, name: str, key: str) -> Path:
    return root / STALE / f"{name}-{key[:12]}"


def _move(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
