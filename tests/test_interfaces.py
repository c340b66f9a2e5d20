"""The interfaces carry what is to come: five skeletons, type-checked strictly and run where they can run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from m2rl_core.interfaces import ComponentConfig

SKELETONS = Path(__file__).parent / "skeletons"


def skeleton(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"skeleton_{name}", SKELETONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_skeletons_fit_the_interfaces(tmp_path: Path) -> None:
    """mypy --strict, with an assignment of every skeleton to the Protocol that it is written against."""
    names = {p.stem for p in SKELETONS.glob("*.py")}
    assert names == {"bfcl", "environment", "full_kl", "gradients", "ties"}
    (tmp_path / "fits.py").write_text(
        "from m2rl_core.interfaces import Analyzer, ComponentConfig, Domain, Loss, Merger\n"
        "import bfcl, environment, full_kl, gradients, ties\n"
        "loss: Loss = full_kl.FullKl(full_kl.FullKl.Config())\n"
        "analyzer: Analyzer = gradients.Interference(gradients.Interference.Config())\n"
        "domains: list[type[Domain]] = [environment.Office, bfcl.Bfcl]\n"
        "merger: type[Merger] = ties.Ties\n"
    )
    files = [str(tmp_path / "fits.py"), *map(str, SKELETONS.glob("*.py"))]
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), *files]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SKELETONS.parent.parent, check=False)
    assert done.returncode == 0, done.stdout


def test_bfcl_is_a_weighted_mean_of_thirds() -> None:
    bfcl = skeleton("bfcl")
    prompts = list(bfcl.Bfcl(ComponentConfig()).prompts("bfcl-v3"))
    assert sum(p.weight for p in prompts) == pytest.approx(1.0)
    right = [p for p in prompts if p.id.startswith("non_live/simple")]
    assert sum(p.weight for p in right) == pytest.approx(1 / 3 / 2)


def test_the_environment_is_judged_by_what_it_leaves_behind() -> None:
    office = skeleton("environment")
    domain = office.Office(office.Office.Config())
    prompt = next(iter(domain.prompts("train")))
    call = '<think>a</think><tool_call>{"name": "delete", "arguments": {"id": "0000"}}</tool_call>'
    trajectory = office.Trajectory(prompt, ({"role": "assistant", "content": call},), "")
    assert domain.verify(trajectory).value == 1.0


def test_the_loss_asks_for_its_divergence() -> None:
    full_kl = skeleton("full_kl")
    loss = full_kl.FullKl(full_kl.FullKl.Config(kind="forward"))
    assert loss.divergence.kind == "forward"


def test_sketches_keep_angles() -> None:
    gradients = skeleton("gradients")
    analyzer = gradients.Interference(gradients.Interference.Config(width=4096))
    draw = torch.Generator().manual_seed(0)
    one, noise = torch.randn(2, 20_000, generator=draw)
    sketches = [analyzer.sketch(iter([("w", g)])) for g in (one, one + noise)]
    assert torch.cosine_similarity(*sketches, dim=0).item() == pytest.approx(2**-0.5, abs=0.05)
