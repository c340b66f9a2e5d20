"""Models whose folders bring code of their own: it runs only where the study says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m2rl_core.errors import DataError

__all__ = ["own_code"]

SETTING = "trust_remote_code"


@contextmanager
def own_code(folder: Path) -> Iterator[None]:
    """Around transformers' loaders, which are told ``trust_remote_code`` as True or False, so that they never ask.

    A folder that brings code for an architecture that transformers knows itself is opened without that code.

    Raises:
        DataError: the folder cannot be opened without code of its own, and the study does not trust it.
    """
    try:
        yield
    except ValueError as error:
        if SETTING not in str(error):
            raise
        code = ", ".join(sorted(path.name for path in folder.glob("*.py"))) or "auto_map in its configuration"
        raise DataError(
            f"{folder} cannot be opened without code of its own, which is not run unless the study says so",
            found=code,
            then=f"read that code; if you trust it, set model.{SETTING}: true",
        ) from error
