"""Samples for analyzers, drawn with the study's engine and verified as in training; what was drawn once is read.

A group is addressed by all that it depends on: the model, the engine, the verifier, how tokens are drawn, and the
prompt. Groups of one request lie in one file of JSON lines, which is appended to after every few hundred samples. It
lies in the folder that the study's stages share, so that several analyses draw the same samples once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import m2rl_core
from m2rl_core.analyze.models import Models
from m2rl_core.config import AnalyzeStage
from m2rl_core.errors import DataError
from m2rl_core.files import append_jsonl, content_hash, locked, read_jsonl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.registry import use_of
from m2rl_core.rollout.episodes import Sampler, open_sampler, sampler_for
from m2rl_core.rollout.records import from_record, to_record
from m2rl_core.rollout.verdicts import usable
from m2rl_core.rollout.verifiers import Spec
from m2rl_core.run import StageRun
from m2rl_core.types import Group, Prompt, Reward, Sample, Sampling, Trajectory

__all__ = ["Draws"]

CHUNK = 512
"""Samples drawn between two writings."""
CODE = ("answers", "chat.py", "engine", "rewards/reasoning.py", "rollout", "seeding.py")
"""The core's parts that decide what is drawn and how it is judged."""
OF_PROMPT = ("domain", "prompt", "question", "tools", "ground_truth", "metadata")
"""Keys of a record that the prompt holds already."""


class _Unjudged(Domain):
    """Stands for the domain of prompts that nobody verifies."""

    name = "unjudged"
    reference = "m2rl_core.analyze.draws"
    Config = ComponentConfig
    remote = True  # so that no worker process is started
    suites: Mapping[str, Any] = {}

    def prompts(self, split: str) -> Iterator[Prompt]:
        return iter(())

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(0.0)

    async def verify_remote(self, trajectory: Trajectory) -> Reward:
        return Reward(0.0)


