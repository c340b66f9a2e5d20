"""What the reader of mergekit's recipe should know, although nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from m2rl_core.merge.mergekit.file import MergekitFile
from m2rl_core.merge.mergekit.methods import METHODS

__all__ = ["notes"]


def notes(read: MergekitFile) -> list[str]:
    """One sentence each."""
    return [*_settings(read), *_numbers(read), *_files(read)]


def _settings(read: MergekitFile) -> Iterator[str]:
    method = METHODS[read.merge_method]
    said = [key for _, settings in read.shared for key in settings]
    for _, source in read.sources:
        if method.base == "anchor" and source.model == read.base[1]:
            if source.parameters:
                yield f"Parameters of the base ({', '.join(source.parameters)}) mean nothing, here as in mergekit."
        else:
            said += source.parameters
    for key in dict.fromkeys(said):
        if key in method.silent:
            yield f"'{key}' is ignored: {method.silent[key]}."


def _numbers(read: MergekitFile) -> Iterator[str]:
    if read.dtype not in {None, "float32"}:
        yield f"mergekit computes in {read.dtype}; here it is float32, rounded once at the end."
    if METHODS[read.merge_method].random:
        yield "What is dropped at random has mergekit's probabilities, but other draws: they come from a seed of ours."


def _files(read: MergekitFile) -> Iterator[str]:
    if read.base[1] is None:
        yield "Without base_model, configuration and tokenizer are those of the first model."
    if read.tokenizer_source is not None or read.tokenizer is not None:
        yield "All models must have one tokenizer, which is the result's; padded rows of the embeddings are kept."
