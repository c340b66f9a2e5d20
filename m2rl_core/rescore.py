"""Verifying a study's stored rollouts again: which rewards would be others today?

Rollouts of ``rl`` stages hold all that their verifiers need. Samples of evaluations hold no gold: their prompts are
drawn again from their suites, and left out where they no longer ask the same. Nothing is written. This module imports
no torch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2rl_core.config import EvalStage, RlStage, Study
from m2rl_core.errors import DataError, RunError, boundary
from m2rl_core.files import numbered_rows
from m2rl_core.interfaces import Domain
from m2rl_core.registry import Registry
from m2rl_core.rollout.judging import Case, judged
from m2rl_core.rollout.records import from_record, reached_verifier
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.study import Node, named, placed
from m2rl_core.types import Prompt, Reward, Verdict

__all__ = ["Flip", "Rescoring", "Stored"]


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored sample and its reward."""

    stage: str
    """The node that stored it: a stage, or ``STAGE/MODEL/SUITE``, after ``seed-N/`` where there are several seeds."""
    step: int | None
    """``None`` for evaluations."""
    domain: str
    prompt: str
    sample: int
    reward: Reward


@dataclass(frozen=True, slots=True)
class Flip:
    """A stored reward that the verifier no longer gives."""

    stored: Stored
    reward: Reward
    """The one that it gives now."""

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        stored, now = self.stored, self.reward
        return {
            "stage": stored.stage,
            "step": stored.step,
            "domain": stored.domain,
            "prompt": stored.prompt,
            "sample": stored.sample,
            "old": stored.reward.value,
            "new": now.value,
            "old_reason": stored.reward.reason,
            "reason": now.reason,
        }


@dataclass(slots=True)
class Rescoring:
    """One look at a study's folder.

    Args:
        run: the study's folder.
        only: a stage or node; ``None`` for all.
    """

    study: Study
    registry: Registry
    run: Path
    only: str | None = None
    verified: int = 0
    """Samples that were verified again."""
    left_out: int = 0
    """Samples that cannot be: their environment or engine gave up, or their prompt or domain is no longer there."""
    flips: dict[tuple[Verdict, Verdict], int] = field(default_factory=dict)
    """(verdict then, verdict now) → how often the reward has changed."""
    _domains: dict[str, Domain] = field(default_factory=dict)

    def flipped(self, workers: int) -> Generator[Flip]:
        """The rewards that have changed, in the order of the stages and of their files.

        Args:
            workers: processes that verify.

        Raises:
            ConfigError: there is no such stage.
            RunError: nothing is stored.
            DataError: a record that cannot be read; it names the line.
        """
        files = self._files()
        study = self.study
        specs = {n: Spec.of(self._domain(n), section, study.plugins) for n, section in study.domains.items()}
        with VerifierPool(specs, workers) as pool:
            for stored, verdicts in judged(self._cases(files), pool):
                self.verified += 1
                if stored.reward.value != verdicts.reward.value:
                    change = stored.reward.verdict, verdicts.reward.verdict
                    self.flips[change] = self.flips.get(change, 0) + 1
                    yield Flip(stored, verdicts.reward)

    def _files(self) -> list[tuple[Node, Path]]:
        names = {RlStage: "rollouts.jsonl", EvalStage: "samples.jsonl"}
        nodes = named(placed(self.study, self.registry, self.run), self.only)
        files = [(node, node.folder / names[type(node.config)]) for node in nodes if type(node.config) in names]
        if not (found := [(node, path) for node, path in files if path.is_file()]):
            raise RunError(f"{self.run / (self.only or '')} holds no rollouts", then="m2rl run STUDY makes some")
        return found

    def _domain(self, name: str) -> Domain:
        if name not in self._domains:
            section = self.study.domains[name]
            use = {"use": section.use, **section.config}
            self._domains[name] = self.registry.create("domain", use, f"domains.{name}")
        return self._domains[name]

    def _cases(self, files: list[tuple[Node, Path]]) -> Iterator[Case[Stored]]:
        for node, path in files:
            prompts = self._asked(node) if isinstance(node.config, EvalStage) else None
            for number, record in numbered_rows(path):
                try:
                    case = self._rollout(node, record) if prompts is None else self._sample(node, record, prompts)
                except (KeyError, TypeError, ValueError) as error:
                    problem = f"{type(error).__name__}: {error}"
                    raise DataError(f"{path}, line {number}, is no sample of this version: {problem}") from error
                if case is None:
                    self.left_out += 1
                else:
                    yield case

    def _asked(self, node: Node) -> dict[str, Prompt]:
        """The prompts of an evaluation's suite, by id."""
        [name] = node.domains
        with boundary(f"domain '{name}'", f"drawing the prompts of suite '{node.suite}'"):
            return {prompt.id: prompt for prompt in self._domain(name).prompts(node.suite)}

    def _rollout(self, node: Node, record: dict[str, Any]) -> Case[Stored] | None:
        """A sample of an ``rl`` stage, unless there is nothing to verify."""
        sample, domain = from_record(record), record["domain"]
        if domain not in self.study.domains or not reached_verifier(record):
            return None
        stored = _stored(node, record, record["step"])
        gate = self.study.domains[domain].reasoning
        said, truncated = sample.trajectory.messages, sample.trajectory.truncated
        return Case(stored, domain, sample.prompt, said, gate, truncated)

    def _sample(self, node: Node, record: dict[str, Any], prompts: Mapping[str, Prompt]) -> Case[Stored] | None:
        """A sample of an evaluation, unless there is nothing to verify or its prompt is another today."""
        [domain] = node.domains
        prompt = prompts.get(record["prompt"])
        if prompt is None or list(prompt.messages) != record["messages"] or not reached_verifier(record):
            return None
        gate = self._domain(domain).suites[node.suite].reasoning
        truncated = record["finish"] == "length"
        return Case(_stored(node, record, None), domain, prompt, record["response"], gate, truncated)


def _stored(node: Node, record: Mapping[str, Any], step: int | None) -> Stored:
    reward = Reward(record["reward"], record["reason"])
    return Stored(node.id, step, record["domain"], record["prompt"], record["sample"], reward)
