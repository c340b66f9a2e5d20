"""Mixtures of the core: the share of each domain in a step's prompts, fixed, by the data, or by who lags behind."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from m2rl_core.interfaces import ComponentConfig, Mixture

__all__ = ["Fixed", "Proportional", "WorstTask", "bounded"]


class Fixed(Mixture):
    """The same shares in every step."""

    name: ClassVar[str] = "fixed"
    reference: ClassVar[str] = "design: weights per domain, realised exactly"

    class Config(ComponentConfig):
        shares: dict[str, float]
        """Domain → weight, in any unit."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def check(self, domains: Collection[str]) -> None:
        _all_named("shares", self.config.shares, domains)

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        return self.config.shares


class Proportional(Mixture):
    """Each domain by the number of its training prompts.

    So the released code draws: it trains on the shuffled union of all domains' data. With the data of the paper that is
    25.1% math, 21.9% coding, 22.4% science, 18.9% instruction following and 11.7% agent on average, and another share
    in each batch; here every step has its exact share, and all domains begin their next epoch together.
    """

    name: ClassVar[str] = "proportional"
    reference: ClassVar[str] = "https://github.com/Mosi-AI/M2RL (data/process_rl_data.py, multi_task)"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        return sizes


class WorstTask(Mixture):
    """More prompts for the domains that lag behind.

    The weights are the adversary's in a game over the worst domain, as in group DRO: every step multiplies each by
    exp(``rate`` × deficit), an exponentiated-gradient step (https://arxiv.org/abs/1911.08731, algorithm 1). Deficits
    are differences of true rewards, because GRPO's loss does not tell how good a domain is
    (https://arxiv.org/abs/2602.05547, section 3.1): what is missing to ``references``, but no less than 0, like the
    excess loss of DoReMi (https://arxiv.org/abs/2305.10429, algorithm 1); or else minus the gain since the start, the
    sum of that paper's improvements (section 3.2). A domain whose reward was high from the start cannot gain much and
    would count as the worst: name references there.

    Weights on the simplex tend to collapse onto one domain, so they are projected onto those that leave every domain
    ``floor`` of its share, at every step: a domain that is at its bound leaves it as soon as it no longer lags.

    Rewards are the running means of training. With rollouts one step ahead they are one step older.
    """

    name: ClassVar[str] = "worst-task"
    reference: ClassVar[str] = "https://arxiv.org/abs/1911.08731 (algorithm 1), https://arxiv.org/abs/2602.05547"

    class Config(ComponentConfig):
        shares: dict[str, PositiveFloat] = Field(default_factory=dict)
        """Domain → weight to begin with and to bound by, in any unit; empty: equal ones."""
        references: dict[str, float] = Field(default_factory=dict)
        """Domain → reward to reach, such as its expert's at the end of training; empty: the gain counts."""
        rate: PositiveFloat = 0.2
        """Growth of a weight's logarithm per step and unit of reward: 0.1 less gained for 50 steps makes 2.7 times."""
        floor: float = Field(default=0.25, gt=0, lt=1)
        """What a domain keeps of its share, at the least; so of five equal ones none gets less than 5% or more than
        80%."""
        warmup: PositiveInt = 10
        """Steps before the first change; rewards are then the start that gains are counted from."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.start: dict[str, float] = {}
        """Domain → running mean reward when the weights began to move; empty before that."""
        self.shares: dict[str, float] = {}
        """The weights drawn last, adding up to 1."""

    def check(self, domains: Collection[str]) -> None:
        for setting in ("shares", "references"):
            if given := getattr(self.config, setting):
                _all_named(setting, given, domains)

    def weights(self, step: int, sizes: Mapping[str, int], rewards: Mapping[str, float]) -> Mapping[str, float]:
        given = self.config.shares or dict.fromkeys(sizes, 1.0)
        total = math.fsum(given.values())
        base = {domain: weight / total for domain, weight in given.items()}
        if step < self.config.warmup or sizes.keys() - rewards.keys():  # who has not been drawn yet cannot be judged
            return base
        if not self.start:
            self.start, self.shares = dict(rewards), base
        deficits = {domain: self._deficit(domain, rewards[domain]) for domain in sizes}
        most = max(deficits.values())
        tilted = {d: self.shares[d] * math.exp(self.config.rate * (deficits[d] - most)) for d in sizes}
        self.shares = bounded(tilted, {domain: self.config.floor * base[domain] for domain in sizes})
        return self.shares

    def _deficit(self, domain: str, reward: float) -> float:
        if self.config.references:
            return max(0.0, self.config.references[domain] - reward)
        return self.start[domain] - reward

    def save_state(self, folder: Path) -> None:
        (folder / "worst-task.json").write_text(json.dumps({"start": self.start, "shares": self.shares}))

    def load_state(self, folder: Path) -> None:
        state = json.loads((folder / "worst-task.json").read_text())
        self.start, self.shares = state["start"], state["shares"]


def bounded(weights: Mapping[str, float], floors: Mapping[str, float]) -> dict[str, float]:
    """The distribution closest to ``weights`` in relative entropy that gives everyone at least its floor.

    Those below get their floor, and the others share the rest in their own proportions, until nobody is below
    (a projection as in https://jmlr.org/papers/v1/herbster01a.html).

    Args:
        weights: positive, with any sum.
        floors: positive, adding up to less than 1.
    """
    held: set[str] = set()
    while True:
        rest = 1 - math.fsum(floors[name] for name in held)
        free = math.fsum(weight for name, weight in weights.items() if name not in held)
        shares = {name: floors[name] if name in held else w * rest / free for name, w in weights.items()}
        low = {name for name in shares.keys() - held if shares[name] < floors[name]}
        if not low:
            return shares
        held |= low


def _all_named(setting: str, given: Mapping[str, float], domains: Collection[str]) -> None:
    """Refuse a setting that does not name exactly the stage's domains.

    Raises:
        ValueError: it names those that are missing or too many.
    """
    if missing := [domain for domain in domains if domain not in given]:
        raise ValueError(f"{setting}: names all domains of the stage or none, and lacks {', '.join(missing)}")
    if unknown := [domain for domain in given if domain not in domains]:
        raise ValueError(f"{setting}: {', '.join(unknown)} is no domain of the stage")
