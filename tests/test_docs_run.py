"""Every snippet of the documentation does what its page says: a page's blocks are run in their order, in one folder.

There ``studies/miniature.yaml`` is a study of the same shape that takes seconds, so that the pages' commands need no
change.
"""

from __future__ import annotations
import __future__

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from m2rl_docs.snippets import Block, blocks, commands, unprinted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = ROOT / "docs" / "first-domain.md"
"""It installs: test_wheels.py follows it in an environment of its own."""
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").rglob("*.md")) - {ELSEWHERE})]
BESIDE = {"make", "pip", "cd", "source", "export"}
"""Commands that are read and not run: they install, or they are the shell's own."""
DOMAINS = ("math", "science")
RL = {
    "kind": "rl",
    "init": "sft",
    "algorithm": "letters",
    "steps": 2,
    "prompts": 4,
    "group": 4,
    "max_tokens": 4,
    "lr": 0.01,
}
TAUGHT = {
    **RL,
    "domains": list(DOMAINS),
    "algorithm": "letters-taught",
    "teachers": {"math": "math", "science": "science"},
}
SIZES = {"vocab": 272, "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32, "context": 128}
SFT = {"conversations": 40, "batch": 4, "lr": 0.01, "max_length": 128}
MINIATURE: dict[str, Any] = {
    "name": "miniature",
    "model": {"dtype": "float32"},
    "plugins": ["../letters_plugin.py"],
    "domains": {n: {"use": "letters", "suite": f"{n}-heldout", "reasoning": "off"} for n in DOMAINS},
    "stages": {
        "init": {"kind": "init", "domains": list(DOMAINS), **SIZES},
        "sft": {"kind": "sft", "init": "init", "domains": list(DOMAINS), **SFT},
        **{name: {**RL, "domains": [name]} for name in DOMAINS},
        "multi": {**RL, "domains": list(DOMAINS)},
        "mt-opd": TAUGHT,
        "average": {"kind": "merge", "base": "sft", "experts": list(DOMAINS), "merger": "average"},
        "evals": {"kind": "eval", "max_tokens": 4, "limit": 2},
        "report": {"kind": "report"},
    },
}  # fmt: skip


def m2rl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("m2rl")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after ``make study``."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "studies", folder / "studies")
    shutil.copy(ROOT / "tests" / "letters_plugin.py", folder)
    (folder / "studies" / "miniature.yaml").write_text(yaml.safe_dump(MINIATURE))
    for name in ("start", "math", "coding", "if"):
        (folder / "models" / name).mkdir(parents=True)
    done = m2rl(folder, "run", "studies/miniature.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks(page)
    if not any(block.language in ("bash", "python") and not block.title and not block.not_run for block in found):
        pytest.skip("nothing to run")
    if any(
        "runs/" in block.text or "studies/" in block.text for block in found if block.language in ("bash", "python")
    ):
        shutil.copytree(request.getfixturevalue("home"), tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for block in found:
        if block.title == "output":
            line = unprinted(block, printed)
            assert line is None, f"{block}: not printed: {line}\n{printed}"
        elif block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.not_run:
            continue
        elif block.language == "python":
            code = compile(block.text, str(block), "exec", flags=__future__.annotations.compiler_flag)
            with redirect_stdout(StringIO()) as out:
                exec(code, names)
            printed = out.getvalue()
        elif block.language == "bash":
            printed = run(block, tmp_path)


def run(block: Block, folder: Path) -> str:
    """All that the commands of a block print."""
    shown, code = "", 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    for words in commands(block.text):
        if words[0] in BESIDE:
            continue
        assert code == 0, f"{block}: exit code {code} before {words}\n{shown}"
        program = str(Path(sys.executable).with_name(words[0]))
        done = subprocess.run(
            [program, *words[1:]], capture_output=True, text=True, check=False, cwd=folder, env=environment
        )
        shown, code = shown + done.stdout + done.stderr, done.returncode
    assert code == block.code, f"{block}: exit code {code}\n{shown}"
    return shown
