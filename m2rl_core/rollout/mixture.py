"""Which prompts a step draws: exact quotas per domain, the same after a resume."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from m2rl_core.config import RlStage
from m2rl_core.errors import ConfigError, DataError, boundary
from m2rl_core.interfaces import Mixture
from m2rl_core.run import Components, StageRun
from m2rl_core.seeding import derive
from m2rl_core.types import Group, Prompt

__all__ = ["Source", "open_source"]

MEMORY = 0.9
"""Weight of the past in a domain's running mean reward."""
BITS = 256
"""Size of a denominator above which what is owed is rounded; fixed shares, which are exact for ever, stay below."""
UNIT = 2**40
"""Parts of a prompt that it is rounded to."""


class Source:
    """Draws ``count`` prompts per step.

    After any number of steps each domain has been drawn its exact share of all prompts to within one. Within a domain,
    prompts come in an order shuffled anew for every epoch by a hash of (seed, domain, epoch).

    Args:
        prompts: domain → its training prompts.
        mixture: the shares.
        count: prompts per step.
        seed: of the stage.
    """

    def __init__(self, prompts: Mapping[str, Sequence[Prompt]], mixture: Mixture, count: int, seed: int) -> None:
        for domain, found in prompts.items():
            if not found:
                raise DataError(f"domain '{domain}' has no training prompts")
        self.prompts, self.mixture, self.count, self.seed = prompts, mixture, count, seed
        self.owed = {domain: Fraction(0) for domain in prompts}
        self.drawn = dict.fromkeys(prompts, 0)
        self.rewards: dict[str, float] = {}
        self.shares: dict[int, dict[str, float]] = {}
        """Step → domain → share, of steps that are drawn and not yet trained on."""
        self._orders: dict[str, tuple[int, list[int]]] = {}

    def next(self, step: int) -> list[Prompt]:
        """The prompts of ``step``, domain by domain."""
        return [self.draw(domain) for domain, quota in self._quotas(step).items() for _ in range(quota)]

    def observe(self, groups_P: Sequence[Group]) -> None:
        """Follow each domain's mean reward, for mixtures that adapt."""
        for domain in self.prompts:
            values = [s.reward.value for g in groups_P if g.prompt.domain == domain for s in g.usable]
            if known := [v for v in values if v is not None]:
                mean = sum(known) / len(known)
                self.rewards[domain] = MEMORY * self.rewards.get(domain, mean) + (1 - MEMORY) * mean

    def metrics(self, step: int) -> dict[str, float]:
        """``share/DOMAIN`` of a step that has been drawn, to be asked for once; nothing where there is one domain."""
        shares = self.shares.pop(step)
        return {f"share/{domain}": share for domain, share in shares.items()} if len(shares) > 1 else {}

    def _quotas(self, step: int) -> dict[str, int]:
        """Whole prompts per domain, dealt one by one to the domain whose next prompt is due first.

        Tijdeman's rule for the chairman assignment problem (https://doi.org/10.1016/0012-365X(80)90269-1): every domain
        stays within one prompt of its exact share, whatever the shares.
        """
        shares = self._shares(step)
        self.shares[step] = {domain: float(shares.get(domain, 0)) for domain in self.prompts}
        quotas = dict.fromkeys(self.prompts, 0)
        for _ in range(self.count):
            for domain, share in shares.items():
                self.owed[domain] += share
            due = [domain for domain in shares if self.owed[domain] > 0]
            first = min(due, key=lambda domain: (1 - self.owed[domain]) / shares[domain])
            self.owed[first] -= 1
            quotas[first] += 1
        self._round()
        return quotas

    def _round(self) -> None:
        """Keep what is owed short: every new set of shares multiplies the denominators."""
        if any(value.denominator.bit_length() > BITS for value in self.owed.values()):
            self.owed = {domain: Fraction(round(value * UNIT), UNIT) for domain, value in self.owed.items()}
            self.owed[next(iter(self.owed))] -= sum(self.owed.values())

    def _shares(self, step: int) -> dict[str, Fraction]:
        """The mixture's weights of this step, adding up to 1; domains without weight are left out."""
        sizes = {domain: len(found) for domain, found in self.prompts.items()}
        with boundary(f"mixture '{self.mixture.name}'", f"weighing the domains of step {step}"):
            weights = self.mixture.weights(step, sizes, self.rewards)
        if unknown := weights.keys() ^ self.prompts.keys():
            raise ConfigError(
                f"mixture '{self.mixture.name}' must weigh exactly the stage's domains",
                found=", ".join(sorted(unknown)), allowed=self.prompts,
            )  # fmt: skip
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ConfigError(f"mixture '{self.mixture.name}': weights must be positive", found=dict(weights))
        total = sum(Fraction(weight) for weight in weights.values())
        return {domain: Fraction(weights[domain]) / total for domain in self.prompts if weights[domain] > 0}

    def draw(self, domain: str) -> Prompt:
        """The domain's next prompt, beside its quota."""
        found = self.prompts[domain]
        epoch, at = divmod(self.drawn[domain], len(found))
        if self._orders.get(domain, (-1,))[0] != epoch:
            order = list(range(len(found)))
            random.Random(derive(self.seed, "order", domain, epoch)).shuffle(order)
            self._orders[domain] = epoch, order
        self.drawn[domain] += 1
        return found[self._orders[domain][1][at]]

    def save_state(self, folder: Path) -> None:
        owed = {domain: [value.numerator, value.denominator] for domain, value in self.owed.items()}
        state = {"owed": owed, "drawn": self.drawn, "rewards": self.rewards, "shares": self.shares}
        (folder / "source.json").write_text(json.dumps(state))
        Components([self.mixture]).save_state(folder)

    def load_state(self, folder: Path) -> None:
        state = json.loads((folder / "source.json").read_text())
        self.owed = {domain: Fraction(*value) for domain, value in state["owed"].items()}
        self.drawn, self.rewards = state["drawn"], state["rewards"]
        self.shares = {int(step): shares for step, shares in state["shares"].items()}
        Components([self.mixture]).load_state(folder)


def open_source(run: StageRun[RlStage]) -> Source:
    """The source of an RL stage's prompts."""
    stage = run.stage
    prompts = {name: list(run.prompts(name, "train")) for name in stage.domains}
    shares = dict(stage.domains) if isinstance(stage.domains, dict) else dict.fromkeys(stage.domains, 1.0)
    mixture = run.registry.create(
        "mixture", stage.mixture or {"use": "fixed", "shares": shares}, f"stages.{run.name}.mixture"
    )
    return Source(prompts, mixture, stage.prompts, run.seed)
