"""A gradient-reading analyzer: do two domains pull the mixed policy the same way?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from m2rl_core.interfaces import ComponentConfig, Lab
from m2rl_core.seeding import derive
from m2rl_core.types import Figure, Findings, Sample, Sampling, Table


class Interference:
    """Pairwise cosine of per-domain gradients at kept steps, from seeded sketches of bounded size."""

    name: ClassVar[str] = "interference"
    reference: ClassVar[str] = "https://arxiv.org/abs/2001.06782"

    class Config(ComponentConfig):
        model: str = "multi"
        steps: tuple[int, ...] = (10, 20)
        width: int = 256

    def __init__(self, config: Config) -> None:
        self.config = config

    def run(self, lab: Lab) -> Findings:
        domains = sorted(lab.experts)
        rows = []
        for step in self.config.steps:
            model = f"{self.config.model}@{step}"
            groups = {domain: self.groups(lab, model, domain) for domain in domains}
            sketches = {d: self.sketch(lab.gradients(model, self.config.model, groups[d])) for d in domains}
            for i, one in enumerate(domains):
                for other in domains[i + 1 :]:
                    cosine = torch.cosine_similarity(sketches[one], sketches[other], dim=0).item()
                    rows.append((step, f"{one}–{other}", cosine))
        table = Table("Gradient cosine", ("step", "pair", "cosine"), rows)
        pairs = sorted({pair for _, pair, _ in rows})
        series = {pair: [c for s, p, c in rows if p == pair] for pair in pairs}
        figure = Figure("Gradient cosine", "lines", list(self.config.steps), series, "step", "cosine")
        return Findings({"interference": table}, {"interference": figure})

    def groups(self, lab: Lab, model: str, domain: str) -> list[list[Sample]]:
        return lab.generate(model, lab.prompts(domain, "train")[:16], Sampling(max_tokens=64, seed=1), 8)

    def sketch(self, gradients: Iterator[tuple[str, Tensor]]) -> Tensor:
        """A signed count sketch: every element goes to one of ``width`` sums with a hashed sign."""
        total = torch.zeros(self.config.width)
        for name, gradient in gradients:
            draw = torch.Generator().manual_seed(derive("sketch", name))
            place = torch.randint(self.config.width, (gradient.numel(),), generator=draw)
            sign = torch.randint(2, (gradient.numel(),), generator=draw) * 2 - 1
            total.index_add_(0, place, gradient.flatten().float() * sign)
        return total
