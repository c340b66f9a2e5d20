"""The domain: where problems come from, and how an answer is judged."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from m2rl_core.errors import DataError
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.seeding import derive
from m2rl_core.types import Diagnosis, Prompt, Reward, Suite, Trajectory
from m2rl_domain_coding import livecodebench
from m2rl_domain_coding.diagnosis import diagnose
from m2rl_domain_coding.extraction import NoProgramError, program
from m2rl_domain_coding.functions import LEVELS, Function, functions
from m2rl_domain_coding.fusion import Fusion, SandboxFusion
from m2rl_domain_coding.judging import judge, with_prelude
from m2rl_domain_coding.sandbox import open_backend
from m2rl_domain_coding.sandbox.backend import Backend, Limits, SandboxError
from m2rl_domain_coding.training import training
from m2rl_domain_coding.unit_tests import UnitTest, subset, unit_tests

__all__ = ["Coding"]

MARGIN = 30.0
"""Seconds of a verification beyond the time of its program."""
REMEMBERED = 4096
"""Verdicts on generated problems that are kept."""
QUEUE = 300.0
"""Seconds that an answer may wait for those before it, where a server judges."""


class Embedded(ComponentConfig):
    """A sandbox on this machine."""

    use: Literal["auto", "namespace", "bwrap", "rlimit"] = "auto"
    """``auto``: the best that works here."""
    allow_weak_isolation: bool = False
    """True lets ``rlimit`` run programs that can see this machine's files, processes and network."""


class Coding(ProceduralDomain):
    """Problems that are solved by a program; unit tests decide."""

    name: ClassVar[str] = "coding"
    reference: ClassVar[str] = "the paper's appendix A; https://github.com/bytedance/SandboxFusion"
    levels: ClassVar[Mapping[int, str]] = LEVELS
    published: ClassVar[Mapping[str, Suite]] = livecodebench.PUBLISHED

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated problems, mixed evenly; ``coding-hard`` asks the hardest whatever this is."""
        sandbox: Annotated[Embedded | SandboxFusion, Field(discriminator="use")] = Embedded()
        """Where programs run: ``{use: auto}``, or ``{use: sandbox-fusion, url: ...}`` as in the paper."""
        tests: int | None = Field(None, gt=0)
        """Unit tests that decide, drawn by a hash of ``seed`` and the prompt's id; all of them by default. The released
        code draws 20 anew for every answer."""
        seconds: float = Field(10.0, gt=0.0, le=600.0)
        """CPU time of one test, as in the released code, and half of its wall time."""
        total_seconds: float = Field(60.0, gt=0.0, le=3600.0)
        """Of all tests of one answer, after which it is wrong; the paper is silent."""
        memory: int = Field(512, ge=32)
        """MiB of one test; the paper is silent."""
        seed: int = 0
        """Of the generated problems, and of the tests that decide."""
        lcb_v5: str | None = None
        """Local copy of release_v5 of livecodebench/code_generation_lite, a folder: the suite ``lcb-v5``."""
        lcb_v6: str | None = None
        """Local copy of test6.jsonl of livecodebench/code_generation_lite: the suite ``lcb-v6``."""

    config: Config

    def __init__(self, config: Config) -> None:
        self.config = config
        self._opening = threading.Lock()
        self._backend: Backend | None = None
        self._verdicts: dict[str, Reward] = {}
        threads = config.sandbox.parallel if isinstance(config.sandbox, SandboxFusion) else 1
        self._requests = ThreadPoolExecutor(threads, thread_name_prefix="sandbox-fusion")

    @classmethod
    def diagnose(cls) -> Iterator[Diagnosis]:
        """Which embedded sandboxes work here."""
        return diagnose()

    @property
    def remote(self) -> bool:
        """A server is awaited, many answers at a time; the embedded sandbox works in verifier processes."""
        return isinstance(self.config.sandbox, SandboxFusion)

    @property
    def verify_seconds(self) -> float:
        """Time for all tests of one answer, and for the sandbox itself."""
        suites = livecodebench.TOTAL if self.config.lcb_v5 or self.config.lcb_v6 else 0.0
        return max(self.config.total_seconds, suites) + (QUEUE if self.remote else MARGIN)

    def check(self) -> None:
        """Read the local files to their ends, and see that the embedded sandbox works on this machine."""
        super().check()
        if not self.remote:
            try:
                self._open().close()
            except SandboxError as error:
                raise DataError(f"the sandbox of '{self.name}' does not work: {error}") from error

    def questions(self, level: int, draw: Random) -> Iterator[Function]:
        return functions(level, draw)

    def rows(self) -> Iterator[Prompt]:
        return training(self.name, self.config.source)

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return livecodebench.published(suite, source, self.name)

    def gold(self, prompt: Prompt) -> str | None:
        """The program of a generated problem; rows hold none."""
        solution = prompt.metadata.get("solution")
        return None if solution is None else f"```python\n{solution}\n```"

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the answer's program passes all tests, else 0.

        Raises:
            DataError: the prompt has no sound tests.
            SandboxError: the sandbox is at fault.
        """
        prompt = trajectory.prompt
        tests = unit_tests(f"prompt '{prompt.id}'", prompt.metadata.get("unit_tests"))
        try:
            source = program(trajectory.answer)
        except NoProgramError as error:
            return Reward(0.0, str(error))
        if "suite" in prompt.metadata:
            limits = Limits(livecodebench.SECONDS, livecodebench.MEMORY)
            return judge(with_prelude(source), tests, self._sandbox(), limits, livecodebench.TOTAL)
        tests = subset(tests, self.config.tests, derive(self.config.seed, "unit tests", prompt.id))
        return self._remembered(source, tests) if "solution" in prompt.metadata else self._judged(source, tests)

    def _remembered(self, source: str, tests: Sequence[UnitTest]) -> Reward:
        """A small model writes the same few programs for a generated problem again and again: each runs once."""
        key = f"{source}\0{tests}"
        if (reward := self._verdicts.get(key)) is None:
            if len(self._verdicts) >= REMEMBERED:
                self._verdicts.clear()
            reward = self._verdicts[key] = self._judged(source, tests)
        return reward

    def _judged(self, source: str, tests: Sequence[UnitTest]) -> Reward:
        """By the limits of the settings."""
        limits = Limits(self.config.seconds, self.config.memory << 20)
        script = source if tests[0].call is None else with_prelude(source)
        return judge(script, tests, self._sandbox(), limits, self.config.total_seconds)

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        """The verdict of :meth:`verify`, in a thread.

        Raises:
            DataError, SandboxError: as :meth:`verify`.
        """
        return await asyncio.get_running_loop().run_in_executor(self._requests, self.verify, trajectory)

    def _sandbox(self) -> Backend:
        """The sandbox of this process: opened when it is needed first, closed with this object."""
        with self._opening:
            if self._backend is None:
                self._backend = self._open()
                weakref.finalize(self, self._backend.close)
            return self._backend

    def _open(self) -> Backend:
        settings = self.config.sandbox
        if isinstance(settings, SandboxFusion):
            return Fusion(settings)
        return open_backend(settings.use, allow_weak_isolation=settings.allow_weak_isolation)
