"""What a file of mergekit's may say and m2rl does not do, told from the file alone."""

from __future__ import annotations

from collections.abc import Iterator

from m2rl_core.errors import nearest
from m2rl_core.merge.mergekit.file import MergekitFile
from m2rl_core.merge.mergekit.methods import ELSEWHERE, METHODS
from m2rl_core.validation import Keys, Problem

__all__ = ["unsupported"]

_STACKED = "layers of several models cannot be stacked here: name all layers of all models once, or use 'models'"


def unsupported(read: MergekitFile) -> list[Problem]:
    """Everything that is refused, whatever the models are."""
    return [Problem(keys, text) for keys, text in (*_method(read), *_inputs(read), *_files(read))]


def _method(read: MergekitFile) -> Iterator[tuple[Keys, str]]:
    name = read.merge_method
    if name not in METHODS:
        known = "not read by m2rl." if name in ELSEWHERE else f"not known.{nearest(name, METHODS)}"
        yield ("merge_method",), f"'{name}' is {known} Allowed: {', '.join(METHODS)}."
    elif METHODS[name].base != "optional" and read.base[1] is None:
        yield ("base_model",), f"this key is required: {name} needs a base."


def _inputs(read: MergekitFile) -> Iterator[tuple[Keys, str]]:
    if read.modules is not None:
        yield ("modules",), "models of several modules are not merged module by module here; use 'models'."
    elif bool(read.models) == bool(read.slices):
        yield ("models",), "name the inputs under 'models', or under 'slices', and not under both."
    for index, source in enumerate(read.models):
        if source.layer_range is not None:
            yield ("models", index, "layer_range"), "belongs under 'slices'; 'models' are merged whole."
    for index, each in enumerate(read.slices):
        if index:
            yield ("slices", index), f"{_STACKED}."
        if each.residual_weight is not None:
            yield ("slices", index, "residual_weight"), "is not offered."
        for place, source in enumerate(each.sources):
            if source.layer_range is None:
                yield ("slices", index, "sources", place, "layer_range"), "this key is required."


def _files(read: MergekitFile) -> Iterator[tuple[Keys, str]]:
    if read.chat_template is not None:
        yield ("chat_template",), "the base's template is the result's; change it there."
    if read.tokenizer is not None and read.tokenizer_source is not None:
        yield ("tokenizer_source",), "is said twice: 'tokenizer' is there too."
    for key in ("tokens", "pad_to_multiple_of"):
        if read.tokenizer is not None and getattr(read.tokenizer, key) is not None:
            yield ("tokenizer", key), "the base's vocabulary is the result's; resize all models before they are merged."
