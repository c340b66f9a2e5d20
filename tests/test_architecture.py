"""Floors: a module imports from lower floors, and within a floor from those named before it; checked on the source."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[1] / "m2rl_core"
PLUGINS = CORE.parent / "plugins"
FLOORS = (
    ("types", "redaction", "errors", "trust", "seeding", "shares", "files", "http", "processes"),
    ("interfaces", "hookspecs", "findings"),
    (
        "answers",
        "mergers",
        "rows",
        "rewards",
        "judging",
        "procedural",
        "statistics",
        "validation",
        "registry",
        "plugins",
        "describe",
        "composition",
        "config",
        "paper",
        "ops",
        "packing",
        "chat",
        "schedule",
        "blend",
        "model_card",
    ),
    ("weights", "run", "policy", "engine", "rollout", "algorithm"),
    ("init", "train_sft", "train_rl", "evaluate", "merge", "analyze", "interference", "model"),
    ("study", "report", "verify", "rescore", "estimate", "doctor", "serve", "evaluation"),
    ("progress", "api", "scaffold", "cli", "testing"),
)
RANK = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names)}
PUBLIC = {
    "answers",
    "errors",
    "hookspecs",
    "http",
    "interfaces",
    "judging.prompts",
    "mergers",
    "procedural",
    "rewards.functions",
    "rows",
    "seeding",
    "statistics",
    "types",
    "weights",
}
"""What a plugin may import: parts of the core, or single modules of one."""


def modules() -> list[Path]:
    return sorted(p for p in CORE.rglob("*.py") if p != CORE / "__init__.py")


def part(path: Path) -> str:
    """Name of the core's part that a file belongs to: its top-level module or package."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imports(path: Path, package: str = "m2rl_core") -> Iterator[str]:
    """Full names of all modules of ``package`` that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == package:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == package)


def test_every_part_stands_on_a_floor() -> None:
    found = {part(p) for p in modules()}
    assert found <= set(RANK), f"place these on a floor: {sorted(found - set(RANK))}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(CORE)))
def test_imports_go_down(path: Path) -> None:
    if (here := part(path)) == "testing":
        return
    for name in imports(path):
        there = name.partition(".")[2].partition(".")[0]
        if there in {"", here, "__version__"}:
            continue
        assert RANK[there] < RANK[here], f"{here} imports {name}"


def test_no_cycles_between_modules() -> None:
    names = {".".join(p.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__"): p for p in modules()}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text())
        top = [n for n in tree.body if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("m2rl_core")]
        found = {
            f"{n.module}.{a.name}" if f"{n.module}.{a.name}" in names else str(n.module) for n in top for a in n.names
        }
        graph[name] = (found & set(names)) - {name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for other in graph[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", sorted(PLUGINS.glob("*/*/m2rl_*/**/*.py")), ids=lambda p: str(p.relative_to(PLUGINS)))
def test_plugins_import_public_names_and_no_other_plugin(path: Path) -> None:
    own = path.relative_to(PLUGINS).parts[2]
    for name in imports(path):
        assert any(f"{name}.".startswith(f"m2rl_core.{public}.") for public in PUBLIC), f"{path.name} imports {name}"
    for node in ast.walk(ast.parse(path.read_text())):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        assert not (module or "").startswith("m2rl_") or (module or "").split(".")[0] in {own, "m2rl_core"}


def test_the_core_names_no_plugin() -> None:
    for path in modules():
        text = path.read_text()
        for folder in PLUGINS.glob("*/*/m2rl_*"):
            assert folder.name not in text, f"{path} names {folder.name}"


def constants_classes_functions(name: str) -> tuple[int, str]:
    """The order that ruff keeps (RUF022)."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(CORE)))
def test_public_names_are_sorted_and_there(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            listed = ast.literal_eval(node.value)
            assert listed == sorted(listed, key=constants_classes_functions), f"sort __all__ in {path}"
            module = importlib.import_module(
                ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
            )
            assert not [n for n in listed if not hasattr(module, n)]


def test_one_rl_step_reads_on_one_screen() -> None:
    tree = ast.parse((CORE / "train_rl.py").read_text())
    [loop] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "train_rl"]
    assert loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno + 1 <= 40


TORCH_FREE = [
    "types",
    "errors",
    "seeding",
    "files",
    "interfaces",
    "hookspecs",
    "rewards.reasoning",
    "answers",
    "plugins",
    "composition",
    "config",
]


@pytest.mark.parametrize(
    "name", [*TORCH_FREE, "rollout.verifiers", "rollout.worker", "cli", "study", "verify", "rescore", "estimate"]
)
def test_light_modules_import_no_torch(name: str) -> None:
    heavy = ("torch", "transformers", "vllm", "matplotlib")
    code = f"import sys, m2rl_core.{name}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_every_plugin_imports_no_torch() -> None:
    code = "import sys; from m2rl_core.plugins import load_plugins; load_plugins(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", "importing the algorithm plugin must not import torch"
