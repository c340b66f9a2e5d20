"""Environments of the tests' own, installed as far as Python can tell: in this process, and in workers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "environments"


@pytest.fixture(scope="session", autouse=True)
def installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        yield


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """``environment(code)`` is the name of a throwaway environment: ``code`` after the module of little sums' own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def write(code: str) -> str:
        name = f"thrown_away_{len(made)}"
        made.append(name)
        (tmp_path / f"{name}.py").write_text((HERE / "little_sums.py").read_text() + code)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)
