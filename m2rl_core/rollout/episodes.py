"""Sampling and verifying episodes: from prompts to groups of samples.

One :class:`Sampler` owns the event-loop thread on which the engine, the environments and the verifiers meet. Every
context that is sampled from is a prefix of what is trained on: a multi-turn episode grows one list of token ids (or one
per turn, where the environment drops earlier reasoning).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from m2rl_core.chat import Chat
from m2rl_core.errors import M2rlError
from m2rl_core.interfaces import Domain, Engine, Episode, SingleTurn
from m2rl_core.redaction import redacted
from m2rl_core.rollout.judging import gated
from m2rl_core.rollout.records import TROUBLE
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.run import StageRun, team
from m2rl_core.seeding import derive
from m2rl_core.types import Finish, Group, Message, Prompt, Reasoning, Reward, Sample, Sampling, Trajectory, Turn

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sampler", "open_sampler", "sampler_for"]

T = TypeVar("T")


class Sampler:
    """An engine with the domains' environments and verifiers around it.

    Args:
        engine: draws tokens; started here with ``model``.
        chat: the model's tokenizer and chat template.
        domains: by the name that prompts carry.
        pool: verifies.
        model: Hugging Face folder of the first weights.
        context: longest context [tokens].
        reasoning: format gate per domain.
        charge: told what verification costs, as (``verify/DOMAIN``, seconds in the verifier), and how long domains
            wait for the slowest, as (``wait/DOMAIN``, seconds).
        trust_remote_code: the model's folder may run its own code.
    """

    def __init__(
        self,
        engine: Engine,
        chat: Chat,
        domains: Mapping[str, Domain],
        pool: VerifierPool,
        *,
        model: Path,
        context: int,
        reasoning: Mapping[str, Reasoning],
        charge: Callable[[str, float], None] = lambda kind, seconds: None,
        trust_remote_code: bool = False,
    ) -> None:
        self.engine, self.chat, self.domains, self.pool = engine, chat, domains, pool
        self.reasoning, self.charge = reasoning, charge
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="m2rl-rollout", daemon=True)
        self._thread.start()
        self._run(engine.start(model, max_tokens=context, trust_remote_code=trust_remote_code))

    def _run(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.engine.close())
        self.pool.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def load_weights(self, tensors: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Give the engine the policy's weights."""
        self._run(self.engine.load_weights(tensors, version))

    def rollout(self, prompts_P: Sequence[Prompt], sampling: Sampling, n: int) -> list[Group]:
        """``n`` verified samples of every prompt, in the order of the prompts. Collective.

        Noise depends on (``sampling.seed``, prompt, how often it occurred before in this call, sample, position), so
        that it is the same however many processes share the prompts; each draws its own, and all get all groups.
        """
        seen: dict[tuple[str, str], int] = {}
        asked = []
        for prompt in prompts_P:
            key = prompt.domain, prompt.id
            seen[key] = seen.get(key, -1) + 1
            asked.append((prompt, replace(sampling, seed=derive(sampling.seed, *key, seen[key]))))

        async def own_share() -> list[Group]:
            mine = asked[team.rank() :: team.ranks()]  # prompts come domain by domain: each rank gets some of each
            ended: dict[str, float] = {}
            done = list(await asyncio.gather(*(self._timed(ended, prompt, each, n) for prompt, each in mine)))
            self._charge_waits(ended)
            await self.engine.rest()
            return done

        shares = team.gathered(self._run(own_share()))
        return [shares[i % len(shares)][i // len(shares)] for i in range(len(asked))]

    async def _timed(self, ended: dict[str, float], prompt: Prompt, sampling: Sampling, n: int) -> Group:
        """A group; when the last one of its domain was there goes into ``ended``."""
        group = await self._group(prompt, sampling, n)
        ended[prompt.domain] = time.perf_counter()
        return group

    def _charge_waits(self, ended: Mapping[str, float]) -> None:
        """How long each of several domains has waited for the slowest."""
        if len(ended) > 1:
            last = max(ended.values())
            for domain, at in ended.items():
                self.charge(f"wait/{domain}", last - at)

    async def _group(self, prompt: Prompt, sampling: Sampling, n: int) -> Group:
        """All samples share the prefill of the prompt; from then on each goes its own way."""
        ids = self.chat.encode(prompt.messages, prompt.tools)
        turns = await self.engine.generate(ids, replace(sampling, stop_ids=self.chat.stop_ids), n)
        samples = await asyncio.gather(*(self._episode(prompt, i, ids, turn, sampling) for i, turn in enumerate(turns)))
        return Group(prompt, list(samples))

    async def _episode(self, prompt: Prompt, index: int, ids: list[int], first: Turn, sampling: Sampling) -> Sample:
        """Play one episode to its end and verify it. A failing environment is a failed verdict, not a crash."""
        track = _Track(ids)
        said: list[Message] = []
        trouble = ""
        episode: Episode = SingleTurn()
        turn, finish = first, first.finish
        try:
            episode = self.domains[prompt.domain].open(prompt)
            for number in range(1, episode.max_turns + 1):
                track.sampled(turn)
                finish = turn.finish
                said.append({"role": "assistant", "content": self.chat.decode(turn.ids)})
                if finish != "stop" or not (reply := await episode.reply(said[-1]["content"])):
                    break
                said += reply
                left = sampling.max_tokens - sum(track.sampled_L)
                if number == episode.max_turns or left <= 0:
                    finish = "length"  # cut off by a limit: verified as it stands
                    break
                if episode.history == "keep":
                    track.given(self.chat.continuation(reply))
                else:
                    track.restart(self.chat.encode([*prompt.messages, *_without_reasoning(said)], prompt.tools))
                # a context that begins anew repeats positions, and must not repeat their noise
                seed = sampling.seed if episode.history == "keep" else derive(sampling.seed, "turn", number)
                again = replace(sampling, stop_ids=self.chat.stop_ids, seed=seed, sample=index, max_tokens=left)
                [turn] = await self.engine.generate(track.context, again, 1)
        except M2rlError:
            raise  # the engine's or the user's: not this episode's
        except Exception as error:  # one bad rollout is data
            trouble = redacted(f"{TROUBLE}: {type(error).__name__}: {error}")
        finally:
            trouble = await _closed(episode) or trouble
        reward, trajectory = await self._judge(prompt, said, finish, trouble)
        return Sample(
            prompt=prompt,
            index=index,
            ids_L=track.ids_L,
            sampled_L=track.sampled_L,
            logps_L=track.logps_L,
            versions_L=track.versions_L,
            trajectory=trajectory,
            finish=finish,
            reward=reward,
            starts=track.starts,
        )

    async def _judge(
        self, prompt: Prompt, said: list[Message], finish: Finish, trouble: str
    ) -> tuple[Reward, Trajectory]:
        """The format gate, then the domain's verifier."""
        trajectory, refusal = gated(prompt, said, self.reasoning[prompt.domain], truncated=finish == "length")
        if trouble or finish == "abort":
            return Reward(None, trouble or "the engine gave up this sample"), trajectory
        if refusal:
            return Reward(0.0, refusal), trajectory
        verdict = await self.pool.verify(prompt.domain, trajectory)
        self.charge(f"verify/{prompt.domain}", verdict.seconds)
        return verdict.reward, trajectory


async def _closed(episode: Episode) -> str:
    """Close an episode; what went wrong, if anything did."""
    try:
        await episode.close()
    except Exception as error:
        return redacted(f"{TROUBLE} to close: {type(error).__name__}: {error}")
    return ""


def open_sampler(
    run: StageRun[Any], model: Path, domains: Iterable[str], reasoning: Mapping[str, Reasoning]
) -> Sampler:
    """A sampler for these domains of the study, on the study's engine, starting from ``model``."""
    built = {name: run.domain(name) for name in domains}
    specs = {name: Spec.of(d, run.study.domains[name], run.study.plugins) for name, d in built.items()}
    return sampler_for(run, model, built, specs, reasoning)


def sampler_for(
    run: StageRun[Any],
    model: Path,
    domains: Mapping[str, Domain],
    specs: Mapping[str, Spec],
    reasoning: Mapping[str, Reasoning],
) -> Sampler:
    """A sampler for domains that may be none of the study's, and how their verifiers are built."""
    config = json.loads((model / "config.json").read_text())
    trust = run.study.model.trust_remote_code
    return Sampler(
        run.engine(),
        Chat.load(model, trust_remote_code=trust),
        domains,
        VerifierPool(specs),
        model=model,
        context=config["max_position_embeddings"],
        reasoning=reasoning,
        charge=run.charge,
        trust_remote_code=trust,
    )


def _without_reasoning(messages: Sequence[Message]) -> list[Message]:
    kept: list[Message] = []
    for message in messages:
        if message["role"] == "assistant":
            message = {**message, "content": message["content"].rpartition("</think>")[2].lstrip("\n")}
        kept.append(message)
    return kept


class _Track:
    """The token stream of one episode."""

    def __init__(self, ids: list[int]) -> None:
        self.ids_L, self.sampled_L, self.logps_L, self.versions_L = (
            list[int](),
            list[bool](),
            list[float](),
            list[int](),
        )
        self.starts: list[int] = []
        self.restart(ids)

    @property
    def context(self) -> list[int]:
        """What the next turn is sampled from."""
        return self.ids_L[self.starts[-1] :]

    def restart(self, ids: list[int]) -> None:
        self.starts.append(len(self.ids_L))
        self.given(ids)

    def given(self, ids: list[int]) -> None:
        self.ids_L += ids
        self.sampled_L += [False] * len(ids)
        self.logps_L += [0.0] * len(ids)
        self.versions_L += [-1] * len(ids)

    def sampled(self, turn: Turn) -> None:
        self.ids_L += turn.ids
        self.sampled_L += [True] * len(turn.ids)
        self.logps_L += turn.logps
        self.versions_L += turn.versions
