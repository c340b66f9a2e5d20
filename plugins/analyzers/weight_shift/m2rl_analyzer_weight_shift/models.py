"""The base and the models beside it, open and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from m2rl_core.errors import DataError
from m2rl_core.weights import Checkpoint, Stored

_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Models:
    """Open checkpoints with the same tensors."""

    base: Checkpoint
    models: Mapping[str, Checkpoint]
    names: tuple[str, ...]
    """Tensors to read, in the base's file order."""

    @property
    def sources(self) -> list[Checkpoint]:
        """The base first."""
        return [self.base, *self.models.values()]

    def stored(self, name: str) -> list[Stored]:
        """A tensor in each of :attr:`sources`."""
        return [source.tensors[name] for source in self.sources]

    def dtypes(self, model: str) -> str:
        """The types of a model's weights, that of most weights first."""
        sizes: Counter[str] = Counter()
        for name in self.names:
            tensor = self.models[model].tensors[name]
            sizes[str(tensor.dtype).removeprefix("torch.")] += tensor.size
        return ", ".join(dtype for dtype, _ in sizes.most_common())

    @property
    def bytes(self) -> int:
        """Read by one visit to every weight."""
        return sum(tensor.bytes for name in self.names for tensor in self.stored(name))


@contextmanager
def opened(base: Path, models: Mapping[str, Path]) -> Iterator[Models]:
    """Checkpoints by name, open for a while.

    Raises:
        DataError: no safetensors, or tensors that are not the base's.
    """
    with ExitStack() as stack:
        anchor = stack.enter_context(Checkpoint.open(base))
        others = {name: stack.enter_context(Checkpoint.open(folder)) for name, folder in models.items()}
        for name, other in others.items():
            _check(anchor, name, other)
        everywhere = tuple(each for each in anchor.tensors if all(each in o.tensors for o in others.values()))
        yield Models(anchor, others, everywhere)


def _check(base: Checkpoint, name: str, model: Checkpoint) -> None:
    """An output layer that only one of the two stores repeats the embeddings, so it is no difference."""
    if stray := sorted((base.tensors.keys() ^ model.tensors.keys()) - {_HEAD}):
        raise DataError(
            f"model '{name}' and its base do not hold the same tensors",
            found=f"'{stray[0]}' in only one of {model.folder} and {base.folder}",
            then="name the model that it was trained from as the base",
        )
    for each in base.tensors.keys() & model.tensors.keys():
        ours, theirs = base.tensors[each].shape, model.tensors[each].shape
        if ours != theirs:
            raise DataError(
                f"model '{name}': tensor '{each}' has another shape than in its base",
                found=list(theirs),
                allowed=str(list(ours)),
            )
