"""How near a candidate is to each expert where that expert has spoken: the score of a search.

KL(expert ‖ candidate) over the whole vocabulary before every token of the expert's stored rollouts, at the temperature
that they were drawn with: nothing is generated. Prompts are split in halves that share none: one chooses, the other
tells what the choice gains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Literal

from m2rl_core.config import MergeStage, RlStage
from m2rl_core.errors import ConfigError, DataError
from m2rl_core.policy import Frozen, Policy, compare
from m2rl_core.rollout.stored import latest_samples
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive
from m2rl_core.types import Divergence, Sample

__all__ = ["Distance", "Gain", "Half", "Judge", "gain", "mean_distance"]

Half = Literal["chooses", "tells"]
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Distance:
    """From one expert, in one of its domains."""

    expert: str
    domain: str
    kl_S: Sequence[float]
    """Of each sample, the sum over its tokens [nats]."""
    tokens_S: Sequence[int]

    @property
    def mean(self) -> float:
        """Nats per token."""
        return sum(self.kl_S) / sum(self.tokens_S)


@dataclass(frozen=True, slots=True)
class Gain:
    """Nats per token by which one candidate is nearer to the experts than another, with a 95% interval over prompts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Heard:
    """What an expert has said in one of its domains."""

    expert: str
    domain: str
    temperature: float
    halves: dict[Half, list[Sample]]


class Judge:
    """Measures candidates; of the experts and of the candidates one each is in memory.

    Args:
        run: of a merge stage with a ``search``; its study holds the experts' stages.

    Raises:
        ConfigError: an expert that is no rl stage.
        DataError: too few rollouts are stored.
    """

    def __init__(self, run: StageRun[MergeStage]) -> None:
        assert run.stage.search is not None
        self._run, self._tokens_per_device = run, run.stage.search.tokens_per_device
        self._heard = list(_heard(run))
        self._folders: dict[str, Path] = {}
        trust = run.study.model.trust_remote_code
        self._experts, self._candidates = (
            Frozen(folders, {}, "", self._load, trust=trust) for folders in (run.models, self._folders)
        )

    def _load(self, folder: Path) -> Policy:
        held = self._run.study.model
        return Policy.load(folder, dtype=held.dtype, trust_remote_code=held.trust_remote_code)

    def distances(self, name: str, folder: Path, half: Half) -> list[Distance]:
        """Of a candidate from every expert in each of its domains.

        Args:
            name: of these weights; no other candidate may have it.
        """
        self._folders[name] = folder
        candidate, found = self._candidates.use(name), list[Distance]()
        for heard in self._heard:
            samples, most = heard.halves[half], self._tokens_per_device
            candidate.temperature = heard.temperature
            kl_S = compare(candidate, self._experts.use(heard.expert), samples, Divergence("forward"), most)
            sums, tokens = [float(kl_L.double().sum()) for kl_L in kl_S], [sum(s.sampled_L) for s in samples]
            found.append(Distance(heard.expert, heard.domain, sums, tokens))
        return found


def mean_distance(distances: Sequence[Distance]) -> float:
    """Nats per token, the mean over experts and domains; infinite for a candidate whose log-probs are no numbers."""
    found = fmean(distance.mean for distance in distances)
    return found if math.isfinite(found) else math.inf


def gain(start: Sequence[Distance], chosen: Sequence[Distance]) -> Gain:
    """How much nearer ``chosen`` is than ``start``, on the same samples; the error is that of a ratio of sums."""
    value, variance = mean_distance(start) - mean_distance(chosen), 0.0
    for before, after in zip(start, chosen, strict=True):
        tokens, mean, n = sum(after.tokens_S), before.mean - after.mean, len(after.tokens_S)
        nearer_S = [b - a - mean * t for b, a, t in zip(before.kl_S, after.kl_S, after.tokens_S, strict=True)]
        variance += sum(each**2 for each in nearer_S) / tokens**2 * n / (n - 1) if n > 1 else math.nan
    error = _Z * math.sqrt(variance) / len(start)
    return Gain(value, value - error, value + error)


def _heard(run: StageRun[MergeStage]) -> list[_Heard]:
    """Every expert in each of its domains; halves are made of a domain's prompts, whoever drew them."""
    assert run.stage.search is not None
    wanted, found = run.stage.search.samples, list[_Heard]()
    drawn: dict[str, list[tuple[str, float, list[Sample]]]] = {}
    for expert in run.stage.experts:
        stage = _stage(run, expert)
        for domain in stage.domains:
            samples = _latest(run, expert, domain, wanted)
            drawn.setdefault(domain, []).append((expert, stage.temperature, samples))
    for domain, those in drawn.items():
        prompts = {sample.prompt.id for _, _, samples in those for sample in samples}
        choosing = set(sorted(prompts, key=lambda prompt: derive(run.seed, "half", prompt))[::2])
        for expert, temperature, samples in those:
            halves: dict[Half, list[Sample]] = {
                "chooses": [sample for sample in samples if sample.prompt.id in choosing],
                "tells": [sample for sample in samples if sample.prompt.id not in choosing],
            }
            if not all(halves.values()):  # where several experts share a domain, chance may leave one of them out
                raise DataError(
                    f"stages.{run.name}.search.samples: one half of the prompts has none of '{domain}' by '{expert}'",
                    found=f"{len(samples)} samples",
                    then="raise it",
                )
            found.append(_Heard(expert, domain, temperature, halves))
    return found


def _stage(run: StageRun[MergeStage], expert: str) -> RlStage:
    stage = run.study.stages.get(expert.partition("@")[0])
    if not isinstance(stage, RlStage):
        raise ConfigError(f"stages.{run.name}.search: '{expert}' is no rl stage, so it has stored no rollouts")
    return stage


def _latest(run: StageRun[MergeStage], expert: str, domain: str, wanted: int) -> list[Sample]:
    try:
        return latest_samples(run.models[expert], wanted, domain)
    except DataError as error:
        raise DataError(
            f"stages.{run.name}.search.samples: {error}", then="lower it, or train for more steps"
        ) from error
