"""From an algorithm's name to its parts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from m2rl_core.composition import compose
from m2rl_core.errors import ConfigError, StageError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.plugins import Registry
from m2rl_core.types import Composition, Divergence, Sample


class Part:
    """An advantage, an importance rule and a loss."""

    name, reference, Config = "part", "test", ComponentConfig
    needs = frozenset[str]()
    divergence = None

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config


class Twice(Part):
    """As an advantage 2 everywhere, as a loss 2 − log p."""

    name = "twice"
    separable, vanishes = True, True

    def __call__(self, given: Any, batch: Any = None) -> Any:
        if batch is None:
            return [torch.full((len(sample.ids_L),), 2.0) for sample in given]
        return 2.0 - given


class Whole(Part):
    """A loss of whole sequences."""

    name = "whole"
    separable, vanishes = False, False


class Apart(Part):
    """A loss with a divergence."""

    name = "apart"
    separable, vanishes = True, False
    divergence = Divergence("forward")


class Wild(Part):
    name, needs = "wild", frozenset({"ref_logps"})
    separable, vanishes = True, True


class Taught(Part):
    name, needs = "taught", frozenset({"teacher_logps"})


class Algorithm(Part):
    name = "made"

    class Config(ComponentConfig):
        part: Any = "part"
        loss: Any = {"use": "part"}
        importance: str | None = None

    config: Config

    def compose(self) -> Composition:
        if self.config.part == "none":
            raise KeyError("no such part")
        rule = {"use": self.config.importance} if self.config.importance else None
        advantage = {"use": self.config.part} if isinstance(self.config.part, str) else self.config.part
        return Composition(advantage, self.config.loss, rule, "token")


@pytest.fixture
def full(registry: Registry) -> Registry:
    parts = {
        f"m2rl_{kind}": hookimpl(lambda: [Part, Taught, Twice, Whole, Apart, Wild])
        for kind in ("advantages", "importances", "losses")
    }
    offers = SimpleNamespace(m2rl_algorithms=hookimpl(lambda: [Algorithm]), **parts)
    registry.register(offers, distribution="tests")
    return registry


def test_parts_are_built_and_say_whether_they_learn_from_a_teacher(full: Registry) -> None:
    plain = compose(full, "made", "a")
    assert (plain.advantage.name, plain.importance, plain.loss.name, plain.reduction) == ("part", None, "part", "token")
    assert not plain.taught
    assert compose(full, {"use": "made", "part": "taught"}, "a").taught
    assert compose(full, {"use": "made", "importance": "taught"}, "a").taught


def test_an_algorithm_that_fails_is_named(full: Registry) -> None:
    with pytest.raises(StageError, match="a: algorithm 'made' failed while naming its parts: KeyError: 'no such part'"):
        compose(full, {"use": "made", "part": "none"}, "a")


def test_several_parts_are_added_up_with_their_weights(full: Registry, make_sample: Callable[..., Sample]) -> None:
    both = [{"use": "twice"}, {"use": "twice", "weight": 0.25}]
    made = compose(full, {"use": "made", "part": both, "loss": both}, "a")
    assert [value.tolist() for value in made.advantage([make_sample(4, 2)])] == [[2.5] * 4]
    logps = torch.tensor([-1.0, -3.0], requires_grad=True)
    loss = made.loss(logps, object())  # type: ignore[arg-type]
    assert loss.tolist() == [3.75, 6.25]
    assert torch.autograd.grad(loss.sum(), logps)[0].tolist() == [-1.25, -1.25]
    assert made.loss.name == "twice + twice"
    assert made.loss.vanishes
    assert made.loss.separable


def test_a_weight_alone_counts_too(full: Registry, make_sample: Callable[..., Sample]) -> None:
    made = compose(full, {"use": "made", "part": [{"use": "twice", "weight": 3}]}, "a")
    assert [value.tolist() for value in made.advantage([make_sample(3, 2)])] == [[6.0] * 3]


def test_no_advantage_is_none(full: Registry, make_sample: Callable[..., Sample]) -> None:
    made = compose(full, {"use": "made", "part": []}, "a")
    assert [value.tolist() for value in made.advantage([make_sample(3, 2)])] == [[0.0] * 3]
    assert made.needs == frozenset()


def test_a_sum_is_what_its_parts_are(full: Registry) -> None:
    made = compose(full, {"use": "made", "loss": [{"use": "twice"}, {"use": "whole"}]}, "a")
    assert not made.loss.separable
    assert not made.loss.vanishes
    made = compose(full, {"use": "made", "loss": [{"use": "twice"}, {"use": "apart", "weight": 2}]}, "a")
    assert made.taught
    assert made.loss.divergence == Divergence("forward")


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (
            [{"use": "twice", "weight": "heavy"}],
            "a.loss.weight: of 'twice'. Found: heavy. Allowed: a finite number abo",
        ),
        ([{"use": "twice", "weight": 0}], "a.loss.weight: of 'twice'. Found: 0. Allowed: a finite number above 0."),
        ([{"use": "twice", "weight": float("nan")}], "a.loss.weight: of 'twice'. Found: nan"),
        ([{"use": "wild"}], "a: a part needs what nobody computes. Found: ref_logps. Allowed: entropy, old_logps, ref"),
        ([], "a.loss: algorithm 'made' names no loss"),
        ([{"use": "apart"}, {"use": "apart"}], "a.loss: apart + apart: at most one loss may have a divergence"),
        ([{"use": "apart"}, {"use": "whole"}], "a.loss: apart + whole: a divergence is fused token by token"),
    ],
)
def test_losses_that_do_not_fit_together(full: Registry, loss: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(full, {"use": "made", "loss": loss}, "a")
    assert str(caught.value).startswith(expected)
