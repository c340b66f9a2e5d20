"""``m2rl new``: a plugin that works, is tested and can be installed, to be made into one's own; or a study.

A plugin is three files of at most 80 lines together, made from ``templates/``: ``pyproject.toml``, one module and its
test, which subclasses the contract of the kind.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Literal

import m2rl_core
from m2rl_core.errors import RunError, UserError, nearest
from m2rl_core.files import atomic_file, make_folder
from m2rl_core.plugins import discover

__all__ = ["PLUGINS", "PluginKind", "new_plugin", "new_study", "studies"]

PluginKind = Literal["domain", "algorithm", "merger", "analyzer"]
PLUGINS: tuple[PluginKind, ...] = ("domain", "algorithm", "merger", "analyzer")
TEMPLATES = Path(__file__).parent / "templates"
SHIPPED = (TEMPLATES.with_name("studies"), Path(m2rl_core.__file__).parents[1] / "studies")
"""Where studies lie: in an installed wheel, and in the source tree."""
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


def new_plugin(kind: PluginKind, name: str, into: Path) -> list[Path]:
    """Write the plugin ``m2rl-KIND-NAME`` to a new folder of that name in ``into``, and return its files.

    Raises:
        UserError: no name for a component, or one that is taken.
        RunError: the folder is there already.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' is no name for a {kind}", allowed="a-z, 0-9 and single '-', beginning with a letter")
    if taken := next((plugin for plugin in discover() if plugin.name == f"{kind}-{name}"), None):
        raise UserError(f"there is a {kind} '{name}' already, of {taken.distribution}", then="choose another name")
    distribution = f"m2rl-{kind}-{name}"
    folder, module = into / distribution, distribution.replace("-", "_")
    if folder.exists():
        raise RunError(f"{folder} is there already", then="choose another name, or remove it")
    words = {
        "kind": kind,
        "name": name,
        "Name": "".join(word.capitalize() for word in name.split("-")),
        "distribution": distribution,
        "module": module,
        "core": core_range(m2rl_core.__version__),
    }
    files = {"pyproject.toml": "pyproject.toml", f"{kind}.py": f"{module}.py", f"{kind}_test.py": f"test_{module}.py"}
    for template, file in files.items():
        text = (TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
        _write(folder / file, Template(text).substitute(words))
    return [folder / file for file in files.values()]


def core_range(version: str) -> str:
    """The versions of the core that a plugin made for ``version`` works with: those of the same minor version."""
    major, minor = version.split(".")[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"


def studies() -> dict[str, Path]:
    """Name → file of the studies that come with m2rl."""
    return {file.stem: file for folder in SHIPPED for file in sorted(folder.glob("*.yaml"))}


def new_study(name: str, like: str, into: Path) -> Path:
    """Write ``NAME.yaml``, a copy of the study ``like`` under that name.

    Raises:
        UserError: no study is called ``like``, or ``name`` is no name for a study.
        RunError: the file is there already.
    """
    if (source := studies().get(like)) is None:
        raise UserError(f"there is no study '{like}'.{nearest(like, studies())}", allowed=studies())
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise UserError(f"'{name}' is no name for a study", allowed="a-z, 0-9, '.', '_' and '-'")
    file = into / f"{name}.yaml"
    if file.exists():
        raise RunError(f"{file} is there already", then="choose another name, or remove it")
    text = source.read_text(encoding="utf-8")
    text, found = re.subn(r"^name: .*$", f"name: {name}", text, count=1, flags=re.MULTILINE)
    assert found == 1, f"{source} has no name"
    _write(file, text)
    return file


def _write(file: Path, text: str) -> None:
    make_folder(file.parent)
    with atomic_file(file) as out:
        out.write(text.encode())
