"""Supervised fine-tuning: shares, order and the loss; a tiny model learns what it is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from m2rl_core.blend import materialised
from m2rl_core.chat import Chat
from m2rl_core.config import Study
from m2rl_core.errors import DataError
from m2rl_core.files import read_jsonl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.plugins import Registry
from m2rl_core.policy import Policy
from m2rl_core.rollout.records import to_record
from m2rl_core.run import StageRun
from m2rl_core.shares import counts
from m2rl_core.train_sft import _written, demonstrations, order, share_tokens, train_sft
from m2rl_core.types import Conversation, Prompt, Reward, Sample, Suite, Trajectory


class Parrot(Domain):
    """Teaches to answer a digit with its double."""

    name, reference = "parrot", "test"

    class Config(ComponentConfig):
        length: int = 1_000_000

    suites: Mapping[str, Suite] = {}

    def __init__(self, config: Config) -> None:
        self.config = config

    def prompts(self, split: str) -> list[Prompt]:
        return []

    def demonstrations(self) -> Iterator[Conversation]:
        for i in range(self.config.length):
            question, answer = (
                {"role": "user", "content": str(i % 10)},
                {"role": "assistant", "content": str(2 * (i % 10))},
            )
            yield Conversation(str(i), "parrot", (question, answer))  # type: ignore[arg-type]

    def verify(self, trajectory: Trajectory) -> Reward:
        return Reward(0.0)


@pytest.fixture
def make_run(tiny_model: Path, tmp_path: Path, registry: Registry) -> Callable[..., StageRun[Any]]:
    class Plugin:
        @staticmethod
        def m2rl_domains() -> list[type[Domain]]:
            return [Parrot]

    from m2rl_core.hookspecs import hookimpl

    Plugin.m2rl_domains = staticmethod(hookimpl(Plugin.m2rl_domains))  # type: ignore[method-assign]
    registry.register(Plugin, distribution="test")
    numbers = count()

    def make(length: int = 1_000_000, folder: str = "", **changes: Any) -> StageRun[Any]:
        stage = {
            "kind": "sft", "init": "start", "domains": ["parrot"], "conversations": 320, "batch": 16, "lr": 0.01,
            "warmup": 0.0, "max_length": 64, **changes,
        }  # fmt: skip
        domains = {name: {"use": "parrot", "length": length} for name in changes.get("domains", ["parrot"])}
        given = {"name": "s", "model": {"dtype": "float32"}, "domains": domains, "stages": {"sft": stage}}
        study = Study.model_validate(given)
        return StageRun(
            name="sft", stage=study.stages["sft"], study=study, seed=3,
            folder=tmp_path / (folder or str(next(numbers))),
            models={"start": tiny_model}, registry=registry, key="k",
        )  # fmt: skip

    return make


def test_threads_are_torchs_while_it_trains(
    make_run: Callable[..., StageRun[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, backward = set(), Policy.backward

    def watched(*given: Any, **more: Any) -> None:
        seen.add(torch.get_num_threads())
        backward(*given, **more)

    monkeypatch.setattr(Policy, "backward", watched)
    before = torch.get_num_threads()
    train_sft(make_run(conversations=16, threads=before + 1))
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_time_is_split_by_the_studys_names_of_domains(make_run: Callable[..., StageRun[Any]]) -> None:
    train_sft(run := make_run(domains={"grey": 3, "green": 1}, conversations=32))
    for row in list(read_jsonl(run.folder / "times.jsonl"))[:2]:
        seconds = row["seconds"]
        assert seconds["train/grey"] + seconds["train/green"] == pytest.approx(seconds["train"], abs=1e-5)


def test_counts_add_up_and_keep_their_shares() -> None:
    assert counts(["a", "b", "c"], 10) == {"a": 4, "b": 3, "c": 3}
    assert counts({"a": 3.0, "b": 1.0}, 1000) == {"a": 750, "b": 250}
    assert sum(counts({"a": 0.251, "b": 0.219, "c": 0.53}, 9973).values()) == 9973


def test_every_epoch_sees_everything_once_in_a_new_order() -> None:
    seen = [i for step in range(20) for i in order(7, 100, step, 10)]
    assert sorted(seen[:100]) == sorted(seen[100:]) == list(range(100))
    assert seen[:100] != seen[100:]
    assert seen[:10] != list(range(10))


def test_a_batch_may_span_epochs() -> None:
    whole = [i for step in range(10) for i in order(1, 7, step, 4)]
    for epoch in range(5):
        assert sorted(whole[7 * epoch : 7 * epoch + 7]) == list(range(7))


def test_every_token_counts_the_same(make_sample: Callable[..., Sample]) -> None:
    minibatch = [make_sample(10, 2), make_sample(30, 6, 1)]
    share_tokens(minibatch)
    coefficients = torch.cat([s.coef_L for s in minibatch if s.coef_L is not None])
    assert coefficients[coefficients > 0].tolist() == pytest.approx([1 / 8] * 8)
    assert coefficients.sum().item() == pytest.approx(1.0)


def test_a_tiny_model_learns(make_run: Callable[..., StageRun[Any]]) -> None:
    run = make_run()
    train_sft(run)
    metrics = list(read_jsonl(run.folder / "metrics.jsonl"))
    assert len(metrics) == 20
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 3
    Policy.load(run.folder / "checkpoint", dtype="float32")


def test_a_resumed_run_repeats_the_bytes(
    make_run: Callable[..., StageRun[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_sft(whole := make_run(checkpoint_every=4))
    killed = make_run(checkpoint_every=4, folder="killed")
    steps, original = count(), Policy.step

    def step(policy: Policy, lr: float) -> None:
        if next(steps) == 10:
            raise KeyboardInterrupt
        original(policy, lr)

    monkeypatch.setattr(Policy, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_sft(killed)
    monkeypatch.setattr(Policy, "step", original)
    train_sft(again := make_run(checkpoint_every=4, folder="killed"))
    assert (again.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()
    files = [run.folder / "checkpoint" / "model.safetensors" for run in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_too_few_demonstrations_are_refused(make_run: Callable[..., StageRun[Any]], tiny_model: Path) -> None:
    with pytest.raises(DataError, match=r"too few demonstrations. Found: 100. Allowed: at least 320"):
        demonstrations(make_run(length=100), Chat.load(tiny_model))


def test_a_conversation_that_is_too_long_is_named(make_run: Callable[..., StageRun[Any]], tiny_model: Path) -> None:
    with pytest.raises(DataError, match="conversation 0 of 'parrot' is too long"):
        demonstrations(make_run(max_length=4), Chat.load(tiny_model))


def rollouts(folder: Path, records: list[tuple[str, str]], model: Path, make_sample: Callable[..., Sample]) -> Path:
    """An rl stage's folder whose rollouts are of these (domain, verdict); returns its model."""
    shutil.copytree(model, folder / "checkpoint")
    lines = []
    for number, (domain, verdict) in enumerate(records):
        sample = make_sample(12, 5, number, domain=domain)
        sample.reward = Reward({"right": 1.0, "wrong": 0.5, "failed": None}[verdict])
        lines.append(json.dumps(to_record(sample)) + "\n")
    (folder / "rollouts.jsonl").write_text("".join(lines))
    return folder / "checkpoint"


