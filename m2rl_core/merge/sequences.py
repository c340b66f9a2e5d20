"""Token sequences of an expert, for evidence: what its own stage has drawn, or conversations from a file."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

from m2rl_core.chat import Chat
from m2rl_core.config import EvidenceSection, MergeStage
from m2rl_core.errors import DataError
from m2rl_core.files import numbered_rows
from m2rl_core.merge.gather import gather_evidence
from m2rl_core.rollout.stored import latest_samples
from m2rl_core.run import StageRun
from m2rl_core.train_sft import tokenised
from m2rl_core.types import Conversation, Message, Sample

__all__ = ["conversations", "drawn", "of_expert", "stage_evidence"]


def stage_evidence(run: StageRun[MergeStage], given: EvidenceSection, kinds: frozenset[str]) -> dict[str, Path]:
    """Expert → folder of its evidence below the stage's own; gathered where an earlier attempt has not done so.

    Raises:
        DataError: as :func:`of_expert` and :func:`~m2rl_core.merge.gather.gather_evidence`.
    """
    found = {name: run.folder / "evidence" / name for name in run.stage.experts}
    held = run.study.model
    for name, folder in found.items():
        if not folder.exists():  # it appears whole or not at all
            with run.clock("score"):
                gather_evidence(
                    run.models[name],
                    of_expert(name, run.models[name], given, trust=held.trust_remote_code),
                    kinds,
                    folder,
                    tokens_per_device=given.tokens_per_device,
                    report=partial(_tell, run, name),
                    dtype=held.dtype,
                    checkpointing=held.activation_checkpointing,
                    trust_remote_code=held.trust_remote_code,
                )
    return found


def _tell(run: StageRun[MergeStage], name: str, kind: str, done: int, total: int) -> None:
    run.report(step=done, steps=total, text=f"{kind} of {name}")


def of_expert(name: str, model: Path, given: EvidenceSection, *, trust: bool = False) -> list[Sample]:
    """Sequences of the expert called ``name`` in a study; see :class:`~m2rl_core.config.EvidenceSection`.

    Args:
        trust: ``trust_remote_code`` of the study.

    Raises:
        DataError: too few, or none.
    """
    if name in given.conversations:
        chat = Chat.load(model, trust_remote_code=trust)
        return conversations(Path(given.conversations[name]), chat, given.samples)
    return drawn(model, given.samples)


def drawn(model: Path, count: int) -> list[Sample]:
    """A sample of each of the latest ``count`` prompts that an rl stage has drawn, in order; see
    :func:`~m2rl_core.rollout.stored.latest_samples`.

    All are the model's own words, for which the Fisher information is defined.

    Raises:
        DataError: there are none, or too few.
    """
    try:
        return latest_samples(model, count)[::-1]
    except DataError as error:
        raise DataError(str(error), then="lower samples, or give a file of conversations") from error


def conversations(file: Path, chat: Chat, count: int) -> list[Sample]:
    """The first ``count`` conversations of a file of ``{"messages": [{"role", "content"}, …], "tools": […]}``.

    Raises:
        DataError: a row without messages, with its line; too few rows; no such file.
    """
    if not file.is_file():
        raise DataError(f"there is no file of conversations {file}", allowed="JSON lines with 'messages'")
    rows = islice(numbered_rows(file, torn=False), count)
    return _enough([tokenised(_conversation(file, *row), chat) for row in rows], count, file)


def _conversation(file: Path, number: int, row: dict[str, object]) -> Conversation:
    place = f"{file}, line {number}"
    messages, tools = row.get("messages"), row.get("tools") or []
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise DataError(f"{place} holds no conversation", allowed="messages with role and content, in 'messages'")
    if not isinstance(tools, list):
        raise DataError(f"{place}: 'tools' is no list", found=type(tools).__name__)
    said = tuple(Message(role=each["role"], content=each["content"]) for each in messages)
    return Conversation(str(number), file.name, said, tuple(tools))


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _enough(samples: list[Sample], count: int, file: Path) -> list[Sample]:
    if len(samples) < count:
        raise DataError(
            f"{file} holds too few sequences", found=len(samples), allowed=f"at least {count}", then="lower samples"
        )
    return samples
