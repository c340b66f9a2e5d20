"""Folder, distribution, module and entry point of every plugin say the same name, and all versions agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from m2rl_core.scaffold import core_range

ROOT = Path(__file__).resolve().parents[1]
CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())
KINDS = {
    "domains": "domain",
    "algorithms": "algorithm",
    "mergers": "merger",
    "analyzers": "analyzer",
    "engines": "engine",
}
ADAPTERS = {"m2rl-domain-verifiers"}
"""Plugins that the paper does without: they bring in other libraries' environments, with all that these require."""
FOLDERS = sorted(p.parent for p in (ROOT / "plugins").glob("*/*/pyproject.toml"))


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def test_there_are_plugins_and_only_of_known_kinds() -> None:
    assert len(FOLDERS) >= 5
    assert {p.name for p in (ROOT / "plugins").iterdir() if p.is_dir()} <= set(KINDS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_all_names_agree(folder: Path) -> None:
    kind, data = KINDS[folder.parent.name], project(folder)
    name = f"m2rl-{kind}-{folder.name}".replace("_", "-")
    module = f"m2rl_{kind}_{folder.name}"
    assert data["project"]["name"] == name
    assert data["project"]["entry-points"] == {"m2rl": {name.removeprefix("m2rl-"): module}}
    assert data["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [module]
    assert (folder / module / "__init__.py").is_file()
    assert (folder / "README.md").read_text().strip()
    assert list((folder / "tests").glob("test_*.py")), "a plugin has tests"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_versions_agree_and_the_core_is_pinned(folder: Path) -> None:
    version, data = CORE["project"]["version"], project(folder)
    major, minor, _ = version.split(".")
    assert data["project"]["version"] == version
    assert f"m2rl-core>={major}.{minor},<{major}.{int(minor) + 1}" in data["project"]["dependencies"]
    assert not [d for d in data["project"]["dependencies"] if re.match(r"m2rl-(?!core)", d)], "plugins stand alone"
    assert data["project"]["requires-python"] == CORE["project"]["requires-python"]
    assert data["project"]["classifiers"] == CORE["project"]["classifiers"]


def test_the_paper_extra_is_bound_to_the_same_versions() -> None:
    version = CORE["project"]["version"]
    wanted = core_range(version)
    named = [Requirement(each) for each in CORE["project"]["optional-dependencies"]["paper"]]
    assert all(each.specifier == SpecifierSet(wanted) for each in named if each.name != "m2rl-core")
    assert version in SpecifierSet(wanted)


def test_the_pythons_that_are_declared_are_allowed() -> None:
    project = CORE["project"]
    declared = [each.rpartition(" ")[2] for each in project["classifiers"]]
    assert declared == ["3.11", "3.12", "3.13"]
    assert all(version in SpecifierSet(project["requires-python"]) for version in declared)


def test_the_code_says_the_same_version() -> None:
    text = (ROOT / "m2rl_core" / "__init__.py").read_text()
    assert f'__version__ = "{CORE["project"]["version"]}"' in text


def test_the_paper_extra_names_every_plugin_that_adapts_no_other_library() -> None:
    listed = {re.split(r"[<>=\[]", d)[0] for d in CORE["project"]["optional-dependencies"]["paper"]}
    assert listed - {"m2rl-core"} == {project(folder)["project"]["name"] for folder in FOLDERS} - ADAPTERS


def test_no_namespace_package() -> None:
    assert not list((ROOT / "plugins").glob("__init__.py"))
    assert not list((ROOT / "plugins").glob("*/__init__.py"))
    assert not list((ROOT / "tests").rglob("__init__.py"))
    assert not list((ROOT / "plugins").glob("*/*/tests/**/__init__.py"))
