"""``kind: sft`` — supervised fine-tuning on demonstrations or on a blend, with the loss on what the assistant says."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from m2rl_core.blend import BLEND, Blend, is_materialised, materialised
from m2rl_core.chat import Chat
from m2rl_core.config import SftStage
from m2rl_core.errors import DataError
from m2rl_core.files import read_jsonl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.packing import pieces
from m2rl_core.policy import check_tokens, open_policy
from m2rl_core.rollout.diverged import batch_kept
from m2rl_core.rollout.records import from_record, workload
from m2rl_core.run import ROLLOUTS, StageRun, team
from m2rl_core.schedule import lr_at
from m2rl_core.seeding import derive
from m2rl_core.shares import counts
from m2rl_core.types import Batch, Conversation, Divergence, Prompt, Sample, Trajectory
from m2rl_core.weights import torch_threads

__all__ = ["NegativeLogLikelihood", "tokenised", "train_sft"]


def train_sft(run: StageRun[SftStage]) -> None:
    """Train ``run.stage.init`` on conversations; the result is the stage's checkpoint."""
    with torch_threads(run.stage.threads):
        _train(run)


def _train(run: StageRun[SftStage]) -> None:
    stage, start = run.stage, run.models[run.stage.init]
    updates = stage.updates
    chat = Chat.load(start, trust_remote_code=run.study.model.trust_remote_code)
    draw = _blended(run, chat) if stage.blend else _demonstrated(run, chat)
    policy = open_policy(run, start)
    loss = NegativeLogLikelihood(NegativeLogLikelihood.Config())
    for step in range(run.restore(policy), updates):
        with run.clock("train"):
            minibatch = draw(step)
            share_tokens(minibatch)
            with batch_kept(run, policy, minibatch, step):
                for batch in policy.pack(minibatch, stage.tokens_per_device):
                    policy.backward(batch, loss)
                policy.step(lr_at(stage, step, updates))
        tokens = sum(sample.length for sample in minibatch)
        cut = {"cut": sum(sample.finish == "length" for sample in minibatch)} if stage.blend else {}
        metrics = {"conversations": len(minibatch), "tokens": tokens, **cut, **policy.metrics()}
        run.log(step, metrics, workload=workload([], [], minibatch))
        run.checkpoint(step + 1, policy, every=stage.checkpoint_every)
    run.finish(policy.save)


Draw = Callable[[int], list[Sample]]
"""The minibatch of an update."""


def _demonstrated(run: StageRun[SftStage], chat: Chat) -> Draw:
    """From the domains' demonstrations, all of them tokenised at the start."""
    run.report(steps=run.stage.updates, text="tokenising demonstrations")
    samples = demonstrations(run, chat)
    return lambda step: [samples[i] for i in order(run.seed, len(samples), step, run.stage.batch)]


def _blended(run: StageRun[SftStage], chat: Chat) -> Draw:
    """From the blend, which one process writes and all read.

    Raises:
        DataError: it has fewer conversations than an epoch should have, or a source cannot be used.
    """
    stage, blend = run.stage, _written(run)
    if len(blend) < stage.conversations:
        raise DataError(
            f"the blend of '{run.name}' has too few conversations",
            found=f"{len(blend):,}",
            allowed=f"at least stages.{run.name}.conversations = {stage.conversations:,}",
            then="'m2rl blend STUDY' shows what each source gives",
        )
    run.report(steps=stage.updates)

    def draw(step: int) -> list[Sample]:
        shown = blend.batch(step, stage.batch, stage.conversations)
        return [_cut(tokenised(each, chat), stage.max_length) for each in shown]

    return draw


def _written(run: StageRun[SftStage]) -> Blend:
    """No barrier: writing takes hours, and collective calls run out of time."""
    folder, sources = run.folder / BLEND, run.stage.blend
    while not team.leads() and not is_materialised(folder, sources, run.seed):
        time.sleep(1.0)
    return materialised(folder, sources, run.seed, lambda text: run.report(text=text))


