"""Do these models belong together? Everything that can be told before the weights are merged.

Other tools pass over most of this in silence and write a model that loads and is wrong: extra tensors, another rotary
base, another tokenizer, tied beside untied embeddings, an expert that never left its anchor.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from m2rl_core.errors import DataError
from m2rl_core.weights import LEAF, Checkpoint

HEAD = "lm_head.weight"
_FREE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"}
"""Fields of config.json that say nothing about the function that the weights compute."""
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_TIED = "tie_word_embeddings"


@dataclass(slots=True)
class Model:
    """An open input of a merge."""

    label: str
    """``the base`` or ``expert 'math'``."""
    checkpoint: Checkpoint
    config: Mapping[str, Any]
    names: list[str] = field(init=False)
    """Tensors in file order, without an output layer that only repeats the embeddings."""

    def __post_init__(self) -> None:
        self.names = list(self.checkpoint.tensors)
        if self.config.get(_TIED) and HEAD in self.names:
            if not self.head_repeats_embeddings():
                raise DataError(
                    f"{self.label}: its config ties the embeddings, but tensor '{HEAD}' differs from them",
                    found=self.checkpoint.folder,
                    then=f"set {_TIED} to false in its config.json, or remove the tensor",
                )
            self.names.remove(HEAD)

    def head_repeats_embeddings(self) -> bool:
        """Whether the stored output layer equals the input embeddings: a tensor of its shape with its values."""
        shape = self.checkpoint.tensors[HEAD].shape
        others = [t.name for t in self.checkpoint.tensors.values() if t.shape == shape and t.name != HEAD]
        return any(_equal(self.checkpoint, HEAD, self.checkpoint, other) for other in others)


@contextmanager
def opened(folders: Mapping[str, Path]) -> Iterator[list[Model]]:
    """Model folders by label, open for a while.

    Raises:
        DataError: no safetensors, no configuration, or tied embeddings that differ.
    """
    with ExitStack() as stack:
        yield [
            Model(label, stack.enter_context(_checkpoint(label, folder)), _read_json(folder / "config.json", label))
            for label, folder in folders.items()
        ]


def _checkpoint(label: str, folder: Path) -> Checkpoint:
    """The weights in ``folder``; a complaint about them says whose they are."""
    try:
        return Checkpoint.open(folder)
    except DataError as error:
        raise DataError(f"{label}: {error}") from error


def agree(anchor: Model, models: Sequence[Model]) -> None:
    """Refuse models that do not share the anchor's function, tensors and tokens.

    Raises:
        DataError: naming the model, the tensor or field, and both values.
    """
    for model in models:
        _same_function(anchor, model)
        _same_tensors(anchor, model)
        _same_tokens(anchor, model)


def distinct(models: Sequence[Model], trained: Collection[str] = ()) -> list[str]:
    """Refuse two models with the same weights, as an expert beside its own anchor; stops reading where they differ.

    Args:
        trained: labels of experts whose training is known. That it moved nothing, as where no group had a signal, is a
            result and no mistake: such an expert is told of, and its task vector is zero.

    Returns:
        A sentence for each expert that is told of.

    Raises:
        DataError: naming both.
    """
    told: dict[str, str] = {}
    for left, right in combinations(models, 2):
        if left.label in told or not _same_weights(left, right):
            continue
        if right.label not in trained or (left is not models[0] and left.label not in trained):
            raise DataError(
                f"{right.label} has the same weights as {left.label}: it would count twice, or for nothing",
                found=f"{right.checkpoint.folder} and {left.checkpoint.folder}",
                then="name another checkpoint, or leave it out",
            )
        told[right.label] = f"Training moved no weight: {right.label} equals {left.label}."
    return list(told.values())


def _same_weights(left: Model, right: Model) -> bool:
    return all(_equal(left.checkpoint, name, right.checkpoint, name) for name in left.names)


# ── function ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _same_function(anchor: Model, model: Model) -> None:
    written = _differences(anchor.config, model.config)
    if not written:
        return
    ours, theirs = _normalised(anchor), _normalised(model)  # two versions of transformers may write one thing twice
    differences = _differences(ours, theirs) if ours and theirs else written
    if differences:
        key = next((key for key in differences if key in written), next(iter(differences)))
        mine, other = differences[key]
        raise DataError(
            f"{model.label} computes another function than {anchor.label}: their config.json differ in '{key}'",
            found=f"{other!r}, against {mine!r}",
            then="merge checkpoints of one architecture",
        )


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field → both values, where they differ."""
    fields = sorted({*ours, *theirs} - _FREE - {*_SPECIAL, _TIED})
    return {key: (ours.get(key), theirs.get(key)) for key in fields if ours.get(key) != theirs.get(key)}


def _normalised(model: Model) -> dict[str, Any]:
    """The configuration as this version of transformers understands it; empty where it does not: a merge runs no code
    of a model."""
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.from_pretrained(
            model.checkpoint.folder, trust_remote_code=False, local_files_only=True
        ).to_dict()
    except Exception:  # a model type of someone's own code, or a field of a type that only some version refuses
        return {}
    return found


