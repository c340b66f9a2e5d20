"""A plugin whose parts do real work in little time: a domain, an algorithm, an analyzer that asks for everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain, Lab
from m2rl_core.types import (
    Batch,
    Claim,
    Composition,
    Correction,
    Divergence,
    Figure,
    Findings,
    Prompt,
    Reward,
    Sample,
    Sampling,
    Suite,
    Table,
    Trajectory,
)

if TYPE_CHECKING:
    from torch import Tensor


class Even(Domain):
    """Rewards answers of even length; prompts from number ``broken`` on break the verifier."""

    name: ClassVar[str] = "even"
    reference: ClassVar[str] = "test"

    class Config(ComponentConfig):
        prefix: str = "a"
        broken: int = 1000

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def suites(self) -> Mapping[str, Suite]:
        return {f"{self.config.prefix}-easy": Suite("generated", k=2, max_tokens=4, reasoning="off")}

    def prompts(self, split: str) -> Iterable[Prompt]:
        for i in range(8):
            asked = f"{self.config.prefix} {i}"
            yield Prompt(f"{split}/{i}", "even", ({"role": "user", "content": asked},), i)

    def verify(self, trajectory: Trajectory) -> Reward:
        if trajectory.prompt.ground_truth >= self.config.broken:
            raise RuntimeError("broken on purpose")
        length = len(trajectory.answer)
        return Reward(float(length % 2 == 0), "counted", {"length": float(length)})


class Plain:
    """REINFORCE with the group's mean as baseline, weighted and kept by ``halve``, over all tokens."""

    name: ClassVar[str] = "plain"
    reference: ClassVar[str] = "test"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...

    def compose(self) -> Composition:
        return Composition({"use": "centred"}, {"use": "reinforce"}, {"use": "halve"}, "token")


class Centred:
    """The reward minus the group's mean."""

    name: ClassVar[str] = "centred"
    reference: ClassVar[str] = "test"
    needs: ClassVar[frozenset[str]] = frozenset()
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...

    def __call__(self, group: list[Sample]) -> list[Tensor]:
        import torch

        rewards = [sample.reward.value or 0.0 for sample in group]
        mean = sum(rewards) / len(group)
        return [torch.full((len(s.ids_L),), reward - mean) for s, reward in zip(group, rewards, strict=True)]


class Reinforce:
    """−advantage · log-prob."""

    name: ClassVar[str] = "reinforce"
    reference: ClassVar[str] = "test"
    needs: ClassVar[frozenset[str]] = frozenset()
    separable, vanishes = True, True
    divergence: Divergence | None = None
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        assert batch.advantage_T is not None
        return -logps * batch.advantage_T


class Halve:
    """Half the ratio of the policy to the sampler; keeps tokens of more than e⁻⁶."""

    name: ClassVar[str] = "halve"
    reference: ClassVar[str] = "test"
    needs: ClassVar[frozenset[str]] = frozenset({"old_logps"})
    separable: ClassVar[bool] = False
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None: ...

    def __call__(self, batch: Batch) -> Correction:
        assert batch.old_logps_T is not None
        return Correction((batch.old_logps_T - batch.sampler_logps_T).exp() / 2, batch.old_logps_T > -6.0)


class Look:
    """Every expert in its own domain: how far it is from model ``multi``, in tokens, gradients and weights."""

    name: ClassVar[str] = "look"
    reference: ClassVar[str] = "test"

    class Config(ComponentConfig):
        tokens: int = 5
        ragged: bool = False
        ask: str = ""
        """A model whose scores are asked for first."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        if self.config.ask:
            lab.scores(self.config.ask)
        rows = [self.row(lab, domain, expert) for domain, expert in lab.experts.items()]
        columns = ["domain", "expert", "KL", "norm", "moved", "nothing"]
        table = Table("Looked at", columns[:5] if self.config.ragged else columns, rows, "a note")
        kl = [row[2] for row in rows if isinstance(row[2], float)]
        figure = Figure("KL by domain", "bars", [str(row[0]) for row in rows], {"KL": kl}, note="drawn")
        claims = [
            Claim("Experts move away from the mixed model", "3.4", kl[0], (0.0, 2 * kl[0]), "holds"),
            Claim("Nobody can know", "3.6", None, None, "not measurable", "=why"),
        ]
        return Findings({"looked": table}, {"kl": figure}, claims)

    def row(self, lab: Lab, domain: str, expert: str) -> list[str | float | None]:
        prompts, sampling = lab.prompts(domain, f"{domain}-easy")[:3], Sampling(self.config.tokens, seed=3)
        groups = lab.generate(expert, prompts, sampling, 2)
        samples = [sample for group in groups for sample in group]
        found = lab.divergences(expert, "multi", samples, Divergence("reverse"))
        kl = sum(each.sum().item() for each in found) / sum(sample.length for sample in samples)
        norm = sum(float(g.square().sum()) for _, g in lab.gradients("multi", "multi", groups)) ** 0.5
        moved = sum(block.deltas_E.abs().sum().item() for block in lab.blocks(lab.start or "", [expert]))
        return [domain, expert, kl, norm, moved, float("nan")]


class Moved:
    """How far every expert's weights are from the base's, and what it says to nobody's question."""

    name: ClassVar[str] = "moved"
    reference: ClassVar[str] = "test"

    class Config(ComponentConfig):
        ask: str = ""
        """A model whose scores are asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        if self.config.ask:
            lab.scores(self.config.ask)
        rows: list[list[str | float | None]] = []
        for domain, expert in lab.experts.items():
            asked = Prompt("x", "judge", ({"role": "user", "content": "right?"},))
            [[said]] = lab.generate(expert, [asked], Sampling(4), 1, verify=False)
            blocks = lab.blocks(lab.start or "", [expert])
            rows.append([domain, said.length, sum(float(b.deltas_E.abs().sum()) for b in blocks)])
        claim = Claim("Weights move", "3.3", float(rows[0][2] or 0.0), (0.0, 1e9), "holds")
        return Findings({"moved": Table("Moved", ["expert", "tokens", "weights"], rows)}, {}, [claim])


@hookimpl
def m2rl_domains() -> list[type]:
    return [Even]


@hookimpl
def m2rl_algorithms() -> list[type]:
    return [Plain]


@hookimpl
def m2rl_advantages() -> list[type]:
    return [Centred]


@hookimpl
def m2rl_importances() -> list[type]:
    return [Halve]


@hookimpl
def m2rl_losses() -> list[type]:
    return [Reinforce]


@hookimpl
def m2rl_analyzers() -> list[type]:
    return [Look, Moved]
