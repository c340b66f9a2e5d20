"""Two and four processes under FSDP2 do what one does: gloo on a CPU, no ports of ours, the same samples shared out."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from m2rl_core.policy import Policy
from m2rl_core.weights import Checkpoint

WORK = Path(__file__).parent / "ranks" / "rank_work.py"
sys.path.insert(0, str(WORK.parent))
rank_work = importlib.import_module("rank_work")  # what the ranks run, too
sys.path.remove(str(WORK.parent))
CASES, resumed, work_on = rank_work.CASES, rank_work.resumed, rank_work.work_on
EXACT = [name for name in CASES if name != "bfloat16"]
pytestmark = pytest.mark.slow
Found = dict[str, Any]


def together(
    ranks: int, work: Path, models: dict[str, Path], cases: Sequence[str], states: dict[int, Path]
) -> list[Found]:
    """What every rank has found."""
    work.mkdir()
    torch.save({"models": models, "states": states}, work / "job.pt")
    command = [sys.executable, str(WORK), str(ranks), str(work), *cases]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    return [torch.load(work / f"found-{rank}.pt", weights_only=False) for rank in range(ranks)]


@pytest.fixture(scope="module")
def models(tiny_model: Path, other_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    third = tmp_path_factory.mktemp("third")
    policy = Policy.load(other_model, dtype="float32")
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    policy.save(third)
    return {"start": tiny_model, "other": other_model, "third": third}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def alone(models: dict[str, Path], place: Path) -> Found:
    """What one process finds, without a group."""
    return {name: work_on(name, models, place) for name in CASES}


@pytest.fixture(scope="module")
def four(models: dict[str, Path], place: Path) -> list[Found]:
    return together(4, place / "four", models, ["separable", "sequences", "taught", "lone"], {})


@pytest.fixture(scope="module")
def two(models: dict[str, Path], place: Path, alone: Found, four: list[Found]) -> list[Found]:
    """Goes on from what one and four have saved, too."""
    states = {1: place / "state-separable", 4: place / "four" / "state-separable"}
    return together(2, place / "two", models, list(CASES), states)


def same(found: Found, expected: Found) -> None:
    """Losses, norms and gradients to within 1e-6, weights to what Adam makes of that."""
    assert len(found["metrics"]) == len(expected["metrics"])
    for one, other in zip(found["metrics"], expected["metrics"], strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-5, atol=1e-6)
    for name, parameter in expected["weights"].items():
        torch.testing.assert_close(found["weights"][name], parameter, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", EXACT)
def test_two_processes_train_as_one(two: list[Found], alone: Found, case: str) -> None:
    for found in two:
        same(found[case], alone[case])


@pytest.mark.parametrize("case", ["separable", "sequences", "taught", "lone"])
def test_four_processes_train_as_one(four: list[Found], alone: Found, case: str) -> None:
    for found in four:
        same(found[case], alone[case])


def test_offloaded_moments_change_no_bit_on_two_processes(two: list[Found]) -> None:
    for found in two:
        assert found["offloaded"]["metrics"] == found["separable"]["metrics"]
        for name, parameter in found["separable"]["weights"].items():
            assert torch.equal(found["offloaded"]["weights"][name], parameter), name


def test_what_all_ranks_tell_is_the_same_to_the_bit(two: list[Found], four: list[Found]) -> None:
    for ranks in (two, four):
        for case in CASES.keys() & ranks[0].keys():
            for found in ranks[1:]:
                assert found[case]["metrics"] == ranks[0][case]["metrics"]
                assert found[case]["batches"] == ranks[0][case]["batches"], "collective operations must match"


def test_clipping_is_by_the_norm_over_all_ranks(two: list[Found], alone: Found) -> None:
    """Without it every rank would clip by its own: the reported norm is that of the whole gradient."""
    for found in (alone["clipped"], *(each["clipped"] for each in two)):
        norm = torch.stack([gradient.norm() for gradient in found["gradients"].values()]).norm().item()
        assert found["metrics"][0]["grad_norm"] == pytest.approx(norm, rel=1e-6)
        assert norm > 0.01 * 10


def test_every_rank_knows_all_scores(two: list[Found], four: list[Found], alone: Found) -> None:
    for found in (*two, *four):
        for mine, expected in zip(found["taught"]["scores"], alone["taught"]["scores"], strict=True):
            for one, other in zip(mine, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("before", [1, 4])
def test_two_go_on_from_the_state_of_others(two: list[Found], alone: Found, before: int) -> None:
    """The third step is that of the uninterrupted run, the weights after it too."""
    for found in two:
        resumed = found[f"from {before}"]
        assert resumed["metrics"][0] == pytest.approx(alone["separable"]["metrics"][2], rel=1e-5, abs=1e-6)
        for name, parameter in alone["separable"]["weights"].items():
            torch.testing.assert_close(resumed["weights"][name], parameter, rtol=0, atol=2e-5)


def test_one_goes_on_from_the_state_of_two(
    two: list[Found], alone: Found, models: dict[str, Path], place: Path
) -> None:
    found = resumed(place / "two" / "state-separable", models)
    assert found["metrics"][0] == pytest.approx(alone["separable"]["metrics"][2], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("case", ["separable", "bfloat16"])
def test_what_two_processes_save_opens_in_transformers(two: list[Found], place: Path, case: str) -> None:
    saved = AutoModelForCausalLM.from_pretrained(place / "two" / f"saved-{case}")
    assert saved.dtype == torch.float32
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, two[0][case]["weights"][name])


def test_several_processes_write_what_one_writes(four: list[Found], place: Path, tmp_path: Path) -> None:
    """The same files, the same tensors, the same configuration."""
    policy = Policy.load(place / "four" / "saved-lone", dtype="float32")
    policy.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (place / "four" / "saved-lone").iterdir()}
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / name).read_text() == (place / "four" / "saved-lone" / name).read_text()
    with Checkpoint.open(tmp_path) as one, Checkpoint.open(place / "four" / "saved-lone") as other:
        assert one.tensors.keys() == other.tensors.keys()
        assert all(torch.equal(one.load(name), other.load(name)) for name in one.tensors)
