"""Losses that are no numbers stop a run and leave their batch; what runs out of memory names the setting to change."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from m2rl_core.config import EvalStage, ModelSection, RlStage, SftStage, Study
from m2rl_core.errors import DivergedError, ShortageError
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.policy import Policy
from m2rl_core.policy.model import SKIPS
from m2rl_core.rollout.diverged import read_batch
from m2rl_core.run import StageRun
from m2rl_core.run.memory import remedies, shortage
from m2rl_core.train_rl import train_rl
from m2rl_core.train_sft import NegativeLogLikelihood, train_sft
from m2rl_core.types import Batch, Sample

PLUGIN = '''
import torch
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Composition, Conversation, Prompt, Reward

HUGE = 1 << 45  # more than any machine has

class Digits(Domain):
    name, reference, suites, Config = "guards-digits", "test", {}, ComponentConfig
    def __init__(self, config):
        pass
    def prompts(self, split):
        return [Prompt(str(i), "digits", ({"role": "user", "content": str(i)},)) for i in range(40)]
    def demonstrations(self):
        for i in range(40):
            said = ({"role": "user", "content": str(i)}, {"role": "assistant", "content": str(2 * i)})
            yield Conversation(str(i), "digits", said)
    def verify(self, trajectory):
        return Reward(float(trajectory.answer[:1] in set("02468abcdefghijklm")))

class Fading(Digits):
    """Half of the first 64 answers are right, and none of those after."""
    name, remote = "guards-fading", True
    def __init__(self, config):
        self.seen = 0
    async def verify_remote(self, trajectory):
        self.seen += 1
        return Reward(float(self.seen % 2 and self.seen <= 64))

class Algorithm:
    """Centred rewards, and a loss that takes their logarithm, or asks for too much memory."""
    name, reference, needs = "guards", "test", frozenset()
    class Config(ComponentConfig):
        loss: str = "guards-log"
        advantage: str = "guards-centred"
    def __init__(self, config):
        self.config = config
    def compose(self):
        return Composition({"use": self.config.advantage}, {"use": self.config.loss})

class Centred:
    name, reference, Config, needs = "guards-centred", "test", ComponentConfig, frozenset()
    def __init__(self, config):
        pass
    def __call__(self, group):
        mean = sum(s.reward.value for s in group) / len(group)
        return [torch.full((len(s.ids_L),), s.reward.value - mean) for s in group]

class Scored(Centred):
    name, needs = "guards-scored", frozenset({"old_logps"})

class Log(Centred):
    name, separable, vanishes, divergence = "guards-log", True, True, None
    def __call__(self, logps, batch):
        return -logps * torch.log(batch.advantage_T)

class Plain(Log):
    name = "guards-plain"
    def __call__(self, logps, batch):
        return -logps * batch.advantage_T

class Greedy(Log):
    name = "guards-greedy"
    def __call__(self, logps, batch):
        return logps * torch.empty(HUGE)

@hookimpl
def m2rl_domains():
    return [Digits, Fading]

@hookimpl
def m2rl_algorithms():
    return [Algorithm]

@hookimpl
def m2rl_advantages():
    return [Centred, Scored]

@hookimpl
def m2rl_losses():
    return [Log, Plain, Greedy]
'''


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path) -> Callable[..., StageRun[Any]]:
    plugin = tmp_path / "guards.py"
    plugin.write_text(PLUGIN)
    registry = load_plugins([plugin])

    def build(
        model: Path = tiny_model, *, domain: str = "guards-digits", told: list[str] | None = None, **stage: Any
    ) -> StageRun[Any]:
        def tell(fields: Mapping[str, Any]) -> None:
            if told is not None and "note" in fields:
                told.append(fields["note"])

        study = Study.model_validate(
            {
                "name": "s",
                "model": {"dtype": "float32"},
                "domains": {"digits": {"use": domain, "reasoning": "off"}},
                "stages": {"x": {"init": "start", "domains": ["digits"], **stage}},
                "plugins": [str(plugin)],
            }
        )
        return StageRun(
            name="x", stage=study.stages["x"], study=study, seed=5, folder=tmp_path / "x", models={"start": model},
            registry=registry, key="k", send=tell,
        )  # fmt: skip

    return build


RL = {"kind": "rl", "algorithm": "guards", "steps": 20, "prompts": 4, "group": 4, "max_tokens": 4}
SFT = {"kind": "sft", "conversations": 40, "batch": 4, "max_length": 64}


def log_advantage(logps: Tensor, batch: Batch) -> Tensor:
    assert batch.advantage_T is not None
    return -logps * torch.log(batch.advantage_T)


class Loss(NegativeLogLikelihood):
    """A function as a loss."""

    def __init__(self, function: Callable[[Tensor, Batch], Tensor]) -> None:
        super().__init__(self.Config())
        self.function = function

    def __call__(self, logps: Tensor, batch: Batch) -> Tensor:
        return self.function(logps, batch)


def replayed(folder: Path, samples: list[Sample], loss: NegativeLogLikelihood) -> float | None:
    """The loss of kept samples under the kept model."""
    policy = Policy.load(folder / "model", dtype="float32")
    for batch in policy.pack(samples, 1024):
        policy.backward(batch, loss)
    return policy.metrics()["loss"]


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_its_batch(start: Any, tiny_model: Path) -> None:
    run = start(**RL)
    with pytest.raises(DivergedError) as caught:
        train_rl(run)
    kept = run.folder / "diverged"
    assert f"{SKIPS} updates in a row" in str(caught.value)
    assert str(kept / "samples.jsonl") in str(caught.value)
    assert "stages.x.lr" in str(caught.value)
    lines = list(read_jsonl(run.folder / "metrics.jsonl"))
    assert [line["skipped_updates"] for line in lines[-SKIPS + 1 :]] == [1.0] * (SKIPS - 1)
    step = json.loads((kept / "facts.json").read_text())["step"]
    assert step == len(lines)

    samples = read_batch(kept)
    assert {max(sample.versions_L) for sample in samples} == {step}
    assert all(sample.coef_L is not None and sample.advantage_L is not None for sample in samples)
    wrong = replayed(kept, samples, Loss(log_advantage))
    assert wrong != wrong
    right = [sample for sample in samples if sample.advantage_L is not None and bool((sample.advantage_L > 0).all())]
    assert 0 < len(right) < len(samples)
    good = replayed(kept, right, Loss(log_advantage))
    assert good is not None
    assert abs(good) < float("inf")


def test_a_model_that_is_broken_stops_its_fine_tuning(start: Any, tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run = start(broken, **SFT)
    with pytest.raises(DivergedError, match=r"diverged/samples\.jsonl"):
        train_sft(run)
    samples = read_batch(run.folder / "diverged")
    assert len(samples) == 4
    loss = replayed(run.folder / "diverged", samples, NegativeLogLikelihood(NegativeLogLikelihood.Config()))
    assert loss != loss


def test_kept_numbers_are_the_same_bits(start: Any, make_sample: Any, tmp_path: Path) -> None:
    from m2rl_core.rollout.diverged import _record

    sample = make_sample(8, 5)
    sample.coef_L = torch.tensor([0.1, float("nan"), float("inf"), -float("inf"), 1e-40, 1 / 3, 0.0, -0.0])
    sample.logps_L[-1] = float("nan")
    (tmp_path / "samples.jsonl").write_text(json.dumps(_record(sample), allow_nan=False) + "\n")
    [again] = read_batch(tmp_path)
    assert again.coef_L is not None
    assert again.coef_L.numpy().tobytes() == sample.coef_L.numpy().tobytes()
    assert str(again.logps_L) == str(sample.logps_L)
    assert again.advantage_L is None


def test_an_infinite_loss_with_a_finite_gradient_is_skipped(tiny_policy: Policy, make_sample: Any) -> None:
    [batch] = tiny_policy.pack([make_sample(16, 8)], 1024)
    batch.coef_T = batch.trained_T.float()
    before = [p.detach().clone() for p in tiny_policy.model.parameters()]
    tiny_policy.backward(batch, Loss(lambda logps, _: -logps + float("inf")))
    assert all(bool(p.grad.isfinite().all()) for p in tiny_policy.model.parameters() if p.grad is not None)
    tiny_policy.step(1e-2)
    assert tiny_policy.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_policy.model.parameters(), strict=True))
    tiny_policy.backward(batch, Loss(lambda logps, _: -logps))
    tiny_policy.step(1e-2)
    assert tiny_policy.skipped == 0
    assert not all(torch.equal(a, b) for a, b in zip(before, tiny_policy.model.parameters(), strict=True))


def test_a_reward_that_falls_is_told_of_in_a_whole_run(start: Any) -> None:
    told: list[str] = []
    changes = RL | {"algorithm": {"use": "guards", "loss": "guards-plain"}, "steps": 10}
    train_rl(start(**changes, domain="guards-fading", told=told))
    assert told == ["the reward of 'digits' has fallen to 0.20 from 0.50: lower lr, or stop here"]


def test_updates_without_a_gradient_do_not_excuse_those_before(tiny_policy: Policy, make_sample: Any) -> None:
    """Where a policy is broken, groups without a signal still make harmless updates."""
    [batch] = tiny_policy.pack([make_sample(16, 8)], 1024)
    batch.coef_T = batch.trained_T.float()
    loss = Loss(lambda logps, _: logps * float("nan"))
    for number in range(1, SKIPS):
        tiny_policy.backward(batch, loss)
        tiny_policy.step(1e-2)
        tiny_policy.step(1e-2)  # no backward pass before it
        assert tiny_policy.skipped == number
    tiny_policy.backward(batch, loss)
    with pytest.raises(DivergedError):
        tiny_policy.step(1e-2)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_training_without_memory_names_its_settings(start: Any) -> None:
    run = start(**RL | {"algorithm": {"use": "guards", "loss": "guards-greedy"}})
    with pytest.raises(ShortageError) as caught:
        train_rl(run)
    told = str(caught.value)
    assert "out of memory while training: " in told
    assert "can't allocate memory" in told
    assert "model.activation_checkpointing (false) to true" in told
    assert "stages.x.tokens_per_device (36864) to less, at least max_tokens = 4" in told
    assert "engine" not in told
    assert "m2rl check" in told


def huge(*_: object, **__: object) -> Tensor:
    return torch.empty(1 << 45)


def test_scoring_without_memory_names_its_settings(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "logps", huge)
    run = start(**RL | {"algorithm": {"use": "guards", "advantage": "guards-scored"}, "tokens_per_device": 16})
    with pytest.raises(ShortageError) as caught:
        train_rl(run)
    assert "while computing log-probs" in str(caught.value)
    assert "stages.x.tokens_per_device (16) to less" in str(caught.value)
    assert "activation_checkpointing" not in str(caught.value)


def test_drawing_without_memory_names_the_engines_settings(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through the engine's own error, which stands between."""
    from m2rl_core.engine import decoder, embedded

    def later(*_: object) -> None:
        """The start-up test has passed by then."""
        monkeypatch.setattr(decoder.Decoder, "step", huge)

    monkeypatch.setattr(embedded, "copy_weights", later)
    with pytest.raises(ShortageError) as caught:
        train_rl(start(**RL))
    told = str(caught.value)
    assert "while drawing samples" in told
    assert "engine.rows (256) to less, or engine.cache_gib (4.0) to less" in told
    assert "stages.x.prompts (4) or group (4) to less" in told
    assert "tokens_per_device" not in told


