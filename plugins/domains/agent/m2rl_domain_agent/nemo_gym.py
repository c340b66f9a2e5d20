"""A NeMo-Gym resources server as the environment: it answers the calls and judges the outcome.

Its protocol is ``POST /seed_session``, ``POST /{tool}`` and ``POST /verify``, held together by a session cookie that
every reply may refresh. Trouble with the server is a failed verdict, never a reward of 0.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from pydantic import Field

from m2rl_core.http import Address
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Message, Prompt, Reward, Trajectory
from m2rl_domain_agent.calls import Call, CallError, calls
from m2rl_domain_agent.episodes import MAX_TURNS, turns_of
from m2rl_domain_agent.prompts import ROUTES, allowed
from m2rl_domain_agent.responses import row_of, verify_request
from m2rl_domain_agent.session import ServerError, Session

__all__ = ["Gym", "NemoGym"]

LARGEST_ARGUMENTS = 64_000
"""Characters of a call's arguments; a larger call is refused here and not sent."""
LARGEST_ANSWER = 64_000
"""Bytes of what a tool answers; what is larger is not shown to the model."""
KEPT = 8_192
"""Sessions of finished episodes that wait for their verdict."""

T = TypeVar("T")


class NemoGym(ComponentConfig):
    """Where the resources server is, and how it is asked."""

    use: Literal["nemo-gym"]
    url: Address
    """Of the server, e.g. ``http://localhost:12000``. Redirects are not followed."""
    timeout: float = Field(10.0, gt=0.0, le=20.0)
    """Seconds of one request, after which the episode or its verdict has failed."""
    parallel: int = Field(64, gt=0, le=1024)
    """Requests at the same time; others wait."""


class Gym:
    """The server, the threads that talk to it, and the sessions that wait for a verdict."""

    def __init__(self, config: NemoGym) -> None:
        self.config = config
        self._threads = ThreadPoolExecutor(config.parallel, thread_name_prefix="nemo-gym")
        self._kept: OrderedDict[tuple[str, ...], Session] = OrderedDict()

    def open(self, prompt: Prompt, history: Literal["keep", "drop"]) -> GymEpisode:
        return GymEpisode(self, prompt, history)

    async def seeded(self, prompt: Prompt) -> Session:
        """A new session for ``prompt``. Tried again after a failure: at worst the server keeps an unused one."""
        session = Session(self.config.url, self.config.timeout)
        await self.run(lambda: session.post("seed_session", row_of(prompt), attempts=3))
        return session

    async def answer(self, session: Session, prompt: Prompt, call: Call) -> str:
        """What the server says to a call, as text; never tried again once it may have been carried out.

        Raises:
            ServerError: no usable reply.
        """
        name = call.name[:80]
        if not offered(prompt, call):
            return _said(f"Error executing tool '{name}': unknown tool")
        if _too_large(call):
            return _said(f"Error executing tool '{name}': the arguments are too long")
        reply = await self.run(lambda: session.post(call.name, dict(call.arguments), also=(422,)))
        if len(reply.body) > LARGEST_ANSWER:
            return _said(f"Error: {len(reply.body):,} bytes found. Narrow the search.")
        return reply.body.decode()

    async def replayed(self, prompt: Prompt, made: Sequence[Call]) -> tuple[Session, str]:
        """A new session in which the calls ``made`` have been carried out, and the answer to the last of them."""
        session, answer = await self.seeded(prompt), ""
        for call in made:
            answer = await self.answer(session, prompt, call)
        return session, answer

    async def verify(self, trajectory: Trajectory) -> Reward:
        """The server's verdict, in the episode's own session or, where that is gone, in a new one after a replay."""
        prompt = trajectory.prompt
        try:
            turns = turns_of(trajectory.messages)
        except CallError as error:
            return Reward(0.0, f"malformed call: {error}")
        session = self._kept.pop(_key(prompt, trajectory.messages), None)
        if session is None:
            session, _ = await self.replayed(prompt, [call for _, made in turns for call in made])
        answers = [message["content"] for message in trajectory.messages if message["role"] == "tool"]
        body = verify_request(prompt, turns, answers, lambda call: _is_sent(prompt, call))
        reply = await self.run(lambda: session.post("verify", body))
        return _verdict(reply.value.get("reward"))

    def keep(self, prompt: Prompt, said: Sequence[Message], session: Session) -> None:
        """Hold a finished episode's session for its verdict."""
        self._kept[_key(prompt, said)] = session
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class GymEpisode:
    """An episode whose calls a resources server answers.

    Its session begins with the first call, and anew, with all calls made again, where a restarted server has lost it.
    """

    max_turns = MAX_TURNS

    def __init__(self, gym: Gym, prompt: Prompt, history: Literal["keep", "drop"]) -> None:
        self.history: Literal["keep", "drop"] = history
        self._gym, self._prompt = gym, prompt
        self._session: Session | None = None
        self._made: list[Call] = []
        self._said: list[Message] = []

    async def reply(self, text: str) -> list[Message]:
        try:
            made = calls(text)
        except CallError:  # the verifier will say so
            return []
        replies = [Message(role="tool", content=await self._answered(call)) for call in made]
        self._said += [Message(role="assistant", content=text), *replies]
        return replies

    async def _answered(self, call: Call) -> str:
        """The session's answer; after trouble, that of a new session in which all calls are made again."""
        self._made.append(call)
        try:
            if self._session is None:
                self._session = await self._gym.seeded(self._prompt)
            return await self._gym.answer(self._session, self._prompt, call)
        except ServerError:
            self._session, answer = await self._gym.replayed(self._prompt, self._made)
            return answer

    async def close(self) -> None:
        if self._session is not None:
            self._gym.keep(self._prompt, self._said, self._session)


def offered(prompt: Prompt, call: Call) -> bool:
    """Whether the call is of one of the prompt's tools, and not of a route that is none."""
    return call.name in allowed(prompt) and call.name not in ROUTES and call.name.isidentifier()


def _is_sent(prompt: Prompt, call: Call) -> bool:
    return offered(prompt, call) and not _too_large(call)


def _too_large(call: Call) -> bool:
    return len(json.dumps(dict(call.arguments))) > LARGEST_ARGUMENTS


def _said(output: str) -> str:
    return json.dumps({"output": output}, ensure_ascii=False, separators=(",", ":"))


def _key(prompt: Prompt, said: Sequence[Message]) -> tuple[str, ...]:
    """What was said up to the last tool's answer: the last turn may have been cut before the episode saw it."""
    last = max((at for at, message in enumerate(said) if message["role"] == "tool"), default=-1)
    return (prompt.id, *(message["content"] for message in said[: last + 1]))


def _verdict(reward: Any) -> Reward:
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not 0.0 <= reward <= 1.0:
        raise ServerError(f"the server's verdict has no reward in [0, 1]: {str(reward)[:40]!r}")
    return Reward(float(reward), "the server's verdict")
