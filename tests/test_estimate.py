"""Estimates by hand, against transformers' models, against torch's own count of operations, and for whole studies."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from m2rl_core.config import InitStage, Study, check_components, grounded, load_study
from m2rl_core.engine.cache import SLACK as SHELF_SLACK
from m2rl_core.engine.cache import capacity as shelf_capacity
from m2rl_core.engine.embedded import EmbeddedEngine
from m2rl_core.errors import ConfigError
from m2rl_core.estimate import Device, Estimate, Load, Machine, Shape, estimate, machine, peak, shape_of
from m2rl_core.estimate.advice import advice
from m2rl_core.estimate.lengths import Lengths
from m2rl_core.estimate.sampling import EMBEDDED, SLACK, Engine, capacity, engine_of, prefill_flops, rollout_seconds
from m2rl_core.estimate.seconds import reading_seconds, scoring_flops, teaching_flops, training_flops
from m2rl_core.estimate.shape import of_config, of_init
from m2rl_core.ops import Lecture, Scores, fused_loss, token_logps
from m2rl_core.plugins import Registry, load_plugins
from m2rl_core.report.evidence import KINDS
from m2rl_core.types import Divergence

QWEN3_4B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
}
SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 101,
    "max_position_embeddings": 64,
}
PLUGIN = """
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.types import Composition, Divergence, Prompt

class Named:
    reference = "a test"
    Config = ComponentConfig
    def __init__(self, config):
        self.config = config

class Quiz(Named):
    name, suites = "quiz", {}
    def check(self):
        pass
    def prompts(self, split):
        yield Prompt("0", "quiz", ())

class Part(Named):
    needs, separable, vanishes, divergence = frozenset(), True, False, None
class Rewarded(Part):
    name = "rewarded"
class Taught(Part):
    name, needs = "taught", frozenset({"teacher_logps"})
class Clipped(Part):
    name, needs = "clipped", frozenset({"old_logps", "entropy"})
class Anchored(Part):
    name, needs = "anchored", frozenset({"reference_logps", "old_logps"})
class Full(Part):
    name, divergence = "full", Divergence("reverse")

class Parts(Named):
    name = "parts"
    class Config(ComponentConfig):
        advantage: str = "rewarded"
        loss: str = "clipped"
    def compose(self):
        return Composition({"use": self.config.advantage}, {"use": self.config.loss})

class Paged(Named):
    name = "paged"

m2rl_domains = hookimpl(lambda: [Quiz])
m2rl_algorithms = hookimpl(lambda: [Parts])
m2rl_advantages = hookimpl(lambda: [Rewarded, Taught])
m2rl_losses = hookimpl(lambda: [Clipped, Anchored, Full])
m2rl_engines = hookimpl(lambda: [Paged])
"""
LONG = Lengths.of_samples(32768, 32768)
DOMAINS = ("math", "coding", "science", "if", "agent")
STUDY = f"""
name: paper
plugins: [./mine.py]
model: {{base: ./base, activation_checkpointing: true}}
engine: paged
domains: {{{", ".join(f"{name}: quiz" for name in DOMAINS)}}}
x-expert: &expert {{kind: rl, init: sft, algorithm: parts}}
stages:
  sft: {{kind: sft, init: base, domains: [math], conversations: 1024}}
{"".join(f"  {name}: {{<<: *expert, domains: [{name}]}}{chr(10)}" for name in DOMAINS)}
  mean: {{kind: merge, experts: [math, coding], merger: average}}
  mt-opd: {{<<: *expert, domains: [{", ".join(DOMAINS)}], algorithm: {{use: parts, advantage: taught}}, steps: 200,
            prompts: 256, group: 4, max_tokens: 16384, teachers: {{{", ".join(f"{n}: {n}" for n in DOMAINS)}}}}}
"""

FULL = ("stages.mt-opd.algorithm.advantage=rewarded", "stages.mt-opd.algorithm.loss=full")
"""Distillation by the divergence over the whole vocabulary."""

Open = Callable[..., tuple[Study, Registry]]


@pytest.fixture
def paper(tmp_path: Path) -> Open:
    """``paper("stages.math.steps=3", …)``: the paper's settings for Qwen3-4B, by parts that only say what they need."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(QWEN3_4B))

    def opened(*overrides: str) -> tuple[Study, Registry]:
        study = grounded(load_study(tmp_path / "study.yaml", overrides), tmp_path)
        registry = load_plugins(study.plugins)
        return study, registry

    return opened


