"""DARE: golden numbers, draws that depend on nothing else, the share that is kept, and what every merger must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import ComponentError, ConfigError
from m2rl_core.interfaces import ComponentConfig, Merger
from m2rl_core.merge import merge_models
from m2rl_core.merge.sweep import Sweep
from m2rl_core.plugins import load_plugins
from m2rl_core.testing import MergerContract, merge_tensors
from m2rl_core.testing.family import family
from m2rl_core.types import Block, Stats
from m2rl_merger_dare import Dare
from m2rl_merger_dare.drop import RUN, Dropping, Mask

A = torch.tensor([4, -2, 1, 0.5, 0, 3, -1, 2])
MASK = torch.tensor([1, 0, 0, 1, 0, 0, 1, 0]).bool()


def dare(then: str | dict[str, Any] = "task-arithmetic", **settings: Any) -> Dare:
    made = load_plugins().create("merger", {"use": "dare", "then": then, **settings}, "test")
    assert isinstance(made, Dare)
    return made


class TestDare(MergerContract):
    merger = dare()
    symmetric = False  # an expert's draws go by its name


class TestDareBeforeTies(MergerContract):
    merger = dare("ties")
    symmetric = False


class TestDareBeforeRows(MergerContract):
    merger = dare("della")
    symmetric = False


class TestDareBeforeWholeTensors(MergerContract):
    merger = dare("karcher")
    symmetric = False


class TestDareOfMergekit(MergerContract):
    merger = dare({"use": "ties", "density": 1.0, "aggregate": "sum", "semantics": "mergekit"}, rescale="l1", rate=0.5)
    symmetric = False


class TestDareOfEachExpert(MergerContract):
    merger = dare(rate=[0.2, 0.5, 0.9])
    symmetric = False


# ── golden numbers ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rescale", "expected"),
    [
        ("expected", [20, 0, 0, 2.5, 0, 0, -5, 0]),
        ("l1", [9.81818, 0, 0, 1.22727, 0, 0, -2.45455, 0]),
        ("none", [4, 0, 0, 0.5, 0, 0, -1, 0]),
    ],
)
def test_golden_numbers_of_dare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rescale: str, expected: list[float]
) -> None:
    def kept(self: Dropping, block: Block, expert: str, rate: float) -> Mask:
        return MASK[block.offset : block.offset + len(block.experts_E[0])].numpy()

    monkeypatch.setattr(Dropping, "kept", kept)
    [found] = merge_tensors(dare(rescale=rescale), tmp_path, {"w": torch.zeros(8)}, [{"w": A}], block=3)
    torch.testing.assert_close(found["w"], torch.tensor(expected), rtol=1e-5, atol=1e-7)


# ── draws ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def kept(
    size: int, rate: float = 0.8, seed: int = 0, expert: str = "math", tensor: str = "w", offset: int = 0
) -> Tensor:
    block = Block(tensor, offset, (size,), torch.zeros(size), torch.zeros(1, size), (expert,))
    return torch.from_numpy(Dropping(rate, "expected", seed).kept(block, expert, rate))


def test_draws_go_by_place_and_not_by_block() -> None:
    size = 3 * RUN + 77
    whole = kept(size)
    for step in (1000, RUN, RUN + 13, size):
        parts = [kept(min(step, size - start), offset=start) for start in range(0, size, step)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("other", [{"seed": 1}, {"expert": "coding"}, {"tensor": "v"}, {"offset": RUN}], ids=str)
def test_draws_of_others_are_others(other: dict[str, Any]) -> None:
    one, two = kept(RUN), kept(RUN, **other)
    both = (one & two).float().mean().item()
    assert both == pytest.approx(0.04, abs=5 * (0.04 / RUN) ** 0.5)  # independent


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.8, 0.99])
def test_the_kept_share_is_within_four_sigma(rate: float) -> None:
    size = 1_000_000
    assert kept(size, rate).float().mean().item() == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / size) ** 0.5)


@pytest.mark.parametrize("rescale", ["expected", "l1", "none"])
@pytest.mark.parametrize("then", ["task-arithmetic", "ties"])
def test_a_rate_for_each_thins_each_by_its_own(tmp_path: Path, rescale: str, then: str) -> None:
    """Each expert alone, with its rate, leaves what it leaves among others; a rate of 0 leaves all."""
    noise = torch.Generator().manual_seed(2)
    base, experts = torch.zeros(1000), [torch.randn(1000, generator=noise) for _ in range(3)]
    rates = [0.5, 0.0, 0.9]

    def summed(label: str, weights: list[float], rate: float | list[float]) -> Tensor:
        behind = {"use": then, "weights": weights, **({"density": 1.0, "aggregate": "sum"} if then == "ties" else {})}
        made = dare(behind, rate=rate, rescale=rescale)
        return merge_tensors(made, tmp_path / label, {"w": base}, [{"w": e} for e in experts], block=300)[0]["w"]

    alone = []
    for place, rate in enumerate(rates):
        weights = [float(place == other) for other in range(3)]
        alone.append(summed(f"own {place}", weights, rates))
        assert torch.equal(alone[-1], summed(f"one {place}", weights, rate))
        share = (alone[-1] != 0).float().mean().item()
        assert share == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / 1000) ** 0.5)
    assert torch.equal(alone[1], experts[1])
    if then == "task-arithmetic":
        torch.testing.assert_close(summed("all", [1.0] * 3, rates), sum(alone[1:], alone[0]))


def test_neither_threads_nor_blocks_change_a_byte(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(1)
    base = {"a": torch.randn(300, 500, generator=noise), "b": torch.randn(7, generator=noise)}
    experts = [{n: t + 1e-3 * torch.randn(t.shape, generator=noise) for n, t in base.items()} for _ in range(3)]
    first = None
    for threads, block in ((1, 1 << 18), (2, 1 << 18), (8, 1 << 16), (2, 1000)):
        folder = tmp_path / f"{threads}-{block}"
        [found] = merge_tensors(dare("ties"), folder, base, experts, threads=threads, block=block)
        first = found if first is None else first
        assert all(torch.equal(found[name], first[name]) for name in base)


def test_shards_change_no_byte(tmp_path: Path) -> None:
    found = []
    for name, limit in (("whole", 1 << 40), ("shards", 9000)):
        models = family(tmp_path / name, shard_bytes=limit)
        out = tmp_path / name / "out"
        merge_models(dare("ties"), base=models.pop("base"), experts=models, out=out)
        found.append((out / "model.safetensors").read_bytes())
    assert found[0] == found[1]


class First(Merger):
    """What the first expert has become: a view of its block."""

    name: ClassVar[str] = "first"
    reference: ClassVar[str] = ""
    granularity = "block"
    needs_base = False
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        return [block.experts_E[0]]


def test_a_sweep_behind_which_views_are_returned_makes_what_each_makes_alone(tmp_path: Path) -> None:
    noise = torch.Generator().manual_seed(3)
    base, experts = torch.randn(500, generator=noise), [torch.randn(500, generator=noise) for _ in range(2)]
    members = {f"seed={seed}": Dare(Dare.Config(seed=seed, rate=0.5), First()) for seed in range(3)}

    def merged(label: str, merger: Merger) -> list[Tensor]:
        made = merge_tensors(merger, tmp_path / label, {"w": base}, [{"w": each} for each in experts], block=200)
        return [output["w"] for output in made]

    for label, swept in zip(members, merged("sweep", Sweep(members)), strict=True):
        assert torch.equal(swept, *merged(label, members[label]))


def test_the_mean_of_many_draws_is_the_task_vector(tmp_path: Path) -> None:
    delta, total = torch.linspace(-1, 1, 9), torch.zeros(9)
    for seed in range(400):
        folder = tmp_path / str(seed)
        total += merge_tensors(dare(seed=seed), folder, {"w": torch.zeros(9)}, [{"w": delta}])[0]["w"]
    bound = 4 * delta.abs() * (0.8 / 0.2 / 400) ** 0.5 + 1e-6
    assert ((total / 400 - delta).abs() <= bound).all()


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_preset_holds_for_the_merger_behind_it() -> None:
    made = dare("ties", preset="released-code")
    assert (made.config.rate, made.config.then["use"], made.config.then["density"]) == (0.2, "ties", 0.2)
    own = dare({"use": "ties", "density": 0.3}, preset="paper", rate=0.5)
    assert own.config.rate == 0.5
    assert own.then.config.density == 0.3  # type: ignore[attr-defined]


def test_rates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="1 rates for 2 experts"):
        dare(rate=[0.5]).check(["a", "b"])
    with pytest.raises(ConfigError, match=r"test\.rate\[1\]: should be less than 1, found 1"):
        dare(rate=[0.5, 1.0])


@pytest.mark.parametrize("then", ["dare", {"use": "dare", "rate": 0.5}], ids=str)
def test_dare_after_dare_is_refused(then: str | dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"test\.then: .*dare cannot follow dare: both would draw alike"):
        dare(then)


@pytest.mark.parametrize("then", ["task-arithmetic", "magmax", {"use": "ties", "density": 1.0}, "ties"], ids=str)
def test_tells_the_density_that_is_left(then: str | dict[str, Any]) -> None:
    """Of what moved; where TIES trims as well, its own count, which entries alone that DARE has left can pass."""
    noise = torch.Generator().manual_seed(4)
    deltas_E = torch.randn(2, 4000, generator=noise) * (torch.rand(2, 4000, generator=noise) < 0.5)
    block = Block("w", 0, (4000,), torch.zeros(4000), deltas_E, ("math", "law"))
    merger, stats = dare(then, rate=0.8), dict[str, Any]()
    for each in merger.passes():
        stats[each.name] = each.measure(block, stats)
    merger.merge(block, stats)
    found = {**block.told, **merger.diagnostics(block.names_E, stats)}
    left_E = [
        (merger._dropping.kept(block, name, 0.8) & (delta != 0).numpy()).mean()
        for name, delta in zip(block.names_E, deltas_E, strict=True)
    ]
    assert found == pytest.approx(dict(zip(("density/math", "density/law"), left_E, strict=True)))


def test_what_is_wrong_behind_it_is_named() -> None:
    registry = load_plugins()
    with pytest.raises(ComponentError, match=r"stages.x.merger.then: merger 'tise' is not available"):
        registry.create("merger", {"use": "dare", "then": "tise"}, "stages.x.merger")
    with pytest.raises(ConfigError, match=r"stages.x.merger.then.densty"):
        registry.create("merger", {"use": "dare", "then": {"use": "ties", "densty": 1}}, "stages.x.merger")
    with pytest.raises(ConfigError, match=r"stages.x.merger.preset: merger 'dare' has no such preset"):
        registry.create("merger", {"use": "dare", "preset": "papr"}, "stages.x.merger")
