"""What stands beside merged weights: the anchor's tokenizer and settings, and a card that says how they came about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from m2rl_core.merge.survey import Survey

COPIED = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "*.py",  # a model of its own code
)


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a merge learned about its inputs."""

    experts: Sequence[str]
    anchored: bool
    """Task vectors run from the anchor; otherwise from the experts' mean."""
    survey: Survey
    hashes: Mapping[str, str]
    """Model → hash of its weights."""

    @property
    def metrics(self) -> dict[str, float]:
        """One number per key: per expert, per pair of experts, and of all."""
        found: dict[str, float] = {"sign_conflict": self.survey.conflicts / self.survey.size}
        for index, name in enumerate(self.experts):
            found[f"norm/{name}"] = float(self.survey.norms_E[index])
            found[f"changed/{name}"] = float(self.survey.changed_E[index]) / self.survey.size
            if self.survey.base > 0:
                found[f"relative/{name}"] = float(self.survey.norms_E[index]) / self.survey.base**0.5
            for other, second in enumerate(self.experts[:index]):
                found[f"cosine/{second}/{name}"] = float(self.survey.cosines_EE[index, other])
        return found

    @property
    def warnings(self) -> list[str]:
        """What is allowed, and yet seldom meant."""
        far = [name for name in self.experts if self.metrics.get(f"relative/{name}", 0.0) > 0.1]
        return [f"Expert '{name}' lies unusually far from the base: is it a relative of it?" for name in far]


def write_config(config: Mapping[str, Any], folder: Path, dtype: torch.dtype) -> None:
    """``config.json`` with the type that the weights have now, under the key that the original uses."""
    name = str(dtype).removeprefix("torch.")
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    text = json.dumps({**config, **dict.fromkeys(keys, name)}, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def copy_companions(source: Path, folder: Path) -> None:
    """Tokenizer, chat template and generation settings."""
    for pattern in COPIED:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)


def write_card(folder: Path, recipe: Mapping[str, Any], reference: str, found: Diagnostics) -> None:
    """``README.md`` in the model hub's form.

    Args:
        folder: of the merged model.
        recipe: everything needed to merge again: ``merger``, ``base``, ``experts``, ``dtype``.
        reference: of the merger.
        found: hashes and diagnostics.
    """
    front = yaml.safe_dump({"library_name": "transformers", "tags": ["merge", "m2rl"]}, sort_keys=False)
    parts = [
        f"---\n{front}---\n",
        f"# Merged by {recipe['merger']['use']}\n",
        f"Made with m2rl {version('m2rl-core')}. Method: {reference}.\n",
        f"## Recipe\n\n```yaml\n{yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)}```\n",
        "## Inputs\n\n" + _table(["model", "sha256 of the weights"], list(found.hashes.items())),
        f"## Task vectors\n\nFrom {'the base' if found.anchored else 'the mean of the experts'}. Weights that some "
        f"experts raise and others lower: {found.survey.conflicts / found.survey.size:.1%}.\n\n" + _vectors(found),
        *(f"> {line}\n" for line in found.warnings),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _vectors(found: Diagnostics) -> str:
    """Length, share of changed weights and cosines of the experts, one row each."""
    metrics, cosines_EE = found.metrics, found.survey.cosines_EE
    rows = [
        [
            name,
            f"{metrics[f'norm/{name}']:.6g}",
            f"{metrics[f'relative/{name}']:.3%}" if f"relative/{name}" in metrics else "–",
            f"{metrics[f'changed/{name}']:.1%}",
            *(f"{cosine:.4f}" for cosine in cosines_EE[index]),
        ]
        for index, name in enumerate(found.experts)
    ]
    return _table(
        ["expert", "length", "of the base's", "changed", *(f"cosine to {name}" for name in found.experts)], rows
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
