"""Fixtures that several of the core's test files share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(name, code, requires=...)`` puts a throwaway plugin distribution on the path, as pip would.

    Its entry point is called ``name``, its distribution ``m2rl-NAME`` 1.2, its module ``m2rl_NAME``. The folder is also
    in ``PYTHONPATH``, for subprocesses.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    modules = []

    def install(name: str, code: str, requires: str = "m2rl-core>=0.1,<0.2") -> Path:
        module = f"m2rl_{name.replace('-', '_')}"
        modules.append(module)
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: m2rl-{name}\nVersion: 1.2\nRequires-Dist: {requires}\n"
        )
        (info / "entry_points.txt").write_text(f"[m2rl]\n{name} = {module}\n")
        return site / f"{module}.py"

    yield install
    for module in modules:
        sys.modules.pop(module, None)
