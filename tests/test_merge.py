"""Merging against whole-model references: exact, the same for any threads and blocks, whole or not there at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from m2rl_core.config import MergeStage, Study
from m2rl_core.errors import ConfigError, DataError, StageError
from m2rl_core.files import read_jsonl
from m2rl_core.interfaces import ComponentConfig, Merger, Pass
from m2rl_core.merge import merge, merge_models
from m2rl_core.plugins import load_plugins
from m2rl_core.run import NodeView, StageRun
from m2rl_core.testing import merge_tensors
from m2rl_core.testing.family import family
from m2rl_core.types import Block, Stats
from m2rl_core.weights import LEAF, Writer, fingerprint, stream_named
from m2rl_merger_average import Average
from m2rl_merger_task_arithmetic import TaskArithmetic

ADD = TaskArithmetic(TaskArithmetic.Config())
MEAN = Average(Average.Config())


class Plain(Merger):
    """A merger for tests: everything as simple as can be."""

    name: ClassVar[str] = "plain"
    reference: ClassVar[str] = "test"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    granularity: Literal["block", "rows", "tensor"] = "block"
    needs_base = False

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        return [block.experts_E[0].clone()]


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(stream_named(folder))


def vectors(rows: Sequence[Sequence[float]]) -> list[dict[str, Tensor]]:
    return [{"w": torch.tensor(row)} for row in rows]


def big(folder: Path, seed: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A folder with a tensor of several blocks and a small one."""
    folder.mkdir(parents=True)
    noise = torch.Generator().manual_seed(seed)
    values = {"big": torch.randn(2 * LEAF + 17, generator=noise), "small": torch.randn(3, 5, generator=noise)}
    with Writer(folder, {name: (dtype, tuple(value.shape)) for name, value in values.items()}) as writer:
        for name, value in values.items():
            writer.write(name, 0, value.flatten().to(dtype))
    (folder / "config.json").write_text("{}")
    return folder


# ── the numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", ["tied", "untied", "sharded"])
def test_equals_the_whole_model_in_float64(tmp_path: Path, form: str) -> None:
    """At most one bf16 step away, and nearly everywhere equal."""
    models = family(tmp_path, 3, tied=form != "untied", shard_bytes=9000 if form == "sharded" else 1 << 40)
    base = models.pop("base")
    assert (base / "model.safetensors.index.json").exists() == (form == "sharded")
    merge_models(MEAN, base=base, experts=models, out=tmp_path / "mean")
    merge_models(ADD, base=base, experts=models, out=tmp_path / "sum")
    anchor, experts = weights(base), [weights(path) for path in models.values()]
    assert ("lm_head.weight" in anchor) == (form == "untied")
    apart = []
    for name, start in anchor.items():
        stacked = torch.stack([expert[name].double() for expert in experts])
        exact = {"mean": stacked.mean(0), "sum": start.double() + (stacked - start.double()).sum(0)}
        for out, wanted in exact.items():
            found = weights(tmp_path / out)[name]
            assert found.shape == start.shape
            apart.append((found.view(torch.int16).int() - wanted.bfloat16().view(torch.int16).int()).abs().flatten())
    steps = torch.cat(apart)
    assert steps.max() <= 1
    assert (steps > 0).float().mean() < 1e-4