def _cut(sample: Sample, longest: int) -> Sample:
    """Its first tokens alone: one long conversation among millions must not stop the training."""
    if len(sample.ids_L) > longest:
        sample.finish = "length"
        for tokens_L in (sample.ids_L, sample.sampled_L, sample.logps_L, sample.versions_L):
            del tokens_L[longest:]
    return sample


class NegativeLogLikelihood:
    """−log p of every token that the assistant says."""

    name: ClassVar[str] = "nll"
    reference: ClassVar[str] = "maximum likelihood"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    separable = True
    vanishes = False
    needs: frozenset[str] = frozenset()
    divergence: Divergence | None = None

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        return -logps


def share_tokens(minibatch: Sequence[Sample]) -> None:
    """Every token that an assistant says counts the same: one over their number."""
    tokens = max(1, sum(sample.length for sample in minibatch))  # none, where all were cut before the first answer
    for sample in minibatch:
        sample.coef_L = torch.tensor(sample.sampled_L) / tokens


def order(seed: int, size: int, step: int, batch: int) -> list[int]:
    """Which demonstrations update ``step`` takes: every epoch is shuffled anew by a hash of (seed, epoch)."""
    epochs = range(step * batch // size, ((step + 1) * batch - 1) // size + 1)
    sequence: list[int] = []
    for epoch in epochs:
        part = list(range(size))
        random.Random(derive(seed, "sft", epoch)).shuffle(part)
        sequence += part
    begin = step * batch - epochs.start * size
    return sequence[begin : begin + batch]


def demonstrations(run: StageRun[SftStage], chat: Chat) -> list[Sample]:
    """The tokenised conversations of one epoch, each domain with its share; see ``SftStage.rollouts``.

    Raises:
        DataError: a domain without enough demonstrations, or a conversation that is too long.
    """
    stage = run.stage
    found: list[Sample] = []
    for name, count in counts(stage.domains, stage.conversations).items():
        if name in stage.rollouts:
            taken = right_samples(run, name, stage.rollouts[name], count)
        else:
            shown = islice(run.domain(name).demonstrations(), count)
            taken = [tokenised(replace(each, domain=name), chat) for each in shown]
        if len(taken) < count:
            raise DataError(
                f"domain '{name}' has too few demonstrations",
                found=len(taken),
                allowed=f"at least {count}",
                then=f"lower stages.{run.name}.conversations or the domain's share",
            )
        _check_lengths(taken, stage.max_length)
        found += taken
    return found


def right_samples(run: StageRun[SftStage], domain: str, stage: str, count: int) -> list[Sample]:
    """The latest ``count`` samples of ``domain`` that an rl stage has drawn and its verifier found right.

    What was sampled is what is learned, token for token; so the two models must share their tokens.

    Raises:
        DataError: they do not.
    """
    teacher = run.models[stage]
    who, trust = f"stages.{run.name}.rollouts.{domain}: '{stage}'", run.study.model.trust_remote_code
    check_tokens(run.models[run.stage.init], teacher, who, trust=trust)
    stored = read_jsonl(teacher.parent / ROLLOUTS)
    right = (record for record in stored if record["domain"] == domain and record["verdict"] == "right")
    return [from_record(record) for record in deque(right, maxlen=count)]


def _check_lengths(samples: Sequence[Sample], max_length: int) -> None:
    for sample in samples:
        if (length := max(piece.stop - piece.start for piece in pieces([sample]))) > max_length:
            where = f"conversation {sample.prompt.id} of '{sample.prompt.domain}'"
            raise DataError(f"{where} is too long", found=f"{length} tokens", allowed=f"max_length = {max_length}")


def tokenised(conversation: Conversation, chat: Chat) -> Sample:
    """A conversation as if the assistant's turns had been drawn."""
    ids, said = chat.conversation(conversation)
    prompt = Prompt(conversation.id, conversation.domain, conversation.messages)
    unsampled = [0.0] * len(ids)
    return Sample(prompt, 0, ids, said, unsampled, [-1] * len(ids), Trajectory(prompt, (), ""), "stop")