def test_other_errors_pass_as_they_are(start: Any) -> None:
    run = start(**SFT)
    with pytest.raises(KeyError), run.clock("train"):
        raise KeyError("x")
    assert shortage(RuntimeError("shapes do not fit")) == ""
    assert shortage(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")) == (
        "CUDA out of memory. Tried to allocate 2.00 GiB."
    )
    assert shortage(MemoryError()) == "MemoryError"


def test_remedies_have_the_values_found() -> None:
    model = ModelSection(activation_checkpointing=True, optimizer_offload=True)
    algorithm: dict[str, Any] = {"use": "a"}
    rl = RlStage(kind="rl", init="i", domains=["d"], algorithm=algorithm, max_tokens=512, tokens_per_device=512)
    assert remedies("train", "a", rl, model, {}) == (
        "change stages.a.max_tokens (512) and tokens_per_device (512) to less"
    )
    sft = SftStage(kind="sft", init="i", domains=["d"], conversations=1024)
    assert "at least max_length = 32768" in remedies("train", "a", sft, model, {})
    evaluation = EvalStage(kind="eval")
    assert remedies("rollout", "e", evaluation, model, {"use": "v", "gpu_memory": 0.9}) == (
        "change engine.gpu_memory (0.9) to less, or stages.e.max_tokens (32768) to less"
    )
    everything = remedies("", "a", rl, ModelSection(), {"cache_gib": 2.0})
    for setting in (
        "activation_checkpointing",
        "optimizer_offload",
        "max_tokens",
        "engine.cache_gib (2.0)",
        "prompts (128) or group (16)",
    ):
        assert setting in everything
    assert remedies("", "m", object(), model, {}) == "take a smaller model or a larger device"


def test_a_worker_that_the_system_kills_names_the_settings(start: Any) -> None:
    """What the kernel does where memory ends: signal 9, with no word."""
    from types import SimpleNamespace

    from m2rl_core.study.graph import Node
    from m2rl_core.study.schedule import _death

    run = start(**RL)
    killed = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], check=False)
    assert killed.returncode == -signal.SIGKILL
    one = SimpleNamespace(
        process=SimpleNamespace(exitcode=killed.returncode),
        node=Node("x", "x", run.stage, 1, folder=run.folder),
        study=run.study,
    )
    told = _death(one)  # type: ignore[arg-type]
    assert "signal 9 (SIGKILL); too little memory is the usual cause" in told
    assert "if it is killed again, change model.activation_checkpointing" in told
    assert "stages.x.prompts (4) or group (4) to less" in told