@pytest.mark.parametrize("form", ["tied", "untied", "sharded"])
def test_the_result_opens_in_transformers_and_generates(tmp_path: Path, form: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = family(tmp_path, tied=form != "untied", shard_bytes=9000 if form == "sharded" else 1 << 40)
    out = tmp_path / "out"
    merge_models(ADD, base=models.pop("base"), experts=models, out=out, dtype="float32")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.float32
    stored, loaded = weights(out), model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())
    drawn = model.generate(torch.tensor([[2, 3]]), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert drawn.shape == (1, 6)
    assert AutoTokenizer.from_pretrained(out).vocab_size == model.config.vocab_size


def test_no_byte_depends_on_threads(tmp_path: Path) -> None:
    base = big(tmp_path / "base", 0)
    experts = {f"e{seed}": big(tmp_path / f"e{seed}", seed) for seed in (1, 2, 3)}
    for threads in (1, 2, 5):
        merge_models(ADD, base=base, experts=experts, out=tmp_path / f"out{threads}", threads=threads)
    for name in ("model.safetensors", "README.md", "config.json"):
        assert len({(tmp_path / f"out{threads}" / name).read_bytes() for threads in (1, 2, 5)}) == 1


def test_types_may_differ_and_the_anchors_is_kept_unless_another_is_named(tmp_path: Path) -> None:
    base = big(tmp_path / "base", 0, torch.float16)
    experts = {"one": big(tmp_path / "one", 1, torch.float32), "two": big(tmp_path / "two", 2, torch.bfloat16)}
    merge_models(MEAN, base=base, experts=experts, out=tmp_path / "kept")
    merge_models(MEAN, base=base, experts=experts, out=tmp_path / "named", dtype="float32")
    exact = (weights(experts["one"])["big"] + weights(experts["two"])["big"].float()) / 2
    assert torch.equal(weights(tmp_path / "named")["big"], exact)
    assert torch.equal(weights(tmp_path / "kept")["big"], exact.half())
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["dtype"] == "float16"


def test_rows_and_tensors_come_whole(tmp_path: Path) -> None:
    class Ranked(Plain):
        """Sorts what it gets along the last axis: right only for whole rows."""

        granularity: Literal["block", "rows", "tensor"] = "rows"

        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            return [block.experts_E[0].sort(-1).values]

    class Centred(Plain):
        granularity: Literal["block", "rows", "tensor"] = "tensor"

        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            return [block.experts_E[0] - block.experts_E[0].mean()]

    noise = torch.Generator().manual_seed(5)
    shapes = {"scalar": (), "vector": (9,), "matrix": (6, 5), "stack": (2, 3, 4), "empty": (0, 4)}
    expert = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
    (ranked,) = merge_tensors(Ranked(), tmp_path / "rows", None, [expert], block=11, threads=2)
    (centred,) = merge_tensors(Centred(), tmp_path / "tensors", None, [expert], block=11, threads=2)
    for name, tensor in expert.items():
        assert torch.equal(ranked[name], tensor.sort(-1).values if tensor.dim() else tensor)
        torch.testing.assert_close(centred[name], tensor - tensor.mean() if tensor.numel() else tensor)


def test_several_outputs_in_one_reading(tmp_path: Path) -> None:
    class Sweep(Plain):
        needs_base = True

        def outputs(self) -> Sequence[str]:
            return ("half", "full")

        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            assert block.base is not None
            return [block.base + scale * block.deltas_E.sum(0) for scale in (0.5, 1.0)]

    models = family(tmp_path)
    base = models.pop("base")
    out = {name: tmp_path / name for name in ("half", "full")}
    read: list[tuple[int, int]] = []
    merge_models(Sweep(), base=base, experts=models, out=out, report=lambda *progress: read.append(progress))
    assert read[-1][0] == read[-1][1] == 3 * sum(t.nbytes for t in weights(base).values())
    merge_models(ADD, base=base, experts=models, out=tmp_path / "one")
    assert (out["full"] / "model.safetensors").read_bytes() == (tmp_path / "one" / "model.safetensors").read_bytes()
    assert (out["half"] / "model.safetensors").read_bytes() != (tmp_path / "one" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="'half', 'full'"):
        merge_models(Sweep(), base=base, experts=models, out=tmp_path / "wrong")


@dataclass
class Sum:
    name: str
    scope: Literal["model", "tensor"]
    seen: str = ""

    def measure(self, block: Block, stats: Stats) -> float:
        return float(block.experts_E[0].double().sum()) + (float(stats[self.seen]) if self.seen else 0.0)

    def combine(self, left: float, right: float) -> float:
        return left + right


def test_passes_see_those_before_them_whatever_their_scope(tmp_path: Path) -> None:
    """Each block adds what an earlier pass found: blocks of 2 elements, so that "c" counts "b" as often as blocks."""

    class Chained(Plain):
        def passes(self) -> Sequence[Pass]:
            return [Sum("a", "tensor"), Sum("b", "model", "a"), Sum("c", "tensor", "b"), Sum("d", "tensor", "a")]

        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            found = [stats["a"], stats["b"], stats["c"], stats["d"]]
            return [torch.tensor(found[block.offset // 2]).expand(block.shape).float()]

    expert = {"one": torch.full((8,), 1.0), "two": torch.full((8,), 10.0)}
    for threads in (1, 3):
        (found,) = merge_tensors(Chained(), tmp_path / str(threads), None, [expert], block=2, threads=threads)
        both = 88 + 4 * 8 + 4 * 80
        assert found["one"][::2].tolist() == [8, both, 8 + 4 * both, 8 + 4 * 8]
        assert found["two"][::2].tolist() == [80, both, 80 + 4 * both, 80 + 4 * 80]


def test_a_merger_tells_what_its_passes_found(tmp_path: Path) -> None:
    """As a mean over the weights, in the metrics and on the card."""

    class Telling(Plain):
        def passes(self) -> Sequence[Pass]:
            return [Sum("whole", "model"), Sum("own", "tensor")]

        def diagnostics(self, experts: Sequence[str], stats: Stats) -> dict[str, float]:
            return {f"whole/{experts[0]}": stats["whole"], "own": stats["own"]}

    models = family(tmp_path)
    del models["base"]
    found = merge_models(Telling(), base=None, experts=models, out=tmp_path / "out", threads=2)
    sums = {name: (float(t.double().sum()), t.numel()) for name, t in weights(models["math"]).items()}
    mean = sum(total * size for total, size in sums.values()) / sum(size for _, size in sums.values())
    assert found.metrics["own"] == pytest.approx(mean, rel=1e-9)
    assert found.metrics["whole/math"] == pytest.approx(sum(total for total, _ in sums.values()), rel=1e-9)
    assert f"| own | {mean:.6g} |" in (tmp_path / "out" / "README.md").read_text()


# ── mergers that break their contract ────────────────────────────────────────────────────────────────────────────────


def test_a_merger_that_fails_or_returns_rubbish_is_named(tmp_path: Path) -> None:
    class Broken(Plain):
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def merge(self, block: Block, stats: Stats) -> list[Tensor]:
            return list(self.answer(block))

    answers = {
        "nothing": lambda block: [],
        "two": lambda block: [block.experts_E[0]] * 2,
        "shape": lambda block: [block.experts_E],
        "type": lambda block: [block.experts_E[0].half()],
        "raises": lambda block: 1 / 0,
    }
    for name, answer in answers.items():
        with pytest.raises(StageError, match=r"merger 'plain' .*w"):
            merge_tensors(Broken(answer), tmp_path / name, None, vectors([[1.0, 2.0]]))


# ── what stands beside the weights ───────────────────────────────────────────────────────────────────────────────────


def test_the_anchors_tokenizer_and_settings_come_along(tmp_path: Path) -> None:
    models = family(tmp_path)
    base = models.pop("base")
    (base / "generation_config.json").write_text('{"max_new_tokens": 9}')
    (base / "optimizer.pt").write_text("not this")
    out = tmp_path / "out"
    merge_models(ADD, base=base, experts=models, out=out)
    copied = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*copied, "config.json", "README.md", "model.safetensors"])
    assert all((out / name).read_bytes() == (base / name).read_bytes() for name in copied)
    assert json.loads((out / "config.json").read_text()) == json.loads((base / "config.json").read_text())


def test_the_card_says_how_to_do_it_again_and_what_was_found(tmp_path: Path) -> None:
    models = family(tmp_path)
    base = models.pop("base")
    found = merge_models(ADD, base=base, experts=models, out=tmp_path / "out", threads=2)
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("use: task-arithmetic", "scale: 1.0", f"base: {base}", f"math: {models['math']}", "2212.04089"):
        assert said in card
    assert found.fingerprints == {name: fingerprint(path) for name, path in {"base": base, **models}.items()}
    assert all(digest in card for digest in found.fingerprints.values())
    flat = {name: torch.cat([t.flatten().double() for t in weights(path).values()]) for name, path in models.items()}
    anchor = torch.cat([t.flatten().double() for t in weights(base).values()])
    one, two = (flat[name] - anchor for name in ("math", "science"))
    wanted = {
        "norm/math": one.norm(),
        "norm/science": two.norm(),
        "relative/math": one.norm() / anchor.norm(),
        "relative/science": two.norm() / anchor.norm(),
        "changed/math": (one != 0).double().mean(),
        "changed/science": (two != 0).double().mean(),
        "cosine/math/science": torch.cosine_similarity(one, two, dim=0),
        "sign_conflict": (one * two < 0).double().mean(),
    }
    assert found.metrics == pytest.approx({name: float(value) for name, value in wanted.items()}, rel=1e-5)


def test_without_a_base_the_experts_distance_from_their_mean_is_told(tmp_path: Path) -> None:
    models = family(tmp_path)
    del models["base"]
    found = merge_models(MEAN, base=None, experts=models, out=tmp_path / "out")
    flat = [torch.cat([t.flatten().double() for t in weights(path).values()]) for path in models.values()]
    distance = float((flat[0] - flat[1]).norm()) / 2
    assert found.metrics == pytest.approx({"norm/math": distance, "norm/science": distance}, rel=1e-5)
    assert "distance from their mean" in (tmp_path / "out" / "README.md").read_text()


def test_an_expert_far_from_the_base_is_pointed_out(tmp_path: Path) -> None:
    models = family(tmp_path, 1, moved=0.5)
    found = merge_models(ADD, base=models.pop("base"), experts=models, out=tmp_path / "out")
    assert found.warnings
    assert found.warnings[0] in (tmp_path / "out" / "README.md").read_text()


# ── whole or not there ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_kill_leaves_nothing_that_looks_whole_and_the_next_run_succeeds(tmp_path: Path) -> None:
    base = big(tmp_path / "base", 0)
    big(tmp_path / "one", 1)
    script = f"""
import time
from pathlib import Path
from m2rl_merger_average import Average
from m2rl_core.merge import merge_models
def stop(done, total):
    print(flush=True)
    time.sleep(60)
root = Path({str(tmp_path)!r})
merge_models(Average(Average.Config()), base=root / "base", experts={{"one": root / "one"}},
             out=root / "out", report=stop)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert not (tmp_path / "out").exists()
    left = [path for path in tmp_path.iterdir() if path.name not in ("base", "one")]
    assert all(path.name.startswith(".") for path in left)
    assert any((path / "model.safetensors").exists() for path in left)
    merge_models(MEAN, base=base, experts={"one": tmp_path / "one"}, out=tmp_path / "out")
    assert torch.equal(weights(tmp_path / "out")["big"], weights(tmp_path / "one")["big"])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """An embedding of 33 million weights needs no more than one of 4 million."""
    script = """
import sys
from pathlib import Path
from m2rl_merger_task_arithmetic import TaskArithmetic
from m2rl_core.merge import merge_models
root = Path(sys.argv[1])
experts = {name: root / name for name in ("math", "science")}
merge_models(TaskArithmetic(TaskArithmetic.Config()), base=root / "base", experts=experts, out=root / "out", threads=2)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""
    peaks = []
    for words in (8192, 65536):
        root = tmp_path / str(words)
        family(root, vocab_size=words, hidden_size=512)
        done = subprocess.run([sys.executable, "-c", script, root], check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout) / 1024)
    assert max(peaks) < 600
    assert peaks[1] < 1.1 * peaks[0]


# ── as a stage ───────────────────────────────────────────────────────────────────────────────────────────────────────


def stage_run(tmp_path: Path, merger: Any) -> StageRun[MergeStage]:
    models = family(tmp_path / "models")
    stage = MergeStage(kind="merge", base="base", experts=["math", "science"], merger=merger)
    study = Study(name="test", stages={"merged": stage})
    return StageRun(
        name="merged", stage=stage, study=study, seed=1, folder=tmp_path / "run", models=models, registry=load_plugins()
    )


def test_the_stage_writes_a_checkpoint_and_one_line_of_metrics(tmp_path: Path) -> None:
    run = stage_run(tmp_path, {"use": "task-arithmetic", "scale": 0.5})
    merge(run)
    run.close()
    merge_models(
        TaskArithmetic(TaskArithmetic.Config(scale=0.5)),
        base=run.models["base"],
        experts={name: run.models[name] for name in ("math", "science")},
        out=tmp_path / "alone",
    )
    found = [(folder / "model.safetensors").read_bytes() for folder in (run.folder / "checkpoint", tmp_path / "alone")]
    assert found[0] == found[1]
    (row,) = read_jsonl(run.folder / "metrics.jsonl")
    assert row["step"] == 0
    assert 0 < row["norm/math"] < 1


def trained(run: StageRun[MergeStage], kind: str) -> None:
    """Say of both experts that a stage of the study has made them."""
    run.nodes = [NodeView(name, name, kind, run.models[name].parent, 1, (), name) for name in ("math", "science")]


def test_experts_whose_training_moved_nothing_are_merged_and_told_of(tmp_path: Path) -> None:
    """Where no group of a short training has a signal, that is a result: the task vector is zero."""
    run = stage_run(tmp_path, {"use": "task-arithmetic", "scale": 1.0})
    trained(run, "rl")
    for name in ("math", "science"):
        shutil.copy(run.models["base"] / "model.safetensors", run.models[name] / "model.safetensors")
    merge(run)
    run.close()
    base, merged = (dict(stream_named(folder)) for folder in (run.models["base"], run.folder / "checkpoint"))
    assert all(torch.equal(tensor, merged[name]) for name, tensor in base.items())
    (row,) = read_jsonl(run.folder / "metrics.jsonl")
    assert (row["norm/math"], row["changed/math"], row["cosine/math/science"]) == (0, 0, 0)
    card = (run.folder / "checkpoint" / "README.md").read_text()
    for name in ("math", "science"):
        assert card.count(f"Training moved no weight: expert '{name}' equals the base.") == 1


def test_an_imported_expert_that_is_the_base_is_refused_in_a_study_too(tmp_path: Path) -> None:
    run = stage_run(tmp_path, "average")
    trained(run, "model")
    shutil.copy(run.models["base"] / "model.safetensors", run.models["math"] / "model.safetensors")
    with pytest.raises(DataError, match="expert 'math' has the same weights as the base"):
        merge(run)


def test_the_stage_refuses_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(
        "from m2rl_core.hookspecs import hookimpl\n"
        "from m2rl_core.interfaces import ComponentConfig\n"
        "class Sweep:\n"
        "    name, reference, Config = 'sweep', 'test', ComponentConfig\n"
        "    def __init__(self, config): pass\n"
        "    def outputs(self): return ('a', 'b')\n"
        "@hookimpl\n"
        "def m2rl_mergers(): return [Sweep]\n"
    )
    run = stage_run(tmp_path, "sweep")
    run.registry = load_plugins([tmp_path / "sweep.py"])
    with pytest.raises(ConfigError, match=r"stages\.merged\.merger.*a, b"):
        merge(run)
