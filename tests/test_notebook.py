"""The notebook: stored without outputs, and its cells run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[str]:
    found = json.loads(NOTEBOOK.read_text())
    assert found["nbformat"] == 4
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    return ["".join(cell["source"]) for cell in code]


@pytest.mark.slow
def test_its_cells_run(cells: list[str], tmp_path: Path) -> None:
    """One after the other in one process, as a kernel does; like there, the main module is no file."""
    command = [sys.executable, "-c", "\n\n".join(cells)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()
    lines = done.stdout.splitlines()
    assert "right 1.0 right" in lines
    shown = [line.split() for line in lines if "digits: " in line and "vowels: " in line]
    scores = {words[0]: [float(score) for score in words[2::2]] for words in shown}
    assert list(scores) == ["sft", "digits", "vowels", "average", "mixed"]
    assert scores["digits"][0] > scores["sft"][0]
    assert scores["vowels"][1] > scores["sft"][1]
    assert "model.safetensors" in lines[-1]


def test_its_code_has_the_style_of_the_rest(cells: list[str]) -> None:
    """ruff looks into notebooks, too; mypy does not."""
    assert all(cell.strip() and "\t" not in cell for cell in cells)
    compile("\n\n".join(cells), str(NOTEBOOK), "exec")
