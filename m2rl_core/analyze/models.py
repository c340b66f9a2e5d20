"""The models that a laboratory can open, by the names of the study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from m2rl_core.config import split_reference
from m2rl_core.errors import DataError, nearest
from m2rl_core.files import content_hash
from m2rl_core.run import NodeView

__all__ = ["Models"]


class Models(Mapping[str, Path]):
    """Those that an analysis lists; beyond them, what the stages before it have made and kept can be asked for.

    Args:
        listed: name → Hugging Face folder.
        nodes: the stages before.
    """

    def __init__(self, listed: Mapping[str, Path], nodes: Sequence[NodeView]) -> None:
        self._listed, self._nodes = dict(listed), nodes

    def __getitem__(self, name: str) -> Path:
        return self._listed[name] if name in self._listed else self._made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def folder(self, name: str) -> Path:
        """As ``[]``, for what analyzers ask.

        Raises:
            DataError: no such model is at hand.
        """
        try:
            return self[name]
        except KeyError:
            raise DataError(
                f"there is no model '{name}' to analyse.{nearest(name, self)}", allowed=", ".join(self) or "none"
            ) from None

    def identity(self, name: str) -> str:
        """What tells the model from all others: the key of the node that made it, or a hash of its files."""
        folder = self.folder(name)
        for node in self._nodes:
            if node.key and folder.is_relative_to(node.folder):
                return f"{node.key}/{folder.relative_to(node.folder)}"
        return content_hash(folder)

    def _made(self, name: str) -> Path:
        try:
            stage, step = split_reference(name)
        except ValueError:
            raise KeyError(name) from None
        part = "checkpoint" if step is None else f"kept/{step:06d}"
        for node in self._nodes:
            if node.stage == stage and (node.folder / part).is_dir():
                return node.folder / part
        raise KeyError(name)