class Draws:
    """Draws what is missing."""

    def __init__(self, run: StageRun[AnalyzeStage], models: Models) -> None:
        self._run, self._models = run, models
        self._judges: dict[str, str] = {}
        """Domain → hash of what judges its samples."""

    def of(
        self,
        model: str,
        prompts_P: Sequence[Prompt],
        sampling: Sampling,
        n: int,
        *,
        verify: bool,
        before: Callable[[], None],
    ) -> list[list[Sample]]:
        """``n`` samples of every prompt; ``before`` is called before an engine is started.

        Raises:
            DataError: two different prompts of one domain and id, which would share their noise.
            VerifierError: more verdicts failed than the stage allows.
        """
        _refuse_doubles(prompts_P)
        keys_P = [self._key(prompt, verify) for prompt in prompts_P]
        path = self._run.shared / "drawn" / f"{self._address(model, sampling, n, verify)}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), wait=True):  # another analysis may be drawing the same
            found = _read(path, dict(zip(keys_P, prompts_P, strict=True)))
            missing = {key: p for key, p in zip(keys_P, prompts_P, strict=True) if key not in found}
            if missing:
                before()
                found |= self._drawn(model, missing, sampling, n, verify, path)
        return [found[key] for key in keys_P]

    def _drawn(
        self, model: str, missing: Mapping[str, Prompt], sampling: Sampling, n: int, verify: bool, path: Path
    ) -> dict[str, list[Sample]]:
        """Key → samples; written down too, but for groups with a failed verdict, which will be drawn again."""
        found: dict[str, list[Sample]] = {}
        with self._sampler(model, missing.values(), verify) as sampler:
            for some in _parts(list(missing.items()), max(1, CHUNK // n)):
                groups = sampler.rollout([prompt for _, prompt in some], sampling, n)
                if verify:
                    usable(groups, self._run)
                else:
                    _forget_rewards(groups)
                new = {key: group.samples_G for (key, _), group in zip(some, groups, strict=True)}
                known = {k: s for k, s in new.items() if not verify or all(each.reward.value is not None for each in s)}
                append_jsonl(path, (_record(key, samples) for key, samples in known.items()))
                found |= new
                self._run.report(step=len(found), steps=len(missing), text=f"prompts drawn with {model}")
        return found

    def _sampler(self, model: str, prompts: Iterable[Prompt], verify: bool) -> Sampler:
        names = dict.fromkeys(prompt.domain for prompt in prompts)
        folder, domains = self._models.folder(model), self._run.study.domains
        if verify:
            return open_sampler(self._run, folder, names, {name: domains[name].reasoning for name in names})
        stand_in = _Unjudged()
        specs = {name: Spec("", remote=stand_in) for name in names}
        return sampler_for(self._run, folder, dict.fromkeys(names, stand_in), specs, dict.fromkeys(names, "optional"))

    def _address(self, model: str, sampling: Sampling, n: int, verify: bool) -> str:
        """Hash of what all groups of a request depend on."""
        engine, settings = use_of(self._run.study.engine, "engine")
        covered = {
            "model": self._models.identity(model),
            "engine": [engine, settings, self._run.registry.content_hash("engine", engine)],
            "code": _code(),
            "sampling": asdict(sampling),
            "n": n,
            "verify": verify,
        }
        return _hash(covered)

    def _key(self, prompt: Prompt, verify: bool) -> str:
        """Hash of what one group depends on beside."""
        return _hash([_plain(prompt), self._judge(prompt.domain) if verify else ""])

    def _judge(self, domain: str) -> str:
        if domain not in self._judges:
            section = self._run.study.domains[domain]
            code = self._run.registry.content_hash("domain", section.use)
            self._judges[domain] = _hash([section.model_dump(mode="json"), code])
        return self._judges[domain]


def _refuse_doubles(prompts_P: Sequence[Prompt]) -> None:
    seen: dict[tuple[str, str], Prompt] = {}
    for prompt in prompts_P:
        if seen.setdefault((prompt.domain, prompt.id), prompt) != prompt:
            raise DataError(
                f"two different prompts of domain '{prompt.domain}' are called '{prompt.id}'",
                then="give each an id of its own: sampling noise depends on it",
            )


def _parts(items: Sequence[tuple[str, Prompt]], size: int) -> Iterator[Sequence[tuple[str, Prompt]]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _forget_rewards(groups: Sequence[Group]) -> None:
    for group in groups:
        for sample in group.samples_G:
            sample.reward = Reward(None, "not verified")


def _read(path: Path, wanted: Mapping[str, Prompt]) -> dict[str, list[Sample]]:
    """Key → samples of the wanted groups that are there. A line that a kill has torn is cut off first."""
    if not path.exists():
        return {}
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)
    rows = ((row["key"], row["samples"]) for row in read_jsonl(path))
    return {key: [_sample(wanted[key], each) for each in samples] for key, samples in rows if key in wanted}


def _record(key: str, samples: Sequence[Sample]) -> dict[str, Any]:
    kept = [to_record(sample) | {"metrics": dict(sample.reward.metrics)} for sample in samples]
    return {"key": key, "samples": [{k: v for k, v in one.items() if k not in OF_PROMPT} for one in kept]}


def _sample(prompt: Prompt, record: Mapping[str, Any]) -> Sample:
    """What was drawn for ``prompt``."""
    sample = from_record({**_plain(prompt), **record})
    reward = Reward(record["reward"], record["reason"], record["metrics"])
    return replace(sample, prompt=prompt, trajectory=replace(sample.trajectory, prompt=prompt), reward=reward)


def _plain(prompt: Prompt) -> dict[str, Any]:
    """A prompt as :data:`OF_PROMPT`."""
    values = (prompt.domain, prompt.id, list(prompt.messages), [dict(tool) for tool in prompt.tools])
    return dict(zip(OF_PROMPT, (*values, prompt.ground_truth, dict(prompt.metadata)), strict=True))


@cache
def _code() -> str:
    """Hash of :data:`CODE`."""
    root = Path(m2rl_core.__file__).parent
    files = [file for name in CODE for file in ((root / name).rglob("*.py") if "." not in name else [root / name])]
    return _hash([[file.relative_to(root).as_posix(), content_hash(file)] for file in sorted(files)])


def _hash(covered: Any) -> str:
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()
