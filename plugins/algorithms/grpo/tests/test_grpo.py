"""The algorithm as a composition, and the contract for every advantage with every loss."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError

import m2rl_algorithm_grpo
from m2rl_algorithm_grpo import Grpo
from m2rl_algorithm_grpo.advantages import GroupAdvantage
from m2rl_algorithm_grpo.losses import Cispo, Gspo, PpoClip, ReferenceKl, Sapo
from m2rl_core.composition import compose
from m2rl_core.interfaces import Loss
from m2rl_core.plugins import Registry
from m2rl_core.testing import AlgorithmContract
from m2rl_core.types import Composition

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
ADVANTAGES = [
    GroupAdvantage(GroupAdvantage.Config(std=std, baseline=baseline))
    for std, baseline in product((True, False), ("mean", "leave-one-out"))
]
LOSSES: list[Loss] = [
    PpoClip(PpoClip.Config()),
    PpoClip(PpoClip.Config(dual=1.5)),
    Gspo(Gspo.Config()),
    Gspo(Gspo.Config(low=0.5, high=0.5)),
    Sapo(Sapo.Config()),
    ReferenceKl(ReferenceKl.Config(estimator="k2")),
    ReferenceKl(ReferenceKl.Config(estimator="k3")),
]
STOPPED: list[Loss] = [Cispo(Cispo.Config(high=0.3)), ReferenceKl(ReferenceKl.Config(estimator="k1"))]


def described(value: Any) -> str:
    return f"{value.name}-{'-'.join(str(v) for v in value.config.model_dump().values())}"


@pytest.mark.parametrize("advantage", ADVANTAGES, ids=described, scope="class")
@pytest.mark.parametrize("loss", LOSSES, ids=described, scope="class")
class TestGrpoContract(AlgorithmContract):
    @pytest.fixture(autouse=True)
    def pair(self, advantage: GroupAdvantage, loss: Loss) -> None:
        self.advantage, self.loss = advantage, loss


@pytest.mark.parametrize("advantage", ADVANTAGES, ids=described, scope="class")
@pytest.mark.parametrize("loss", STOPPED, ids=described, scope="class")
class TestGrpoContractWithoutASlope(AlgorithmContract):
    """Losses with a stopped gradient: by definition the slope of their value is not the gradient that they give."""

    @pytest.fixture(autouse=True)
    def pair(self, advantage: GroupAdvantage, loss: Loss) -> None:
        self.advantage, self.loss = advantage, loss

    def test_losses_are_one_per_token_with_a_true_gradient(self) -> None:
        batch = self.batch()
        assert batch.advantage_T is not None
        assert batch.old_logps_T is not None
        assert batch.reference_logps_T is not None
        logps = (-torch.rand(len(batch.ids_T), generator=torch.Generator().manual_seed(2))).requires_grad_()
        loss = self.loss(logps, batch)
        assert loss.shape == (len(batch.ids_T),)
        [gradient] = torch.autograd.grad(loss.sum(), logps)
        here = logps.detach()
        if self.loss.name == "cispo":
            defined = -(here - batch.old_logps_T).exp().clamp(max=1.3) * batch.advantage_T
        else:
            defined = here - batch.reference_logps_T
        torch.testing.assert_close(gradient, defined)


def test_the_algorithm_is_its_parts() -> None:
    algorithm = Grpo(Grpo.Config(advantage={"std": False}, loss={"high": 0.2}))
    assert algorithm.compose() == Composition(
        advantage={"use": "group", "std": False}, loss={"use": "ppo-clip", "high": 0.2}, reduction="sequence"
    )


def test_a_kl_weight_adds_a_penalty() -> None:
    losses: Any = Grpo(Grpo.Config(kl=0.04, kl_estimator="k2", loss={"dual": 3.0})).compose().loss
    assert losses == [
        {"use": "ppo-clip", "dual": 3.0},
        {"use": "reference-kl", "weight": 0.04, "estimator": "k2"},
    ]


def test_a_part_may_be_its_bare_name() -> None:
    config = Grpo.Config.model_validate({"advantage": "teacher", "loss": "gspo", "importance": "mis"})
    assert Grpo(config).compose() == Composition({"use": "teacher"}, {"use": "gspo"}, {"use": "mis"}, "sequence")


def test_another_part_takes_no_settings_of_the_default() -> None:
    composition = Grpo(Grpo.Config(loss={"use": "sapo", "negative": 1.1})).compose()
    assert composition.loss == {"use": "sapo", "negative": 1.1}


@pytest.mark.parametrize(("loss", "kind"), [({}, PpoClip), ("gspo", Gspo), ({"use": "cispo"}, Cispo), ("sapo", Sapo)])
def test_a_study_names_its_loss(registry: Registry, loss: Any, kind: type) -> None:
    registry.register(m2rl_algorithm_grpo, distribution="m2rl-algorithm-grpo")
    made = compose(registry, {"use": "grpo", "advantage": {"baseline": "leave-one-out"}, "loss": loss}, "algorithm")
    assert isinstance(made.loss, kind)
    assert made.advantage.config.baseline == "leave-one-out"  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", README.split("```yaml")[1].split("```")[0].strip().splitlines()[1::2])
def test_the_readmes_variants_are_algorithms(registry: Registry, line: str) -> None:
    registry.register(m2rl_algorithm_grpo, distribution="m2rl-algorithm-grpo")
    made = registry.create("algorithm", yaml.safe_load(line)["algorithm"], "algorithm").compose()
    advantage: Any = made.advantage
    losses: Any = made.loss if isinstance(made.loss, list) else [made.loss]
    registry.create("advantage", advantage, "algorithm.advantage")
    for loss in losses:
        registry.create("loss", {key: value for key, value in loss.items() if key != "weight"}, "algorithm.loss")


@pytest.mark.parametrize("settings", [{"kl": -0.1}, {"kl_estimator": "k4"}, {"loss": 3}, {"importance": ["mis"]}])
def test_grpo_refuses_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        Grpo.Config.model_validate(settings)
