"""Interference: cosines of gradients from sketches, on a made-up laboratory whose gradients are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from m2rl_core.errors import DataError
from m2rl_core.findings import plain
from m2rl_core.interfaces import Lab
from m2rl_core.interference import Interference, _Step
from m2rl_core.seeding import derive
from m2rl_core.testing import AnalyzerContract
from m2rl_core.types import Prompt, Reward, Sample, Sampling, Table, Trajectory

SIZES = {"a.weight": (300, 40), "b.weight": (5000,)}


def noise(*seed: str) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(derive(*seed))
    return {name: torch.randn(shape, generator=draw) for name, shape in SIZES.items()}


class Known:
    """Gradients of ``math`` and ``code`` share a direction, those of ``chat`` are opposed to it, ``idle`` has none."""

    models: Mapping[str, Path] = dict.fromkeys(("sft", "multi", "multi@5", "multi@10", "math@5"), Path())
    experts: Mapping[str, str] = {}
    domains = ("math", "code", "chat", "idle")

    def metrics(self, stage: str) -> Sequence[Mapping[str, Any]]:
        domains = self.domains if stage == "multi" else self.domains[:1]
        return [{"step": 0, **{f"samples/{domain}": 4 for domain in domains}}]

    def prompts(self, domain: str, split: str) -> Sequence[Prompt]:
        return [Prompt(f"{split}/{i}", domain, ()) for i in range(9)]

    def generate(self, model: str, prompts: Sequence[Prompt], sampling: Sampling, n: int) -> list[list[Sample]]:
        def sample(prompt: Prompt, i: int) -> Sample:
            same = prompt.domain == "idle" or prompt.id == "train/0"
            return Sample(prompt, i, [], [], [], [], Trajectory(prompt, (), ""), "stop", Reward(1.0 if same else i % 2))

        return [[sample(prompt, i) for i in range(n)] for prompt in prompts]

    def gradients(self, model: str, stage: str, groups: Sequence[list[Sample]]) -> Iterator[tuple[str, Tensor]]:
        domain, first = groups[0][0].prompt.domain, groups[0][0].prompt.id
        common, own = noise("common"), noise(model, domain, first)
        weight = {"math": 1.0, "code": 2.0, "chat": -1.0, "idle": 0.0}[domain]
        for name in SIZES:
            yield name, weight * (common[name] + own[name])


def interference(**config: Any) -> Interference:
    return Interference(Interference.Config(prompts=4, samples=2, **config))


def known() -> Lab:
    return cast("Lab", Known())


class TestInterference(AnalyzerContract):
    analyzer = interference()

    def lab(self) -> Lab:
        return known()


def cells(table: Table, *columns: str) -> dict[tuple[Any, ...], Any]:
    """(step and domains) → value of the last of ``columns``."""
    at = [list(table.columns).index(column) for column in columns]
    return {tuple(row[i] for i in at[:-1]): row[at[-1]] for row in table.rows}


def test_cosines_are_those_of_the_gradients() -> None:
    """Two gradients that share half of their variance have a cosine of 1/2."""
    found = cells(interference(width=1 << 14).run(known()).tables["cosines"], "step", "domain", "other", "cosine")
    assert len(found) == 2 * (4 + 6)
    for step in (5, 10):
        for pair, expected in {
            ("math", "math"): 0.5, ("math", "code"): 0.5, ("math", "chat"): -0.5, ("chat", "chat"): 0.5,
        }.items():  # fmt: skip
            assert found[step, *pair] == pytest.approx(expected, abs=0.04)
        assert found[step, "idle", "idle"] is None
        assert found[step, "math", "idle"] is None


def test_norms_and_idle_groups_are_counted() -> None:
    found = interference(width=1 << 14).run(known())
    norm = cells(found.tables["norms"], "step", "domain", "norm")
    common, (one, two) = noise("common"), (noise("multi@5", "math", f"train/{i}") for i in (0, 1))
    exact = sum((common[n] + (one[n] + two[n]) / 2).square().sum().item() for n in SIZES) ** 0.5
    assert norm[5, "math"] == pytest.approx(exact, rel=0.03)
    share = cells(found.tables["norms"], "step", "domain", "norm share")
    assert share[5, "code"] == pytest.approx(0.5, abs=0.02)
    assert share[5, "idle"] == 0
    idle = cells(found.tables["norms"], "step", "domain", "groups without gradient")
    assert (idle[5, "math"], idle[5, "idle"]) == (0.25, 1.0)
    figure = found.figures["norm-share.multi"]
    assert (list(figure.x), list(figure.series)) == ([5, 10], ["math", "code", "chat", "idle"])
    assert plain(found).figures["cosine.multi"].series["math, chat"][0] == pytest.approx(-0.5, abs=0.04)


def test_there_must_be_a_step_of_a_mixed_run() -> None:
    lab = Known()
    lab.models = {"sft": Path(), "math@5": Path()}
    with pytest.raises(DataError, match=r"no.* here. Found: sft, math@5.*keep_every"):
        interference().run(cast("Lab", lab))


def test_a_sketch_keeps_inner_products() -> None:
    lab = known()
    step = _Step("multi@5", "multi", 5)
    groups = lab.generate("multi@5", lab.prompts("math", "train")[:2], Sampling(4), 2)
    sketched = interference(width=1 << 14)._sketch(lab, step, groups)
    exact = torch.cat([gradient.flatten() for _, gradient in lab.gradients("multi@5", "multi", groups)])
    assert float(sketched.norm()) == pytest.approx(float(exact.norm()), rel=0.02)
