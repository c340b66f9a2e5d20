"""What a shell completes beyond options: names of components and of stages; nothing, whatever goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from m2rl_core.registry import Kind

__all__ = ["component", "stage"]


def component(kind: Kind) -> Callable[[str], list[str]]:
    """Completes names of the installed components of a kind."""

    def names(incomplete: str) -> list[str]:
        try:
            from m2rl_core.plugins import load_plugins

            known = load_plugins(strict=False).names(kind)
        except Exception:
            return []
        return [name for name in known if name.startswith(incomplete)]

    return names


def stage(context: typer.Context, incomplete: str) -> list[str]:
    """Completes names of the stages of the study, or of the run, that the command line has named already."""
    try:
        return [name for name in _stages(context) if name.startswith(incomplete)]
    except Exception:
        return []


def _stages(context: typer.Context) -> list[str]:
    """As the file says; it need not be right otherwise.

    Behind an option that still waits for its value, click leaves arguments where they were.
    """
    import yaml

    said = [context.params.get(name) for name in ("study", "run")] + [each for each in context.args if each[0] != "-"]
    path = Path(next(each for each in said if each))
    return list(yaml.safe_load((path / "study.yaml" if path.is_dir() else path).read_text())["stages"])