def estimates(opened: tuple[Study, Registry], device: str) -> dict[str, Estimate]:
    return {each.stage: each for each in estimate(*opened, machine(device))}


def shape(config: dict[str, Any]) -> Shape:
    found = of_config(config)
    assert isinstance(found, Shape), found
    return found


# ── sizes of models ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_4b_model_by_hand() -> None:
    model = shape(QWEN3_4B)
    assert model.layer_products == 2560 * (2 * 4096 + 2 * 1024 + 3 * 9728) == 100_925_440
    assert model.parameters == 151936 * 2560 + 36 * (100_925_440 + 2 * 2560 + 2 * 128) + 2560 == 4_022_468_096
    assert model.cached == 2 * 36 * 8 * 128


@pytest.mark.parametrize(
    "config",
    [
        QWEN3_4B,
        SMALL | {"model_type": "qwen3", "head_dim": 16},
        SMALL | {"model_type": "qwen3", "head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
        SMALL | {"model_type": "qwen2"},
        SMALL | {"model_type": "mistral"},
        SMALL | {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
        SMALL | {"model_type": "llama", "num_key_value_heads": 6, "tie_word_embeddings": True},
    ],
)
def test_parameters_are_those_of_transformers(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    assert shape(model.config.to_dict()).parameters == model.num_parameters()


def test_a_fresh_model() -> None:
    stage = InitStage(kind="init", domains=[], vocab=1024)
    config = {
        "model_type": "qwen3",
        "hidden_size": stage.hidden,
        "num_hidden_layers": stage.layers,
        "num_attention_heads": stage.heads,
        "num_key_value_heads": stage.kv_heads,
        "head_dim": 32,
        "intermediate_size": stage.ffn,
        "vocab_size": 1024,
        "max_position_embeddings": stage.context,
        "tie_word_embeddings": True,
    }
    assert of_init(stage) == shape(config)


def test_sizes_that_are_not_known() -> None:
    assert "'qwen3_moe' (counted: llama" in str(of_config(QWEN3_4B | {"model_type": "qwen3_moe"}))
    assert of_config({"model_type": "qwen3", "num_attention_heads": 4}) == "its config.json has no 'hidden_size'"


def test_models_of_a_study(paper: Open, tmp_path: Path) -> None:
    study, _ = paper("stages.math.keep_every=100")
    for model in ("base", "sft", "math", "math@200", "mean", "mt-opd"):
        assert shape_of(study, model) == shape(QWEN3_4B), model
    (tmp_path / "base" / "config.json").write_text("{")
    assert "base is unknown: its config.json cannot be read: Expecting" in str(shape_of(study, "mt-opd"))


def test_a_model_of_the_hub(paper: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched; what is in the cache is read."""
    commit = "c0ffee" + "0" * 34
    cache = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    study, registry = paper("model.base=some/model", f"model.revision={commit}")
    [first, *_] = estimate(study, registry, machine("h100x8"))
    assert first.memory is None
    assert first.unknown == (
        "some/model is unknown until downloaded: 'm2rl run STUDY --only base' fetches it, "
        f"'hf download some/model config.json --revision {commit}' its sizes alone"
    )
    folder = cache / "models--some--model" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(QWEN3_4B))
    assert shape_of(study, "mt-opd") == shape(QWEN3_4B)


# ── lengths and operations ───────────────────────────────────────────────────────────────────────────────────────────


def test_moments_of_lengths_against_all_lengths() -> None:
    lengths, every = Lengths(100, 2000), range(2001)
    assert lengths.tokens == pytest.approx(sum(100 + n for n in every) / 2001)
    assert lengths.pairs == pytest.approx(sum((100 + n) ** 2 / 2 for n in every) / 2001, rel=1e-3)
    drawn = [(100 + position) for n in every for position in range(n)]
    assert lengths.context == pytest.approx(sum(drawn) / len(drawn), rel=1e-3)
    assert Lengths.of_samples(16384, 32768) == Lengths(512, 16384)
    assert Lengths.of_samples(64, 1024) == Lengths(32, 64)
    assert Lengths.of_samples(32768, 32768).whole == 32768, "the context ends an episode"


def test_operations_are_those_that_torch_counts() -> None:
    """Attention without a kernel looks at every pair; backward costs twice the forward pass."""
    config = AutoConfig.for_model(**SMALL | {"model_type": "qwen3", "head_dim": 16})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    sizes = shape(config.to_dict())
    with FlopCounterMode(display=False) as forward:
        hidden = model.base_model(input_ids=torch.zeros(1, 32, dtype=torch.int64), use_cache=False).last_hidden_state
    assert forward.get_total_flops() == prefill_flops(sizes, 32, 32 * 32)
    with FlopCounterMode(display=False) as backward:
        hidden.sum().backward()
    assert backward.get_total_flops() == 2 * prefill_flops(sizes, 32, 32 * 32)


def products_of(work: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
    """How often forward and backward pass multiply 24 hidden states with a head."""
    hidden, head = torch.randn(24, 48, requires_grad=True), torch.randn(101, 48, requires_grad=True)
    unknown = {torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]}
    with FlopCounterMode(display=False, custom_mapping=unknown) as counted:
        torch.autograd.backward(work(hidden, head))
    return float(counted.get_total_flops() / (2 * 24 * 48 * 101))


def distance(_: slice, scores: Scores) -> torch.Tensor:
    assert scores.divergence_N is not None
    return scores.divergence_N


def test_the_heads_products_are_three_or_four() -> None:
    """A lecture is one more: what :func:`scoring_flops` counts for a teacher."""
    ids, lecture = torch.zeros(24, dtype=torch.int64), Lecture(torch.randn(24, 48), torch.randn(101, 48))

    def taught(hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        return fused_loss(hidden, head, ids, distance, lecture=lecture, divergence=Divergence("reverse"))[0]

    assert products_of(lambda hidden, head: token_logps(hidden, head, ids)[0].sum()) == 4
    assert products_of(lambda hidden, head: fused_loss(hidden, head, ids, lambda _, scores: scores.logps_N)[0]) == 3
    assert products_of(taught) == 4


def test_operations_of_a_sample_by_hand() -> None:
    """2 layers of 100 weights and 10 query features, a head of 50; 4 prompt tokens, responses up to 6."""
    sizes = Shape(hidden=5, layers=2, heads=1, kv_heads=1, head_dim=10, ffn=0, vocab=10, context=99)
    sizes = replace(sizes, heads=1)
    assert (sizes.layer_products, sizes.head) == (200, 50)
    lengths = Lengths(4, 6)
    pairs = (16 + 2 * 4 * 3 + 12) / 2
    body = 2 * 400 * 7 + 4 * 2 * 10 * pairs
    assert scoring_flops(sizes, lengths) == body + 2 * 50 * 3
    assert training_flops(sizes, lengths, checkpointing=False) == 3 * body + 6 * 50 * 3
    assert training_flops(sizes, lengths, checkpointing=True) == 4 * body + 6 * 50 * 3
    assert training_flops(sizes, lengths, checkpointing=True, separable=False) == 4 * body + 8 * 50 * 3


def test_teachers_by_hand() -> None:
    small, large = shape(SMALL | {"model_type": "qwen2"}), shape(QWEN3_4B)
    lengths, teachers = Lengths(4, 6), {"a": small, "b": large}
    mixed = teaching_flops(teachers, {"a": 3, "b": 1}, lengths)
    assert mixed == pytest.approx((3 * scoring_flops(small, lengths) + scoring_flops(large, lengths)) / 4)


def test_a_frozen_model_is_read_where_another_was_before() -> None:
    shapes, eight = {"small": shape(SMALL | {"model_type": "qwen2"}), "large": shape(QWEN3_4B)}, machine("h100x8")
    once = {name: 4 * each.parameters / 2e9 for name, each in shapes.items()}

    def read(before: str, models: str) -> float:
        return reading_seconds(before.split(), models.split(), shapes, eight)

    assert read("large", "large") == read("large", "large large") == 0, "one model stays where it is"
    assert read("large", "small large") == pytest.approx(sum(once.values()))
    assert read("large", "large small small") == pytest.approx(once["small"])
    assert read("small", "") == 0


def test_rollout_by_hand() -> None:
    """8 samples of up to 100 tokens, 4 rows on each of 2 devices: the longest row alone takes 100 steps."""
    device = Device("toy", 1e9, 1e9, 1e9, bandwidth=1e6, reading=1e6, link=1e6, mfu=0.5, mbu=0.5, eager=0)
    sizes = Shape(hidden=5, layers=2, heads=1, kv_heads=1, head_dim=10, ffn=0, vocab=10, context=999)
    engine = Engine("bfloat16", 1000, 2, rows=4, stays=False, cache=0, eager=0.01)
    lengths = Lengths(0, 100)
    read = 100 * 1000 + 4 * 50 * (100 / 3) * 40 * 2
    expected = read / 0.5e6 + 100 * 2 * 0.01
    assert rollout_seconds(sizes, lengths, engine, Machine(device, 2), 1, 8) == pytest.approx(expected)
    slow = replace(device, bf16=1e6)  # now the products take longer than the reading
    work = 4 * 50 * (2 * 400 + 4 * 2 * 10 * 100 / 3 + 2 * 50)
    expected = work / 0.5e6 + 100 * 2 * 0.01
    assert rollout_seconds(sizes, lengths, engine, Machine(slow, 2), 1, 8) == pytest.approx(expected)


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_said_of_the_embedded_engine_is_so() -> None:
    config = EmbeddedEngine.Config()
    assert {key: getattr(config, key) for key in EMBEDDED} == EMBEDDED
    assert SLACK == SHELF_SLACK
    assert [capacity(n) for n in range(1, 3000)] == [shelf_capacity(n) for n in range(1, 3000)]


def test_the_embedded_engine_by_hand(paper: Open) -> None:
    """32,768 tokens at 147,456 bytes each in bfloat16, twice: 9 GiB a row."""
    study, _ = paper("engine.use=embedded", "engine.dtype=bfloat16", "engine.cache_gib=40")
    engine = engine_of(study, machine("h100x8"), shape(QWEN3_4B), LONG, 256)
    assert (engine.rows, engine.cache, engine.weights) == (4, 4 * 9 * 2**30, 2 * 4_022_468_096)
    small, _ = paper("engine.use=embedded")
    engine = engine_of(small, machine("h100x8"), shape(QWEN3_4B), LONG, 256)
    assert engine.problem.startswith(
        "engine.cache_gib = 4 holds no sample of 32768 tokens, so the run would stop: set it"
    )
    assert "to 18 or more" in engine.problem
    on_cpu = engine_of(study, machine("cpu"), shape(QWEN3_4B), LONG, 256)
    assert on_cpu.rows == 2, "keys and values are float32 there"


def test_another_engine_gets_what_is_left(paper: Open) -> None:
    study, _ = paper()
    engine = engine_of(study, machine("h100x8"), shape(QWEN3_4B), LONG, 256)
    left = 0.9 * 80e9 - 12 * 4_022_468_096 / 8 - 2 * 4_022_468_096
    assert engine.rows == int(left / ((512 + 32256 / 3) * 147_456)) == 34
    assert not engine.stays
    assert (
        "no room for an engine"
        in engine_of(study, machine("h100"), shape(QWEN3_4B | {"num_hidden_layers": 72}), LONG, 256).problem
    )


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_devices_by_name(tmp_path: Path) -> None:
    assert (str(machine("h200x8")), machine("H100").count) == ("h200x8", 1)
    assert machine("h100x8").device.flops("bfloat16") == 0.4 * 989e12
    assert machine(None, tmp_path).device.name == "cpu"
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "information").write_text("Model: \t NVIDIA H200\nIRQ: 17\n")
    assert str(machine(None, tmp_path)) == "h200x2"
    assert str(machine(None, tmp_path, nnodes=2)) == "h200x4"
    assert str(machine(None, tmp_path, nproc=1, nnodes=2)) == "h200x2"


def test_processes_and_machines_are_devices() -> None:
    assert machine("h100", nproc=8, nnodes=2) == machine("h100x16")
    assert machine("h100", nnodes=2).count == 2
    alone, four = machine("cpu"), machine("cpu", nproc=4, nnodes=2)
    assert (four.count, four.device.memory) == (8, alone.device.memory / 4), "the processes of a machine share memory"
    assert machine("cpux4").device.memory == four.device.memory
    with pytest.raises(ConfigError, match=r"said twice. Found: h100x8, --nproc 1, --nnodes 2. Next: say --device h100"):
        machine("h100x8", nnodes=2)


@pytest.mark.parametrize("text", ["a100", "h200x", "h200x0", "h200xx8", "8xh200", ""])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--device: no devices are known as .*Allowed: h100, h200, cpu, and several"):
        machine(text)


# ── whole studies ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_32k_tokens_on_a_4b_model_fit_80_gb_on_eight_devices(paper: Open) -> None:
    """Also with the embedded engine resident beside the policy, and a teacher."""
    study, registry = paper()
    check_components(study, registry)
    for found in (estimates((study, registry), "h100x8"), estimates(paper("engine.use=embedded"), "h100x8")):
        for each in found.values():
            assert each.parameters == 4_022_468_096
            assert each.memory is not None
            assert each.memory.total < 54e9
    assert found["mt-opd"].memory is not None
    sharded, gathered = 4 * 4_022_468_096 / 8, 2 * 151936 * 2560
    assert found["mt-opd"].memory.frozen == sharded + gathered, "five teachers cost the memory of one"
    assert found["math"].memory is not None
    assert found["math"].memory.frozen == 0


def test_one_device_is_too_few_and_says_what_would_do(paper: Open) -> None:
    found = estimates(paper(), "h100")["math"]
    assert found.problems == (
        "88.7 GB on each device, which has 80.0 GB. It fits (54.2 GB) with tokens_per_device=32768, "
        "model.optimizer_offload=true",
    )
    assert estimates(paper(), "h200")["math"].problems == ()


def test_offloaded_moments_leave_room_for_32k_tokens_on_one_device(paper: Open) -> None:
    """A 4B model on 80 GB: its moments, 32.2 GB, are in host memory but for a piece, and travel there and back."""
    here, there = estimates(paper(), "h100")["math"], estimates(paper("model.optimizer_offload=true"), "h100")["math"]
    assert here.memory is not None
    assert there.memory is not None
    assert here.seconds is not None
    assert there.seconds is not None
    assert (here.memory.optimizer, there.memory.optimizer) == (8 * 4_022_468_096, 8 << 24)
    assert replace(there.memory, optimizer=0) == replace(here.memory, optimizer=0)
    assert (there.memory.total < 80e9 < here.memory.total, there.problems) == (True, ())
    assert there.seconds.train - here.seconds.train == pytest.approx(16 * 4_022_468_096 / 25e9)
    on_cpu = [estimates(paper(*set_), "cpu")["math"] for set_ in ((), ("model.optimizer_offload=true",))]
    assert on_cpu[0].memory == on_cpu[1].memory, "the host's memory is the device's"


def test_advice_takes_as_few_changes_as_it_can() -> None:
    load = Load(shape(QWEN3_4B), tokens=36864, devices=8, engine=16.1e9)
    eight = machine("h100x8")
    assert "with model.activation_checkpointing=true" in advice(load, 32768, eight, embedded=True)
    assert advice(replace(load, checkpointing=True), 32768, eight, embedded=True) == ""
    two = replace(load, devices=2, checkpointing=True, frozen=shape(QWEN3_4B), engine=22.6e9)
    assert peak(two).total > 80e9
    assert advice(two, 32768, machine("h100x2"), embedded=True).endswith("with engine.dtype=bfloat16")
    assert advice(two, 32768, machine("h100x2"), embedded=False).endswith("with tokens_per_device=32768")
    assert advice(two, 36864, machine("h100x2"), embedded=False).endswith("with model.optimizer_offload=true")
    away = replace(two, offload=True, engine=40e9)
    assert advice(away, 36864, machine("h100x2"), embedded=False).endswith("with --device h100x4")
    huge = replace(load, engine=1e12)
    assert advice(huge, 32768, eight, embedded=False).endswith("and no setting makes it fit")


def test_five_teachers_take_less_than_15_percent_of_a_step(paper: Open) -> None:
    """What is compared is arithmetic, no clock: operations at the presets' assumed rates, beside assumed reading rates.

    Of it, counts of operations and of weights that are read are tested above; rates on a GPU are nobody's measurement.
    Sampling is in the step. Without it a scoring pass stands against four of training: a fifth, more with reading.
    """
    for device in ("h100x8", "h200x8"):
        seconds = estimates(paper(), device)["mt-opd"].seconds
        full = estimates(paper(*FULL), device)["mt-opd"].seconds
        assert seconds is not None
        assert full is not None
        read = 5 * 4 * 4_022_468_096 / 2e9
        assert 0.19 < (seconds.teachers - read) / (seconds.teachers - read + seconds.update) < 0.21
        assert read < seconds.teachers
        assert 0.03 < seconds.teachers_share < 0.15
        assert full.teachers_share == pytest.approx(seconds.teachers_share), "a lecture costs what scoring does"


def test_15_percent_rest_on_reading_more_than_a_gigabyte_per_second(paper: Open) -> None:
    """Every process reads five models of 16 GB in each step: at the assumed 2 GB/s more than scoring itself takes."""
    eight, shares = machine("h100x8"), []
    for rate in (2e9, 1e9):
        seconds = estimate(*paper(), replace(eight, device=replace(eight.device, reading=rate)))[-1].seconds
        assert seconds is not None
        shares.append(seconds.teachers_share)
    assert shares[0] < 0.15 < shares[1]


def test_time_has_the_names_of_a_runs_clock(paper: Open) -> None:
    """Teachers score, where they lecture too."""
    seconds, full = (estimates(paper(*sets), "h100x8")["mt-opd"].seconds for sets in ((), FULL))
    for each in (seconds, full):
        assert each is not None
        assert sum(getattr(each, kind, 0.0) for kind in KINDS) == pytest.approx(each.total)
    assert seconds is not None
    assert full is not None
    assert (seconds.score, seconds.train) == (seconds.teachers, seconds.update)
    assert (full.score, full.train) == (full.lectures, full.update)


def test_every_minibatch_has_its_own_lectures(paper: Open) -> None:
    """The same tokens, but five models read once more."""
    read = 4 * 4_022_468_096 / 2e9
    once, twice = (estimates(paper(*FULL, f"stages.mt-opd.updates={n}"), "h100x8")["mt-opd"].seconds for n in (1, 2))
    assert once is not None
    assert twice is not None
    assert twice.lectures - once.lectures == pytest.approx(5 * read)


def test_the_scale_of_the_papers_table_2(paper: Open) -> None:
    """4782.3 GPU-hours for math and 967.9 for MT-OPD, on devices that it does not name: within a factor of five."""
    found = estimates(paper(), "h100x8")
    for stage, published in {"math": 4782.3, "mt-opd": 967.9}.items():
        hours = found[stage].device_hours
        assert hours is not None
        assert published / 5 < hours < published * 5


def test_old_and_reference_log_probs_are_scored_where_they_are_needed(paper: Open) -> None:
    once = estimates(paper(), "h100x8")["math"].seconds
    twice = estimates(paper("stages.math.updates=2"), "h100x8")["math"].seconds
    anchored = estimates(paper("stages.math.algorithm={use: parts, loss: anchored}"), "h100x8")["math"]
    assert once is not None
    assert twice is not None
    assert anchored.seconds is not None
    assert anchored.memory is not None
    assert (once.old, once.reference) == (0, 0)
    assert twice.old == anchored.seconds.reference > 0
    assert anchored.seconds.old == 0, "with one update, the update itself finds them"
    assert anchored.memory.frozen == 4 * 4_022_468_096 / 8 + 2 * 151936 * 2560


def test_device_hours_are_steps_times_seconds_times_devices(paper: Open) -> None:
    found = estimates(paper(), "h100x8")["math"]
    assert found.seconds is not None
    assert found.device_hours == pytest.approx(400 * found.seconds.total * 8 / 3600)
    assert found.seconds.total == found.seconds.rollout + found.seconds.update


def test_a_stage_whose_engine_would_stop_it_has_no_time(paper: Open) -> None:
    found = estimates(paper("engine.use=embedded"), "h100x8")["math"]
    assert found.seconds is None
    assert found.device_hours is None
    assert "engine.cache_gib" in found.problems[0]
