"""The card of a model that a study has made: ``README.md`` in the model hub's form, from which it could be made again.

It is a function of what the stage's key covers, of the study's name and of the versions: no time, and no path of the
machine, so that the same stage writes the same card. Local files are named with their hashes. Front matter as in
https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from m2rl_core.redaction import redacted

__all__ = ["CARD", "Made", "complete", "front_matter", "markdown_table", "published"]

CARD = "README.md"
_LIBRARIES = ("m2rl-core", "torch", "transformers", "tokenizers", "safetensors")
_FENCE = "---\n"
_TAGS = {"init": [], "sft": ["sft"], "rl": ["reinforcement-learning"], "merge": ["merge"]}
_SAID = {
    "init": "A fresh model with random weights and a tokenizer of its own, trained on nothing",
    "sft": "Trained by supervised fine-tuning",
    "rl": "Trained by reinforcement learning from verifiable rewards",
    "merge": "Merged from the weights of other models",
}
_KEYS = "A key is the SHA-256 of all that could change a stage's result: settings, code, data, keys of inputs."
_LOADING = """\
## How to load

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder{trusting})
model = AutoModelForCausalLM.from_pretrained(folder{trusting})
messages = [{{"role": "user", "content": "..."}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0]))
```

The licence is that of the model that it started from, as far as that has one.
"""


@dataclass(frozen=True, slots=True)
class Made:
    """How a model came about."""

    study: str
    stage: str
    kind: str
    key: str
    """Hash of all that could change the model; of its stage's end, also where it was kept before that."""
    covered: Mapping[str, Any] = field(default_factory=dict)
    """What the key is the hash of, see :mod:`m2rl_core.study.keys`."""
    step: int | None = None
    """Steps that had been done; ``None``: all of the stage's."""
    published: Sequence[str] = ()
    """Ids on the model hub of the models that it started from."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Distribution → version of the plugins that it was made with."""


def complete(folder: Path, made: Made) -> None:
    """Write the card of the model in ``folder``; what a merge has told there of itself stays its beginning."""
    file = folder / CARD
    front, body = _read(file)
    body = body or f"# {made.study}: {made.stage}\n"
    front = front_matter(made.published, [*_TAGS.get(made.kind, []), *_algorithm(made)], made.kind == "merge") | front
    parts = [_dumped(front), body, _origin(made), _settings(made), _versions(made.plugins), _loading(made)]
    file.write_text(redacted("\n".join(filter(None, parts))), encoding="utf-8")


def front_matter(published: Sequence[str], tags: Sequence[str], merged: bool = False) -> dict[str, Any]:
    """What the hub reads of a card.

    Args:
        published: ids on the hub of the models that it is made of.
        merged: it is of several models, instead of one that was trained on.
    """
    one_or_all: Any = published[0] if len(published) == 1 else list(published)
    relation = {"base_model": one_or_all, "base_model_relation": "merge" if merged else "finetune"}
    return {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        **(relation if published else {}),
        "tags": [*dict.fromkeys(tags), "m2rl"],
    }


def published(folder: Path) -> list[str]:
    """The hub's ids of the models that the one in ``folder`` started from, as its card says; none where it does not.

    A card is anyone's text: one that cannot be read says nothing, and stops no merge.
    """
    try:
        found = _read(folder / CARD)[0].get("base_model")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    ids = found if isinstance(found, list) else [found]
    return [each for each in ids if isinstance(each, str)]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One line per row, each with a line end."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _read(file: Path) -> tuple[dict[str, Any], str]:
    """(front matter, the rest) of a card; empty where there is none, or one without front matter."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    front, found, body = text.removeprefix(_FENCE).partition(f"\n{_FENCE}")
    if not (text.startswith(_FENCE) and found):
        return {}, text
    read = yaml.safe_load(front)
    return (read if isinstance(read, dict) else {}), body.lstrip("\n")


def _dumped(front: Mapping[str, Any]) -> str:
    return f"{_FENCE}{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True)}{_FENCE}"


def _algorithm(made: Made) -> list[str]:
    found = made.covered.get("components", {}).get("algorithm")
    return [found["use"]] if found else []


def _origin(made: Made) -> str:
    """Stage, study and inputs."""
    when = "" if made.step is None else f", as it was after {made.step} steps"
    lines = [f"{_SAID.get(made.kind, 'Made')}: stage `{made.stage}` of study `{made.study}`{when}."]
    rows = [[f"`{name}`", f"`{key}`"] for name, key in made.covered.get("inputs", {}).items()]
    rows += [["this stage", f"`{made.key}`"]] if made.key else []
    table = f"{markdown_table(['input', 'key'], rows)}\n{_KEYS}\n" if rows else ""
    return "\n".join(["## Where it comes from\n", *lines, "", table]).rstrip("\n") + "\n"


def _settings(made: Made) -> str:
    """Settings and data as blocks of YAML, those that change no result left out."""
    covered, parts = made.covered, made.covered.get("components", {})
    uses = {label: {"use": part["use"], **part["config"]} for label, part in parts.items()}
    settings = {name: covered[name] for name in ("seed", "config", "model") if name in covered}
    settings |= {label: use for label, use in uses.items() if not label.startswith("domain ")}
    data = {label.removeprefix("domain "): use for label, use in uses.items() if label.startswith("domain ")}
    for name, gate in covered.get("reasoning", {}).items():
        data[name] = {"reasoning": gate, **data[name]}
    return "\n".join(_yaml(title, tree) for title, tree in (("Settings", settings), ("Data", data)) if tree)


def _yaml(title: str, tree: Mapping[str, Any]) -> str:
    return f"## {title}\n\n```yaml\n{yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True)}```\n"


def _versions(plugins: Mapping[str, str]) -> str:
    found = {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}, **plugins}
    return "## Versions\n\n" + markdown_table(["what", "version"], [[name, each] for name, each in found.items()])


def _loading(made: Made) -> str:
    trusts = made.covered.get("model", {}).get("trust_remote_code", False)
    return _LOADING.format(trusting=", trust_remote_code=True" if trusts else "")
