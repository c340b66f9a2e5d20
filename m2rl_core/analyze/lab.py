"""``Laboratory``: the real :class:`~m2rl_core.interfaces.Lab`, over the nodes of a study or over bare folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2rl_core.analyze.draws import Draws
from m2rl_core.analyze.gradients import gradients
from m2rl_core.analyze.models import Models
from m2rl_core.analyze.scoring import Scorer
from m2rl_core.analyze.weights import blocks
from m2rl_core.config import AnalyzeStage, RlStage, combines, expert_domain, start_model
from m2rl_core.errors import DataError, nearest
from m2rl_core.files import read_jsonl
from m2rl_core.rollout.records import from_record
from m2rl_core.run import StageRun
from m2rl_core.types import Block, Divergence, Prompt, Sample, Sampling, Way

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Laboratory"]


class Laboratory:
    """See :class:`~m2rl_core.interfaces.Lab`.

    Args:
        run: of the stage; its ``models`` are what is looked at, its ``nodes`` what they came from.
        experts: domain → model where no study says so.
        start: the model that they departed from where no study says so.
    """

    def __init__(
        self, run: StageRun[AnalyzeStage], *, experts: Mapping[str, str] | None = None, start: str | None = None
    ) -> None:
        self._run = run
        self.models: Mapping[str, Path]
        self.models = self._models = Models(run.models, run.nodes)
        found = {d: m for m in reversed(self._final()) if (d := expert_domain(run.study, m)) is not None}
        self.experts: Mapping[str, str] = {d: found[d] for d in run.study.domains if d in found} | dict(experts or {})
        self.arms: Mapping[str, Way] = {m: how for m in self._final() if (how := combines(run.study, m)) is not None}
        self.start = start or start_model(run.study)
        self._draws = Draws(run, self._models)
        self._scorer = Scorer(run, self._models)

    def _final(self) -> list[str]:
        """All models but kept steps."""
        return [name for name in self.models if "@" not in name]

    # ── what the study has left on disk ──────────────────────────────────────────────────────────────────────────────

    def prompts(self, domain: str, split: str) -> Sequence[Prompt]:
        if domain not in self._run.study.domains:
            raise self._lacks("domain", domain, self._run.study.domains)
        return list(self._run.prompts(domain, split))

    def scores(self, model: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for node in self._run.nodes:
            if node.kind == "eval" and node.folder.parts[-2] == model:
                rows = list(read_jsonl(node.folder / "samples.jsonl"))
                suite = node.folder.name
                if len(rows) >= len(found.get(suite, ())):  # of two evaluations the one of more samples, or the later
                    found[suite] = rows
        if not found:
            evaluated = dict.fromkeys(n.folder.parts[-2] for n in self._run.nodes if n.kind == "eval")
            raise self._lacks("evaluation of model", model, evaluated)
        return found

    def metrics(self, stage: str) -> Sequence[Mapping[str, Any]]:
        return list(read_jsonl(self._left(stage, "metrics.jsonl")))

    def samples(self, stage: str, *, limit: int | None = None) -> Iterator[Sample]:
        return map(from_record, islice(read_jsonl(self._left(stage, "rollouts.jsonl")), limit))

    def _left(self, stage: str, name: str) -> Path:
        """A file, not empty, that a stage has left."""
        left = {node.stage: path for node in reversed(self._run.nodes) if _holds(path := node.folder / name)}
        if stage not in left:
            raise self._lacks(f"{name} of stage", stage, dict(reversed(left.items())))
        return left[stage]

    def _lacks(self, what: str, name: str, known: Mapping[str, object]) -> DataError:
        if not self._run.nodes and not self._run.study.domains:
            then = "name a study with --study: folders of models alone have none of it"
        else:
            then = f"let stages.{self._run.name} come after what makes it"
        said = f"there is no {what} '{name}' to analyse.{nearest(name, known)}"
        return DataError(said, allowed=", ".join(known) or "none", then=then)

    # ── what models do ───────────────────────────────────────────────────────────────────────────────────────────────

    def generate(
        self, model: str, prompts: Sequence[Prompt], sampling: Sampling, n: int, *, verify: bool = True
    ) -> list[list[Sample]]:
        if verify and (odd := next((p.domain for p in prompts if p.domain not in self._run.study.domains), None)):
            raise self._lacks("domain", odd, self._run.study.domains)
        self._models.folder(model)
        with self._run.clock("rollout"):
            return self._draws.of(model, prompts, sampling, n, verify=verify, before=self._scorer.release)

    def logps(self, model: str, samples: Sequence[Sample]) -> list[Tensor]:
        with self._run.clock("score"):
            return self._scorer.logps(model, samples)

    def divergences(self, model: str, other: str, samples: Sequence[Sample], kind: Divergence) -> list[Tensor]:
        with self._run.clock("score"):
            return self._scorer.divergences(model, other, samples, kind)

    def gradients(self, model: str, stage: str, groups: Sequence[list[Sample]]) -> Iterator[tuple[str, Tensor]]:
        section = self._run.study.stages.get(stage)
        if not isinstance(section, RlStage):
            trained = {name: s for name, s in self._run.study.stages.items() if isinstance(s, RlStage)}
            raise self._lacks("rl stage", stage, trained)
        self._scorer.release()
        return gradients(self._run, self._models, model, stage, section, groups)

    def blocks(self, base: str, models: Sequence[str]) -> Iterator[Block]:
        return blocks(self._models.folder(base), {name: self._models.folder(name) for name in models})


def _holds(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
