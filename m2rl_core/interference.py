"""The analyzer ``interference``: do the domains of a mixed run pull its weights the same way, or against each other?

At every kept step that the stage lists, samples of one domain at a time are drawn with the model of that step, and the
gradient of the run's own loss is sketched: every weight is added, with a hashed sign, to one of a few thousand sums,
the same for all domains and steps. Inner products of sketches are unbiased estimates of those of the gradients
(https://arxiv.org/abs/0902.2206, section 2). Two batches of one domain show how alike gradients can be at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig, Lab
from m2rl_core.seeding import derive
from m2rl_core.types import Figure, Findings, Sample, Sampling, Table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Interference"]

Cell = str | float | None


class Interference:
    """Cosines of per-domain gradients, their norms, and the share of groups without one, along a mixed run."""

    name: ClassVar[str] = "interference"
    reference: ClassVar[str] = "https://arxiv.org/abs/2001.06782, section 2: gradients that conflict"

    class Config(ComponentConfig):
        prompts: PositiveInt = 32
        """Of every domain, from the beginning of its training prompts; half of them in each of two batches."""
        samples: PositiveInt = 16
        """Of every prompt. Table 2's group."""
        max_tokens: PositiveInt = 32768
        """Most tokens of a sample. Section A."""
        temperature: PositiveFloat = 1.0
        """Section A."""
        width: PositiveInt = 4096
        """Sums of a sketch: a cosine's error is about one over the square root of this."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        """Two gradients per domain and step.

        Raises:
            DataError: the stage lists no kept step of a run on several domains.
        """
        steps = [_Step(model, *_kept(model)) for model in lab.models if "@" in model]
        steps = [step for step in steps if len(_domains(lab, step.stage)) > 1]
        if not steps:
            raise DataError(
                "interference looks at kept steps of a run on several domains, and there is none here",
                found=", ".join(lab.models),
                then="list some, as in 'models: [multi@10, multi@20]'; the stage keeps them with keep_every",
            )
        looks = [look for step in steps for look in self._look(lab, step)]
        return Findings(
            {"cosines": self._cosines(looks), "norms": _norms(looks)},
            {**_figures("cosine", _pairs(looks)), **_figures("norm share", _shares(looks))},
        )

    def _look(self, lab: Lab, step: _Step) -> Iterable[_Look]:
        how = Sampling(self.config.max_tokens, self.config.temperature, seed=derive("interference"))
        for domain in _domains(lab, step.stage):
            prompts = lab.prompts(domain, "train")[: self.config.prompts]
            groups = lab.generate(step.model, prompts, how, self.config.samples)
            halves = [self._sketch(lab, step, groups[part::2]) for part in (0, 1)]
            idle = fmean(len({sample.reward.value for sample in group} - {None}) < 2 for group in groups)
            yield _Look(step, domain, halves, idle)

    def _sketch(self, lab: Lab, step: _Step, groups: Sequence[list[Sample]]) -> Tensor:
        """Float64 [width]."""
        import torch

        total = torch.zeros(self.config.width, dtype=torch.float64)
        for name, gradient in lab.gradients(step.model, step.stage, groups):
            flat = gradient.flatten().double()
            draw = torch.Generator().manual_seed(derive("sketch", name))
            place = torch.randint(2 * self.config.width, (len(flat),), generator=draw)  # the last bit is the sign
            total.index_add_(0, place // 2, flat * (1 - 2 * (place % 2)))
        return total

    def _cosines(self, looks: Sequence[_Look]) -> Table:
        rows: list[list[Cell]] = [
            [look.step.stage, look.step.number, one, other, value] for look, one, other, value in _compared(looks)
        ]
        note = (
            f"Of the run's gradients, estimated from sketches of {self.config.width} numbers: an error of about "
            f"{1 / sqrt(self.config.width):.2g} beside that of the samples. A domain beside itself: two batches of "
            "different prompts, which is as alike as the samples allow. Missing: no group with a gradient."
        )
        return Table("Cosines of gradients", ["stage", "step", "domain", "other", "cosine"], rows, note)


@dataclass(frozen=True, slots=True)
class _Step:
    """A kept model."""

    model: str
    stage: str
    number: int


@dataclass(frozen=True, slots=True)
class _Look:
    """One domain's gradients at one step."""

    step: _Step
    domain: str
    halves: Sequence[Tensor]
    """Sketches of two batches, [width] each."""
    idle: float
    """Share of the groups whose rewards are all equal."""

    @property
    def norm(self) -> float:
        """Of the mean of both batches' gradients."""
        return float((self.halves[0] + self.halves[1]).norm()) / 2


def _kept(model: str) -> tuple[str, int]:
    stage, _, step = model.partition("@")
    return stage, int(step)


def _domains(lab: Lab, stage: str) -> list[str]:
    """The domains that a run has sampled, by its metrics."""
    names = dict.fromkeys(name for line in lab.metrics(stage) for name in line)
    return [name.removeprefix("samples/") for name in names if name.startswith("samples/")]


def _by_step(looks: Sequence[_Look]) -> Mapping[_Step, list[_Look]]:
    found: dict[_Step, list[_Look]] = {}
    for look in looks:
        found.setdefault(look.step, []).append(look)
    return found


def _compared(looks: Sequence[_Look]) -> Iterable[tuple[_Look, str, str, float | None]]:
    """Every domain beside itself and all others of its step, as (one's look, its domain, the other's, cosine)."""
    for those in _by_step(looks).values():
        for look in those:
            yield look, look.domain, look.domain, _cosine(*look.halves)
        for one, other in combinations(those, 2):
            found = [_cosine(a, b) for a in one.halves for b in other.halves]
            known = [value for value in found if value is not None]
            yield one, one.domain, other.domain, fmean(known) if known else None


def _cosine(one: Tensor, other: Tensor) -> float | None:
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size else None


def _norms(looks: Sequence[_Look]) -> Table:
    rows: list[list[Cell]] = []
    for those in _by_step(looks).values():
        total = sum(look.norm for look in those)
        for look in those:
            share = look.norm / total if total else None
            rows.append([look.step.stage, look.step.number, look.domain, look.norm, share, look.idle])
    columns = ["stage", "step", "domain", "norm", "norm share", "groups without gradient"]
    return Table("Norms of gradients", columns, rows, "Each domain's share of the sum of all domains' norms.")


def _pairs(looks: Sequence[_Look]) -> Iterable[tuple[_Step, str, float | None]]:
    return ((look.step, one if one == other else f"{one}, {other}", v) for look, one, other, v in _compared(looks))


def _shares(looks: Sequence[_Look]) -> Iterable[tuple[_Step, str, float | None]]:
    for those in _by_step(looks).values():
        total = sum(look.norm for look in those)
        yield from ((look.step, look.domain, look.norm / total if total else None) for look in those)


def _figures(what: str, values: Iterable[tuple[_Step, str, float | None]]) -> dict[str, Figure]:
    """One figure per stage, of ``values`` along its steps."""
    found: dict[str, dict[str, dict[int, float | None]]] = {}
    for step, label, value in values:
        found.setdefault(step.stage, {}).setdefault(label, {})[step.number] = value
    figures = {}
    for stage, lines in found.items():
        x = sorted({number for line in lines.values() for number in line})
        series = {label: [line.get(number) for number in x] for label, line in lines.items()}
        title = f"{stage}: {what} of the domains' gradients"
        figures[f"{what.replace(' ', '-')}.{stage}"] = Figure(title, "lines", x, series, "step", what)
    return figures
