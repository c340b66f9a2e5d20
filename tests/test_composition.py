"""From an algorithm's name to its parts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from m2rl_core.composition import compose
from m2rl_core.errors import StageError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.plugins import Registry
from m2rl_core.types import Composition


class Part:
    """An advantage, an importance rule and a loss."""

    name, reference, Config = "part", "test", ComponentConfig
    needs = frozenset[str]()
    divergence = None

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config


class Taught(Part):
    name, needs = "taught", frozenset({"teacher_logps"})


class Algorithm(Part):
    name = "made"

    class Config(ComponentConfig):
        part: str = "part"
        importance: str | None = None

    config: Config

    def compose(self) -> Composition:
        if self.config.part == "none":
            raise KeyError("no such part")
        rule = {"use": self.config.importance} if self.config.importance else None
        return Composition({"use": self.config.part}, {"use": "part"}, rule, "token")


@pytest.fixture
def full(registry: Registry) -> Registry:
    parts = {f"m2rl_{kind}": hookimpl(lambda: [Part, Taught]) for kind in ("advantages", "importances", "losses")}
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
