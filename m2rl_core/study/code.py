"""A hash of the code behind a stage: its module and all of the core that this imports, directly or not.

Found by reading the source, so that nothing is imported. Code of plugins is hashed by the registry.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import m2rl_core

__all__ = ["code_hash", "core_behind", "modules_behind"]

CORE = m2rl_core.__name__
SURROUNDINGS = {"cli", "plugins", "progress", "registry", "report", "study", "testing"}
"""Parts of the core that run stages but are no part of one, unless the stage's own module is among them."""
BEFOREHAND = {"config.components", "config.paths", "config.reading"}
"""Modules that read and check a study before any stage runs."""
_BY_NAME = re.compile(rf"({CORE}(?:\.\w+)+)(?::\w+)?")


@cache
def code_hash(module: str) -> str:
    """SHA-256 [hex] over the sources of ``module`` and of the core's modules behind it."""
    total = hashlib.sha256()
    for name in modules_behind(module):
        total.update(f"{name}\0".encode() + _source(name) + b"\0")
    return total.hexdigest()


def modules_behind(module: str) -> list[str]:
    """``module`` and all modules of the core that it imports, sorted."""
    found, todo = {module}, [module]
    while todo:
        new = {name for name in _imports(todo.pop()) if _counts(name, module)} - found
        found |= new
        todo += new
    return sorted(found)


@cache
def core_behind(module: str) -> tuple[str, ...]:
    """The core's modules that the package of a plugin's module imports, e.g. ``m2rl_core.answers``, sorted."""
    root = _file(module.split(".")[0])
    if root is None or module.split(".")[0] == CORE:
        return ()
    files = root.parent.rglob("*.py") if root.name == "__init__.py" else [root]
    trees = (ast.parse(file.read_bytes()) for file in files)
    named = {name for tree in trees for node in _run(tree) for name in _named(node, module)}
    return tuple(sorted(name for name in named if _counts(name, module)))


def _counts(name: str, root: str) -> bool:
    parts = name.split(".")
    own = root.split(".")[1:2]
    if ".".join(parts[1:3]) in BEFOREHAND:
        return False
    return len(parts) > 1 and (parts[1] not in SURROUNDINGS or parts[1:2] == own)


@cache
def _imports(module: str) -> frozenset[str]:
    """Modules of the core that ``module`` imports anywhere, or names in a string; not those for type checkers alone."""
    return frozenset(name for node in _run(ast.parse(_source(module))) for name in _named(node, module))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below ``node``, but for blocks that only type checkers read."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")):
            yield child
            yield from _run(child)


def _named(node: ast.AST, module: str) -> Iterator[str]:
    """The core's modules that one statement imports, packages on the way included."""
    match node:
        case ast.Import(names=names):
            paths = [alias.name for alias in names]
        case ast.ImportFrom(names=names):
            start = _package(module, node.level) if node.level else ""
            origin = ".".join(filter(None, (start, node.module)))
            paths = [f"{origin}.{alias.name}" for alias in names]
        case ast.Constant(value=str(text)) if by_name := _BY_NAME.fullmatch(text):
            paths = [by_name[1]]
        case _:
            return
    for path in paths:
        parts = path.split(".")
        if parts[0] == CORE:
            above = (".".join(parts[:n]) for n in range(2, len(parts) + 1))
            yield from (name for name in above if _file(name) is not None)


def _package(module: str, level: int) -> str:
    """What ``level`` leading dots mean in ``module``."""
    file = _file(module)
    parts = module.split(".") + (["__init__"] if file is not None and file.name == "__init__.py" else [])
    return ".".join(parts[:-level])


@cache
def _file(module: str) -> Path | None:
    """The file of a module; one of the core is found without importing the packages above it."""
    if module.split(".")[0] != CORE:
        spec = find_spec(module)
        return Path(spec.origin) if spec is not None and spec.origin is not None else None
    path = Path(m2rl_core.__file__).parent.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _source(module: str) -> bytes:
    file = _file(module)
    if file is None:
        raise ModuleNotFoundError(f"no module {module}", name=module)
    return file.read_bytes()