def test_the_latest_right_rollouts_of_a_stage_are_demonstrations(
    make_run: Callable[..., StageRun[Any]], tiny_model: Path, tmp_path: Path, make_sample: Callable[..., Sample]
) -> None:
    verdicts = [("parrot", v) for v in ("right", "right", "wrong", "right", "failed", "right")] + [("owl", "right")]
    run = make_run(conversations=3, batch=3, rollouts={"parrot": "expert"})
    run.models = {**run.models, "expert": rollouts(tmp_path / "expert", verdicts, tiny_model, make_sample)}
    found = demonstrations(run, Chat.load(tiny_model))
    assert [sample.ids_L for sample in found] == [make_sample(12, 5, number).ids_L for number in (1, 3, 5)]
    assert all(sum(sample.sampled_L) == 5 for sample in found)
    train_sft(run)
    [line] = read_jsonl(run.folder / "metrics.jsonl")
    assert line["tokens"] == 15


def test_too_few_right_rollouts_are_refused(
    make_run: Callable[..., StageRun[Any]], tiny_model: Path, tmp_path: Path, make_sample: Callable[..., Sample]
) -> None:
    run = make_run(conversations=3, batch=3, rollouts={"parrot": "expert"})
    verdicts = [("parrot", "right"), ("parrot", "wrong")]
    run.models = {**run.models, "expert": rollouts(tmp_path / "expert", verdicts, tiny_model, make_sample)}
    with pytest.raises(DataError, match=r"'parrot' has too few demonstrations. Found: 1. Allowed: at least 3"):
        demonstrations(run, Chat.load(tiny_model))


