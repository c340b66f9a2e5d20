"""From model folders to model folders, whole or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from m2rl_core.config import check_experts
from m2rl_core.errors import ConfigError, RunError
from m2rl_core.files import atomic_folder, place_for
from m2rl_core.interfaces import Merger
from m2rl_core.merge import card, checks
from m2rl_core.merge.evidence import need_evidence, opened_evidence
from m2rl_core.merge.job import Job
from m2rl_core.merge.parts import Parted, check_parts, shares
from m2rl_core.merge.stream import Report


def merge_models(
    merger: Merger,
    *,
    base: Path | None,
    experts: Mapping[str, Path],
    out: Path | Mapping[str, Path],
    dtype: str | None = None,
    parts: Sequence[Parted] = (),
    threads: int = 1,
    report: Report | None = None,
    evidence: Mapping[str, Path] | None = None,
) -> card.Diagnostics:
    """Merge model folders into new ones, which appear whole or not at all.

    Args:
        merger: how.
        base: the anchor: its configuration and tokenizer are the result's, and diagnostics start from it, also where
            the merger does not need it. Without one, the first expert's are, and there are fewer diagnostics.
        experts: by name; names are for messages and the card.
        out: the new folder; for a merger of several outputs, one per name.
        dtype: of the result, as in ``torch``; ``None`` keeps each tensor's type in the anchor.
        parts: other mergers for some tensors; the first that names a tensor merges it.
        threads: work on so many blocks at once. The result does not depend on it.
        report: is told the bytes read so far, and those to be read in all.
        evidence: what the merger ``needs`` beyond weights: expert → a folder that
            :func:`m2rl_core.merge.gather.gather_evidence` has made.

    Raises:
        ConfigError: the merger does not fit what it is given, or needs evidence that it is not given.
        DataError: models that do not belong together, or a weight that is no finite number.
        RunError: an output folder that is not empty or lies within an input, or too small a disk.
        StageError: the merger's own code failed.
    """
    folders = {"": out} if isinstance(out, Path) else dict(out)
    if set(folders) != set(merger.outputs()):
        raise ConfigError(
            f"merger '{merger.name}' has other outputs than folders were named for",
            found=", ".join(map(repr, folders)),
            allowed=", ".join(map(repr, merger.outputs())),
        )
    inputs = [*experts.values(), *([] if base is None else [base])]
    for folder in folders.values():
        _check_place(folder, inputs)
    with prepared(merger, base, experts, dtype, threads, report, evidence, parts) as job, ExitStack() as stack:
        for folder in folders.values():
            job.need_room(folder)
            stack.enter_context(_new_parents_go(folder))
        return job.write({name: stack.enter_context(atomic_folder(folder)) for name, folder in folders.items()})


def _check_place(folder: Path, inputs: Sequence[Path]) -> None:
    """Refuse a result over something, and one within a model, which would then be another than it was."""
    with place_for(folder):
        taken = folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
    if taken:
        raise RunError(f"{folder} exists already", then="name a new folder, or remove it")
    if within := [each for each in inputs if each.resolve() in folder.resolve().parents]:
        raise RunError(f"{folder} lies within a model that is merged", found=within[0], then="name a folder elsewhere")


@contextmanager
def _new_parents_go(folder: Path) -> Iterator[None]:
    """Where the block fails, remove the folders above ``folder`` that were not there before it."""
    missing = [parent for parent in folder.absolute().parents if not parent.exists()]
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody else may have put something there
            for parent in missing:
                parent.rmdir()
        raise


@contextmanager
def prepared(
    merger: Merger,
    base: Path | None,
    experts: Mapping[str, Path],
    dtype: str | None,
    threads: int,
    report: Report | None,
    evidence: Mapping[str, Path] | None = None,
    parts: Sequence[Parted] = (),
    trained: Collection[str] = (),
    called: Mapping[Path, str] | None = None,
) -> Iterator[Job]:
    """A merge whose inputs are open and have passed every check that comes before the stream; see merge_models.

    Args:
        trained: experts whose training is known, and which may have been moved by nothing.
        called: what the recipe on the card calls a folder, where that is not its path.
    """
    if not experts:
        raise ConfigError(f"merger '{merger.name}' was given no experts")
    if base is not None and "base" in experts:
        raise ConfigError("an expert cannot be called 'base' beside a base", then="name it otherwise")
    for each in (merger, *(part.merger for part in parts)):
        _check(each, base, list(experts))
    check_parts(merger, parts)
    need_evidence(merger, experts, evidence)
    folders = {f"expert '{name}'": folder for name, folder in experts.items()}
    with checks.opened(folders if base is None else {"the base": base, **folders}) as models:
        checks.agree(models[0], models[1:])
        unmoved = checks.distinct(models, [f"expert '{name}'" for name in trained])
        kind = None if dtype is None else getattr(torch, dtype)
        named = dict(zip(experts, models[-len(experts) :], strict=True))
        with opened_evidence(merger, evidence, named, models[0].names) as seen:
            made_by = shares(merger, parts, models[0])
            yield Job(made_by, base, experts, models, kind, threads, report, seen, unmoved, called or {})


def _check(merger: Merger, base: Path | None, experts: Sequence[str]) -> None:
    """Refuse a merger that does not fit what it is given, before anything is opened."""
    check_experts(merger, experts, f"merger '{merger.name}'")
    if merger.needs_base and base is None:
        raise ConfigError(f"merger '{merger.name}' needs a base", then="name the model that the experts started from")
