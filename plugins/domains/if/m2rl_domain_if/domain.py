"""The domain: where prompts come from, and how a response is judged.

The checks are imported where they are first needed: they bring tables and packages that a list of plugins does without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import count
from random import Random
from typing import Any, ClassVar, Literal

from pydantic import Field

from m2rl_core.errors import DataError
from m2rl_core.procedural import ProceduralConfig, ProceduralDomain
from m2rl_core.rows import messages, rows
from m2rl_core.types import Prompt, Reward, Suite, Trajectory
from m2rl_domain_if.problems import LEVELS, Problem, problems

__all__ = ["If"]

LONGEST = 200_000
"""Characters of an answer, reasoning excluded. Some checks take seconds for a longer one."""
DATASETS = frozenset({"nano_v3_sft_profiled_instruction_following"})
PUBLISHED = {
    "ifeval": Suite("google/IFEval", "IFEval: 541 prompts, strict, all instructions of a prompt"),
    "ifbench": Suite("allenai/IFBench_test", "IFBench: strict, all instructions of a prompt"),
}
"""Suite → the data set that it is a local copy of."""


class If(ProceduralDomain):
    """Prompts with instructions that a program can check."""

    name: ClassVar[str] = "if"
    reference: ClassVar[str] = "the paper's section 3.1; https://github.com/allenai/open-instruct (IFEvalG)"
    verify_seconds: ClassVar[float] = 10.0
    levels: ClassVar[Mapping[int, str]] = LEVELS
    published: ClassVar[Mapping[str, Suite]] = PUBLISHED

    class Config(ProceduralConfig):
        levels: tuple[Literal[1, 2, 3, 4], ...] = Field((1, 2, 3), min_length=1)
        """Difficulties of the generated prompts, mixed evenly; ``if-hard`` asks the hardest whatever this is."""
        mode: Literal["strict", "loose"] = "strict"
        """Of the reward. ``loose`` also takes a response that follows without its first or last line or its asterisks.
        Suites are strict whatever this is."""
        reward: Literal["all", "fraction"] = "all"
        """``all``: 1 where every instruction is followed, else 0 (the released code). ``fraction``: how many are.
        Suites ask for all whatever this is."""
        ifeval: str | None = None
        """Path of a local .jsonl copy of google/IFEval: the suite ``ifeval``."""
        ifbench: str | None = None
        """Path of a local .jsonl copy of allenai/IFBench_test: the suite ``ifbench``."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def questions(self, level: int, draw: Random) -> Iterator[Problem]:
        return problems(level, draw)

    def rows(self) -> Iterator[Prompt]:
        return self._read("train", self.config.source)

    def published_prompts(self, suite: str, source: str) -> Iterator[Prompt]:
        return self._read(suite, source)

    def _read(self, split: str, source: str) -> Iterator[Prompt]:
        return map(partial(self._prompt, split), count(), rows(source, DATASETS))

    def _prompt(self, split: str, index: int, placed: tuple[str, Mapping[str, Any]]) -> Prompt:
        """One row, in the blend's schema or in that of the published suites."""
        from m2rl_domain_if.judging import instructions, refuse_contradictions

        place, row = placed
        newer = row.get("verifier_metadata")
        row = {**row, **newer} if isinstance(newer, dict) else row
        asked = messages(place, {**row, "question": row.get("question") or row.get("prompt")})
        metadata: dict[str, Any] = {name: row.get(name) for name in ("instruction_id_list", "kwargs")}
        refuse_contradictions(place, instructions(place, metadata))
        if split != "train":
            metadata["suite"] = split
        return Prompt(f"{split}/{index:06d}", self.name, asked, None, metadata)

    def verify(self, trajectory: Trajectory) -> Reward:
        """1 where the response follows every instruction, else 0, or the share that it follows.

        Raises:
            DataError: the prompt gives no instructions that can be checked.
        """
        from m2rl_domain_if.judging import follows, instructions, variants

        prompt, published = trajectory.prompt, "suite" in trajectory.prompt.metadata
        given = instructions(f"prompt '{prompt.id}'", prompt.metadata)
        mode = "strict" if published else self.config.mode
        if len(trajectory.answer) > LONGEST:
            return Reward(0.0, f"an answer of {len(trajectory.answer)} characters", {"followed": 0.0})
        try:
            missed = [each.id for each in given if not follows(each, trajectory.answer, mode)]
        except DataError as error:
            raise DataError(f"prompt '{prompt.id}': {error}") from error
        followed = 1 - len(missed) / len(given)
        value = followed if self.config.reward == "fraction" and not published else float(not missed)
        reason = f"not followed: {missed[0]}" if missed else "all followed"
        if not any(variants(trajectory.answer, "strict")):
            reason = "empty answer"
        return Reward(value, reason, {"followed": followed})