# ── tensors ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _same_tensors(anchor: Model, model: Model) -> None:
    tied = [each.config[_TIED] for each in (model, anchor) if each.config.get(_TIED) is not None]
    if HEAD in model.names and HEAD not in anchor.names and model.head_repeats_embeddings():
        model.names.remove(HEAD)
    elif (HEAD in model.names) != (HEAD in anchor.names) or any(each != tied[0] for each in tied):
        raise DataError(
            f"{model.label} and {anchor.label}: one ties its output layer to the embeddings, the other has a '{HEAD}'",
            found=f"{model.checkpoint.folder} and {anchor.checkpoint.folder}",
            then="merge models that are all tied, or all untied",
        )
    ours, theirs = set(anchor.names), set(model.names)
    for missing, lacking, having in ((ours - theirs, model, anchor), (theirs - ours, anchor, model)):
        if missing:
            raise DataError(
                f"{lacking.label} lacks tensor '{min(missing)}' of {having.label}",
                found=f"{len(missing)} such",
                then="merge checkpoints of one architecture",
            )
    for name in anchor.names:
        wanted, found = anchor.checkpoint.tensors[name].shape, model.checkpoint.tensors[name].shape
        if wanted != found:
            raise DataError(
                f"{model.label}: tensor '{name}' has another shape than in {anchor.label}",
                found=list(found),
                allowed=str(list(wanted)),
                then="give all models as many rows, e.g. with resize_token_embeddings() of transformers"
                if wanted[1:] == found[1:]
                else "",
            )


def _equal(left: Checkpoint, left_name: str, right: Checkpoint, right_name: str) -> bool:
    """Whether two tensors hold the same numbers; reads only up to the first difference."""
    mine, other = left.tensors[left_name], right.tensors[right_name]
    for offset in range(0, mine.size, LEAF):
        count = min(LEAF, mine.size - offset)
        a, b = torch.empty(count, dtype=mine.dtype), torch.empty(count, dtype=other.dtype)
        left.read(left_name, offset, a)
        right.read(right_name, offset, b)
        if not torch.equal(a.float(), b.float()):
            return False
    return True


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _same_tokens(anchor: Model, model: Model) -> None:
    ours, theirs = anchor.checkpoint.folder, model.checkpoint.folder
    if not _same_tokenizer(anchor, model):
        raise DataError(
            f"{model.label} has another tokenizer than {anchor.label}",
            found=f"{theirs}, against {ours}",
            then="merge models that share a tokenizer",
        )
    mine, other = _special_tokens(anchor), _special_tokens(model)
    for name in sorted(mine.keys() & other.keys()):
        if mine[name] != other[name]:
            raise DataError(
                f"{model.label} has another special token than {anchor.label}: '{name}'",
                found=f"{other[name]!r}, against {mine[name]!r}",
                then="make their config.json and tokenizer_config.json agree",
            )


def _same_tokenizer(anchor: Model, model: Model) -> bool:
    """Whether text becomes the same tokens, however the files spell it; no tokenizer agrees with any."""
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model"):
        one, other = anchor.checkpoint.folder / name, model.checkpoint.folder / name
        if not (one.exists() and other.exists()) or _same_bytes(one, other, model.label):
            continue
        if name != "tokenizer.json" or _tokenization(one, anchor.label) != _tokenization(other, model.label):
            return False
    return True


def _same_bytes(one: Path, other: Path, label: str) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError as error:
        raise _unreadable(label, Path(error.filename), error) from error


def _tokenization(file: Path, label: str) -> list[Any]:
    """What ``tokenizer.json`` says of how text becomes tokens."""
    found = _read_json(file, label)
    model = found.get("model") or {}
    if not isinstance(model, dict) or not isinstance(model.get("merges") or [], list):
        raise DataError(f"{label}: {file} describes no tokenizer", found=f"model: {str(model)[:80]}")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or ()]
    parts = [found.get(part) for part in ("added_tokens", "normalizer", "pre_tokenizer")]
    return [*parts, model.get("vocab"), merges]


def _special_tokens(model: Model) -> dict[str, Any]:
    """Special tokens that the model's files set, by name."""
    file = model.checkpoint.folder / "tokenizer_config.json"
    tokens = _read_json(file, model.label) if file.exists() else {}
    texts = {name: tokens.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    plain = {name: token.get("content") if isinstance(token, dict) else token for name, token in texts.items()}
    ids = {name: model.config.get(name) for name in _SPECIAL}
    return {name: value for name, value in {**plain, **ids}.items() if value is not None}


def _read_json(file: Path, label: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{label} has no {file.name}", found=file.parent) from error
    except OSError as error:
        raise _unreadable(label, file, error) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{label}: {file} is no JSON", found=error) from error
    if not isinstance(found, dict):
        raise DataError(f"{label}: {file} is no JSON object", found=type(found).__name__)
    return found


def _unreadable(label: str, file: Path, error: OSError) -> DataError:
    return DataError(f"{label}: {file} cannot be read", found=error.strerror, then="mend or copy it again")
