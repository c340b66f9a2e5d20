"""What is said beside merged weights: their configuration, and a card that tells how they came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from m2rl_core.merge.survey import SAMPLE, Survey
from m2rl_core.model_card import CARD, front_matter, markdown_table
from m2rl_core.weights import LEAF

_OWN = "## What the merger tells\n\n"
_ESTIMATE = f"Estimated from the first {SAMPLE:,} weights of every {LEAF:,}; exact for smaller tensors.\n"


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a merge learned about its inputs."""

    experts: Sequence[str]
    survey: Survey
    fingerprints: Mapping[str, str]
    """Model → :class:`~m2rl_core.weights.Fingerprint` of its weights."""
    own: Mapping[str, float] = field(default_factory=dict)
    """What the merger itself tells: :meth:`~m2rl_core.interfaces.Merger.diagnostics`."""
    remarks: Sequence[str] = ()
    """On the models' files, see :mod:`m2rl_core.merge.remarks`, and the merger's own."""

    @property
    def metrics(self) -> dict[str, float]:
        """``norm/EXPERT``, ``relative/EXPERT``, ``changed/EXPERT``, ``cosine/EXPERT/EXPERT`` and ``sign_conflict``.

        Without an anchor ``norm`` alone: each expert's distance from their mean. Beside these, the merger's own.
        """
        norms = {f"norm/{name}": float(norm) for name, norm in zip(self.experts, self.survey.norms_E, strict=True)}
        if self.survey.base is None:
            return {**norms, **self.own}
        found = {**norms, **self.own, "sign_conflict": self.survey.conflicts / self.survey.size}
        for index, name in enumerate(self.experts):
            found[f"relative/{name}"] = norms[f"norm/{name}"] / max(self.survey.base**0.5, 1e-30)
            found[f"changed/{name}"] = float(self.survey.changed_E[index]) / self.survey.size
            for other, earlier in enumerate(self.experts[:index]):
                found[f"cosine/{earlier}/{name}"] = float(self.survey.cosines_EE[index, other])
        return found

    @property
    def warnings(self) -> list[str]:
        """What is allowed, and yet seldom meant."""
        far = [name for name in self.experts if self.metrics.get(f"relative/{name}", 0.0) > 0.1]
        apart = [f"Expert '{name}' lies unusually far from the base: is it a relative of it?" for name in far]
        return [*self.remarks, *apart]


def write_config(config: Mapping[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """``config.json`` with the type that the weights have now, under the key that the original uses."""
    name = str(dtype).removeprefix("torch.")
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    text = json.dumps({**config, **dict.fromkeys(keys, name)}, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def write_card(
    folder: Path,
    recipe: Mapping[str, Any],
    reference: str,
    found: Diagnostics,
    notes: Sequence[str] = (),
    origins: Sequence[str] = (),
) -> None:
    """``README.md`` in the model hub's form.

    Args:
        folder: of the merged model.
        recipe: everything needed to merge again: ``merger``, ``base``, ``experts``, ``dtype``.
        reference: of the merger.
        found: fingerprints and diagnostics.
        notes: on the recipe.
        origins: ids on the model hub of the models that the inputs started from.
    """
    front = yaml.safe_dump(front_matter(origins, ["merge"], merged=True), sort_keys=False)
    parts = [
        f"---\n{front}---\n",
        f"# Merged by {recipe['merger']['use']}\n",
        f"Made with m2rl {version('m2rl-core')}. Method: {reference}.\n",
        f"## Recipe\n\n```yaml\n{yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)}```\n",
        *(f"{note}\n" for note in notes),
        "## Inputs\n\n" + markdown_table(["model", "fingerprint of the weights"], list(found.fingerprints.items())),
        _vectors(found),
        *(
            [_OWN + markdown_table(["", "mean over all weights"], [[k, f"{v:.6g}"] for k, v in found.own.items()])]
            * bool(found.own)
        ),
        *(f"> {line}\n" for line in found.warnings),
    ]
    (folder / CARD).write_text("\n".join(parts), encoding="utf-8")


def _vectors(found: Diagnostics) -> str:
    """Where the experts lie, one row each."""
    metrics = found.metrics
    if found.survey.base is None:
        rows = [[name, f"{metrics[f'norm/{name}']:.6g}"] for name in found.experts]
        return f"## Experts\n\n{markdown_table(['expert', 'distance from their mean'], rows)}\n{_ESTIMATE}"
    rows = [
        [
            name,
            f"{metrics[f'norm/{name}']:.6g}",
            f"{metrics[f'relative/{name}']:.3%}",
            f"{metrics[f'changed/{name}']:.1%}",
            *(f"{cosine:.4f}" for cosine in cosines),
        ]
        for name, cosines in zip(found.experts, found.survey.cosines_EE, strict=True)
    ]
    cosines = [f"cosine with {name}" for name in found.experts]
    conflict = f"Weights that some experts raise and others lower: {metrics['sign_conflict']:.1%}. "
    table = markdown_table(["expert", "length", "of the base's", "changed weights", *cosines], rows)
    return f"## Task vectors\n\n{table}\n{conflict}{_ESTIMATE}"
