"""The keys of mergekit's recipe files, and what a setting comes to at one tensor.

Form and meaning: https://github.com/arcee-ai/mergekit (0.1.5). A setting is a number, or a *gradient*, which is a list
of numbers laid out evenly over the layers and interpolated, or a list of these with ``filter``, of which the first
holds whose text is part of the tensor's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from m2rl_core.config import Section
from m2rl_core.validation import Keys

__all__ = ["Depths", "MergekitFile", "Rule", "Settings", "value_at", "varies"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a setting."""

    filter: str | None
    values: tuple[float, ...]
    """One number, or those of a gradient; true and false are 1 and 0."""

    def holds(self, tensor: str) -> bool:
        return self.filter in {None, "*"} or str(self.filter) in tensor

    def at(self, depth: float) -> float:
        """The number at ``depth``, from 0 at the first layer to 1 at the last."""
        place = depth * (len(self.values) - 1)
        low = min(int(place), len(self.values) - 1)
        high = min(low + 1, len(self.values) - 1)
        share = place - low
        return (1 - share) * self.values[low] + share * self.values[high]


def _number(value: object) -> float:
    if isinstance(value, bool | int | float | str):
        try:
            return float(value)
        except ValueError:
            pass
    raise ValueError("should be a number, a list of numbers, or {value: ..., filter: ...} once or in a list")


def _rule(value: object) -> Rule:
    name = None
    if isinstance(value, Mapping):
        if stray := sorted({str(key) for key in value} - {"value", "filter"}):
            raise ValueError(f"'{stray[0]}' is no key of a filtered setting: these are 'value' and 'filter'")
        name, value = value.get("filter"), value.get("value")
    values = value if isinstance(value, list) and value else [value]
    if len(values) > 1 and any(isinstance(each, bool) for each in values):
        raise ValueError("a gradient is of numbers")
    return Rule(None if name is None else str(name), tuple(map(_number, values)))


def _rules(value: object) -> tuple[Rule, ...]:
    filtered = isinstance(value, list) and any(isinstance(item, Mapping) for item in value)
    return tuple(map(_rule, value if filtered and isinstance(value, list) else [value]))


def _folder(value: object) -> object:
    """Only a folder: no hub id with its revision, and no LoRA, which mergekit writes ``MODEL+LORA``."""
    if isinstance(value, Mapping) or (isinstance(value, str) and "+" in value):
        raise ValueError("only a model's folder can be merged; merge a LoRA into its model and save that first")
    return value


Settings = dict[str, Annotated[tuple[Rule, ...], BeforeValidator(_rules)]]
Parameters = Annotated[Settings, BeforeValidator(lambda value: {} if value is None else value)]
Model = Annotated[str, BeforeValidator(_folder)]
Dtype = Literal["float32", "bfloat16", "float16"]


class Source(Section):
    """One model to merge."""

    model: Model
    parameters: Parameters = Field(default_factory=dict)
    layer_range: tuple[int, int] | None = None
    """Only in slices."""


class Slice(Section):
    """Layers of the result."""

    sources: list[Source] = Field(min_length=1)
    base_model: Model | None = None
    residual_weight: float | None = None
    parameters: Parameters = Field(default_factory=dict)


class Tokenizer(Section):
    """Of the result."""

    source: str = "base"
    tokens: Any = None
    pad_to_multiple_of: int | None = None


class MergekitFile(Section):
    """A whole file. What m2rl cannot do is a field all the same, so that it can be said why."""

    merge_method: str
    models: list[Source] = Field(default_factory=list)
    slices: list[Slice] = Field(default_factory=list)
    modules: Any = None
    base_model: Model | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: Dtype | None = None
    out_dtype: Dtype | None = None
    tokenizer_source: Model | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None

    @property
    def sources(self) -> list[tuple[Keys, Source]]:
        """The inputs with their places; those of the only slice, where there is one."""
        if self.slices:
            return [(("slices", 0, "sources", index), source) for index, source in enumerate(self.slices[0].sources)]
        return [(("models", index), source) for index, source in enumerate(self.models)]

    @property
    def base(self) -> tuple[Keys, str | None]:
        """The base with its place."""
        if self.slices and (own := self.slices[0].base_model):
            return ("slices", 0, "base_model"), own
        return ("base_model",), self.base_model

    @property
    def shared(self) -> list[tuple[Keys, Settings]]:
        """Settings for all inputs with their places; the first that says something is heard."""
        own: list[tuple[Keys, Settings]] = [(("slices", 0, "parameters"), each.parameters) for each in self.slices[:1]]
        return [*own, (("parameters",), self.parameters)]


def value_at(settings: Iterable[Settings], key: str, tensor: str, depth: float) -> float | None:
    """What ``key`` comes to at a tensor; the first of ``settings`` that says something is heard."""
    for each in settings:
        for rule in each.get(key, ()):
            if rule.holds(tensor):
                return rule.at(depth)
    return None


def varies(settings: Iterable[Settings]) -> bool:
    """Whether any setting depends on the tensor."""
    rules = [rule for each in settings for found in each.values() for rule in found]
    return any(rule.filter not in {None, "*"} or len(rule.values) > 1 for rule in rules)


class Depths:
    """How deep in the model each tensor lies: 0 at the first layer, 1 at the last.

    Told from the names, as in ``model.layers.7.mlp.up_proj.weight``: the first number is that of the layer. What is no
    part of a layer counts as the first, before all layers or behind them.
    """

    def __init__(self, tensors: Sequence[str]) -> None:
        self.layers = 1 + max((layer for name in tensors if (layer := _layer(name)) is not None), default=0)

    def of(self, tensor: str) -> float:
        layer = _layer(tensor)
        if layer is None:
            return 0.0
        return layer / (self.layers - 1) if self.layers > 1 else 1.0


def _layer(tensor: str) -> int | None:
    found = re.search(r"\.(\d+)\.", tensor)
    return int(found[1]) if found else None