def test_rollouts_in_other_tokens_are_refused(
    make_run: Callable[..., StageRun[Any]], tiny_model: Path, tmp_path: Path, make_sample: Callable[..., Sample]
) -> None:
    run = make_run(conversations=1, batch=1, rollouts={"parrot": "expert"})
    expert = rollouts(tmp_path / "expert", [("parrot", "right")], tiny_model, make_sample)
    tokenizer = json.loads((expert / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["ab"], vocab["a"] = vocab["a"], vocab["b"]
    (expert / "tokenizer.json").write_text(json.dumps(tokenizer))
    run.models = {**run.models, "expert": expert}
    with pytest.raises(DataError, match=r"stages.sft.rollouts.parrot: 'expert' has another vocabulary"):
        demonstrations(run, Chat.load(tiny_model))


# ── blends ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def blend(tmp_path: Path) -> dict[str, Any]:
    def talk(i: int, thought: str) -> dict[str, Any]:
        answer = {"role": "assistant", "content": str(2 * (i % 10)), "reasoning_content": thought}
        return {"messages": [{"role": "user", "content": str(i % 10)}, answer]}

    many, few = tmp_path / "many.jsonl", tmp_path / "few.jsonl"
    many.write_text("".join(json.dumps(talk(i, "")) + "\n" for i in range(200)))
    few.write_text("".join(json.dumps(talk(i, "why " * 20 * i)) + "\n" for i in range(2)) + '{"messages": null}\n')
    return {"many": {"source": str(many), "sample": 150}, "few": {"source": str(few), "repeat": 5}}


def test_a_tiny_model_learns_from_a_blend(make_run: Callable[..., StageRun[Any]], blend: dict[str, Any]) -> None:
    run = make_run(domains=[], blend=blend, conversations=160, epochs=2)
    train_sft(run)
    metrics = list(read_jsonl(run.folder / "metrics.jsonl"))
    assert [row["conversations"] for row in metrics] == [16] * 20
    assert [sum(row["cut"] for row in half) for half in (metrics[:10], metrics[10:])] == [5, 5], "one long row, 5 times"
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 2
    seconds = next(read_jsonl(run.folder / "times.jsonl"))["seconds"]
    assert {"train/many", "train/few"} & seconds.keys()


def test_a_resumed_blend_repeats_the_bytes(
    make_run: Callable[..., StageRun[Any]], blend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: str) -> StageRun[Any]:
        return make_run(domains=[], blend=blend, conversations=150, batch=16, checkpoint_every=2, folder=folder)

    train_sft(whole := make("whole"))
    steps, original = count(), Policy.step

    def step(policy: Policy, lr: float) -> None:
        if next(steps) == 5:
            raise KeyboardInterrupt
        original(policy, lr)

    monkeypatch.setattr(Policy, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train_sft(make("killed"))
    monkeypatch.setattr(Policy, "step", original)
    train_sft(again := make("killed"))
    assert (again.folder / "metrics.jsonl").read_bytes() == (whole.folder / "metrics.jsonl").read_bytes()
    files = [run.folder / "checkpoint" / "model.safetensors" for run in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_blend_with_too_few_conversations_is_an_error(
    make_run: Callable[..., StageRun[Any]], blend: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"the blend of 'sft' has too few conversations\. Found: 160\."):
        train_sft(make_run(domains=[], blend=blend, conversations=161))


def test_other_ranks_wait_until_the_blend_is_written(
    make_run: Callable[..., StageRun[Any]], blend: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They look for it; a barrier would run out of time over hours."""
    run = make_run(domains=[], blend=blend, conversations=160)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            materialised(run.folder / "blend", run.stage.blend, run.seed)

    monkeypatch.setattr("m2rl_core.train_sft.team.leads", lambda: False)
    monkeypatch.setattr("m2rl_core.train_sft.time.sleep", sleep)
    assert len(_written(run)) == 160
    assert len(waited) == 2
