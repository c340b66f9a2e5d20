"""The laboratory against naive references, over a tiny study whose every stage is real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from m2rl_core.analyze import Laboratory, analyze, draws
from m2rl_core.cli import app
from m2rl_core.config import AnalyzeStage, Study
from m2rl_core.errors import DataError, StageError, VerifierError
from m2rl_core.files import read_jsonl
from m2rl_core.findings import read_findings
from m2rl_core.interfaces import Lab
from m2rl_core.plugins import load_plugins
from m2rl_core.policy import Policy
from m2rl_core.rollout.episodes import Sampler
from m2rl_core.run import StageRun
from m2rl_core.study import plan, run_study
from m2rl_core.types import Divergence, Prompt, Sample, Sampling

PLUGIN = Path(__file__).parent / "even_plugin.py"
RL = {
    "kind": "rl", "init": "start", "algorithm": "plain", "steps": 2, "prompts": 4, "group": 4, "max_tokens": 4,
    "lr": 0.02, "keep_every": 1, "tokens_per_device": 512,
}  # fmt: skip
ANALYZE = {"kind": "analyze", "analyzer": "look", "tokens_per_device": 256}


class Quiet:
    """Progress that nobody watches."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def cached(self, stage: str) -> None: ...
    def started(self, stage: str) -> None: ...
    def event(self, stage: str, fields: Any) -> None: ...
    def finished(self, stage: str, seconds: float) -> None:
        self.done.append(stage)

    def failed(self, stage: str, message: str) -> None: ...


class Bench:
    """The study's file, its runs, and the laboratory of its stage ``look``."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        shutil.copy(PLUGIN, folder / "even.py")
        self.tree: dict[str, Any] = {
            "name": "tiny",
            "model": {"dtype": "float32"},
            "plugins": ["even.py"],
            "domains": {n: {"use": "even", "prefix": n, "reasoning": "off"} for n in ("a", "b")},
            "stages": {
                "start": {"kind": "model", "path": str(model)},
                "exp-a": {**RL, "domains": ["a"]},
                "exp-b": {**RL, "domains": ["b"]},
                "multi": {**RL, "domains": ["a", "b"]},
                "avg": {"kind": "merge", "base": "start", "experts": ["exp-a", "exp-b"], "merger": "average"},
                "evals": {"kind": "eval", "models": ["start", "exp-a", "multi"], "max_tokens": 4},
                "look": ANALYZE,
            },
        }

    def run(self, only: str | None = None, **stages: Any) -> Quiet:
        tree = self.tree | {"stages": self.tree["stages"] | stages}
        progress = Quiet()
        source, study = self.folder / "study.yaml", Study.model_validate(tree)
        run_study(study, source=source, runs=self.folder / "runs", only=only, progress=progress, parallel=0)
        return progress

    def stage_run(self, out: Path, **changes: Any) -> StageRun[AnalyzeStage]:
        """The run of stage ``look``, in a folder of its own."""
        study = Study.model_validate(self.tree).model_copy(update={"plugins": [str(self.folder / "even.py")]})
        registry = load_plugins(study.plugins)
        nodes = plan(study, registry, self.folder / "runs")
        by_id = {node.id: node for node in nodes}
        [node] = [node for node in nodes if node.id == "look"]
        stage = AnalyzeStage.model_validate({**ANALYZE, **changes.pop("stage", {})})
        return StageRun(
            name="look", stage=stage, study=changes.pop("study", study), seed=5, folder=out,
            models={name: by_id[maker].folder / part for name, (maker, part) in node.models.items()},
            registry=registry, nodes=tuple(each.view for each in nodes if each.id != "look"), key="k", **changes,
        )  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Bench:
    """Everything is done, the analysis too."""
    found = Bench(tmp_path_factory.mktemp("bench"), tiny_model)
    assert "look" in found.run().done
    return found


@pytest.fixture
def lab(bench: Bench, tmp_path: Path) -> Laboratory:
    return Laboratory(bench.stage_run(tmp_path / "look"))


def drawn(lab: Lab, model: str = "exp-a", n: int = 2, **how: Any) -> list[list[Sample]]:
    return lab.generate(model, lab.prompts("a", "a-easy")[:3], Sampling(5, seed=3), n, **how)


def flat(groups: list[list[Sample]]) -> list[Sample]:
    return [sample for group in groups for sample in group]


def naive_logps(folder: Path, sample: Sample) -> Tensor:
    """Float64 [L, V]: log-softmax of the logits before each token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([sample.ids_L])).logits[0]
    before = torch.cat([torch.zeros_like(logits[:1]), logits[:-1]])
    return before.log_softmax(-1)


# ── what is at hand ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lab_knows_the_models_and_their_parts_in_the_experiment(lab: Laboratory) -> None:
    assert list(lab.models) == ["start", "exp-a", "exp-b", "multi", "avg"]
    assert lab.experts == {"a": "exp-a", "b": "exp-b"}
    assert lab.arms == {"multi": "mix", "avg": "merge"}
    assert lab.start == "start"
    assert (lab.models["multi@1"] / "model.safetensors").is_file()
    assert "multi@3" not in lab.models


def test_what_a_study_has_left_is_read(lab: Laboratory) -> None:
    assert [line["step"] for line in lab.metrics("multi")] == [0, 1]
    stored = list(lab.samples("multi", limit=5))
    assert len(stored) == 5
    assert len(list(lab.samples("multi"))) == 2 * 4 * 4
    assert stored[0].length == sum(stored[0].sampled_L) > 0
    records = lab.scores("exp-a")
    assert list(records) == ["a-easy", "b-easy"]
    assert [(r["prompt"], r["sample"]) for r in records["a-easy"]][:3] == [
        ("a-easy/0", 0), ("a-easy/0", 1), ("a-easy/1", 0),
    ]  # fmt: skip
    assert [prompt.domain for prompt in lab.prompts("b", "train")] == ["b"] * 8


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda lab: lab.scores("avg"), "no evaluation of model 'avg' .*Allowed: start, exp-a, multi"),
        (lambda lab: lab.metrics("mult"), "no metrics.jsonl of stage 'mult' .*Did you mean 'multi'"),
        (lambda lab: lab.samples("avg"), "no rollouts.jsonl of stage 'avg'"),
        (lambda lab: lab.prompts("c", "train"), "no domain 'c' .*Allowed: a, b"),
        (lambda lab: lab.logps("exp-c", []), "no model 'exp-c' .*Did you mean"),
        (lambda lab: drawn(lab, "exp-c"), "no model 'exp-c'"),
        (lambda lab: lab.gradients("multi", "avg", []), "no rl stage 'avg' .*Allowed: exp-a, exp-b, multi"),
        (lambda lab: next(lab.blocks("start", ["x"])), "no model 'x'"),
    ],
)
def test_what_is_not_there_is_named(lab: Laboratory, ask: Callable[[Lab], object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ask(lab)


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def no_sampler(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing should be drawn")


def test_samples_are_verified_and_drawn_once(bench: Bench, lab: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    first = drawn(lab)
    assert [len(group) for group in first] == [2, 2, 2]
    assert all(s.reward == replace(s.reward, value=float(len(s.trajectory.answer) % 2 == 0)) for s in flat(first))
    assert all(s.reward.metrics == {"length": float(len(s.trajectory.answer))} for s in flat(first))
    monkeypatch.setattr(draws, "open_sampler", no_sampler)
    again = Laboratory(bench.stage_run(lab._run.folder))
    assert drawn(again) == first
    with pytest.raises(AssertionError, match="nothing should be drawn"):
        drawn(again, "exp-b")


def test_chunks_and_order_change_no_sample(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(Laboratory(bench.stage_run(tmp_path / "whole")))
    monkeypatch.setattr(draws, "CHUNK", 2)
    lab = Laboratory(bench.stage_run(tmp_path / "parts"))
    prompts = lab.prompts("a", "a-easy")
    assert lab.generate("exp-a", [prompts[2], prompts[0], prompts[2]], Sampling(5, seed=3), 2) == [
        whole[2], whole[0], whole[2],
    ]  # fmt: skip
    assert drawn(lab) == whole


def test_a_killed_drawing_draws_only_what_is_missing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = drawn(Laboratory(bench.stage_run(tmp_path / "whole")))
    monkeypatch.setattr(draws, "CHUNK", 2)
    original, asked = Sampler.rollout, list[list[str]]()

    def rollout(sampler: Sampler, prompts: Any, *rest: Any) -> Any:
        asked.append([prompt.id for prompt in prompts])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(sampler, prompts, *rest)

    monkeypatch.setattr(Sampler, "rollout", rollout)
    with pytest.raises(KeyboardInterrupt):
        drawn(Laboratory(bench.stage_run(tmp_path / "killed")))
    [file] = (tmp_path / "killed" / "drawn").glob("*.jsonl")
    with file.open("a") as torn:
        torn.write('{"key": "half a li')
    assert drawn(Laboratory(bench.stage_run(tmp_path / "killed"))) == whole
    assert asked == [["a-easy/0"], ["a-easy/1"], ["a-easy/1"], ["a-easy/2"]]
    assert [len(row["samples"]) for row in read_jsonl(file)] == [2, 2, 2]


def test_prompts_of_no_domain_are_drawn_unverified(lab: Laboratory) -> None:
    judge = [Prompt(f"judge/{i}", "judge", ({"role": "user", "content": f"is {i} right?"},)) for i in range(2)]
    with pytest.raises(DataError, match="no domain 'judge'"):
        lab.generate("multi", judge, Sampling(4), 2)
    groups = lab.generate("multi", judge, Sampling(4), 2, verify=False)
    assert {s.reward.value for s in flat(groups)} == {None}
    assert all(0 < s.length <= 4 for s in flat(groups))
    assert lab.generate("multi", judge, Sampling(4), 2, verify=False) == groups


def test_two_prompts_of_one_id_are_refused(lab: Laboratory) -> None:
    twins = [Prompt("x", "a", ({"role": "user", "content": text},), 1) for text in ("one", "two")]
    with pytest.raises(DataError, match="two different prompts of domain 'a' are called 'x'"):
        lab.generate("multi", twins, Sampling(4), 1)


def test_failed_verdicts_stop_the_drawing_or_are_drawn_again(bench: Bench, tmp_path: Path) -> None:
    run = bench.stage_run(tmp_path / "broken")
    sections = {n: s.model_copy(update={"config": {**s.config, "broken": 1}}) for n, s in run.study.domains.items()}
    broken = run.study.model_copy(update={"domains": sections})
    with pytest.raises(VerifierError, match=r"4 of 6 verdicts failed.*stages\.look\.verifier_failures"):
        drawn(Laboratory(bench.stage_run(tmp_path / "broken", study=broken)))
    lenient = bench.stage_run(tmp_path / "broken", study=broken, stage={"verifier_failures": 0.9})
    found = drawn(Laboratory(lenient))
    assert [s.reward.value is None for s in flat(found)] == [False, False, True, True, True, True]
    [file] = (tmp_path / "broken" / "drawn").glob("*.jsonl")
    assert len(list(read_jsonl(file))) == 1


# ── scoring ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_logps_are_those_of_the_plain_model(lab: Laboratory) -> None:
    samples = flat(drawn(lab))
    for model in ("exp-a", "multi@1"):
        for sample, logps_L in zip(samples, lab.logps(model, samples), strict=True):
            ids = torch.tensor(sample.ids_L)[:, None]
            naive = naive_logps(lab.models[model], sample).gather(1, ids)[:, 0] * torch.tensor(sample.sampled_L)
            assert logps_L.dtype == torch.float32
            torch.testing.assert_close(logps_L, naive.float(), atol=2e-5, rtol=1e-5)
    own = torch.cat(lab.logps("exp-a", samples))
    torch.testing.assert_close(own, torch.tensor([x for s in samples for x in s.logps_L]), atol=2e-5, rtol=1e-5)


def test_divergences_are_those_of_whole_distributions(lab: Laboratory) -> None:
    samples = flat(drawn(lab))
    both = lab.divergences("exp-a", "multi", samples, Divergence("reverse"))
    back = lab.divergences("exp-a", "multi", samples, Divergence("forward"))
    assert all(torch.equal(a, b) for a, b in zip(
        lab.divergences("multi", "exp-a", samples, Divergence("reverse")), back, strict=True))  # fmt: skip
    for sample, reverse_L, forward_L in zip(samples, both, back, strict=True):
        p, q = (naive_logps(lab.models[name], sample) for name in ("exp-a", "multi"))
        drawn_L = torch.tensor(sample.sampled_L)
        naive = (p.exp() * (p - q)).sum(-1) * drawn_L
        assert naive.max() > 1e-4
        torch.testing.assert_close(reverse_L, naive.float(), atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(forward_L, ((q.exp() * (q - p)).sum(-1) * drawn_L).float(), atol=1e-5, rtol=1e-3)


def test_a_model_does_not_diverge_from_itself(lab: Laboratory) -> None:
    samples = flat(drawn(lab))
    for found_L in lab.divergences("multi", "multi", samples, Divergence("reverse")):
        assert found_L.abs().max() < 1e-6


def test_nothing_costs_nothing(lab: Laboratory) -> None:
    assert lab.logps("multi", []) == []
    assert lab.divergences("multi", "exp-a", [], Divergence("reverse")) == []
    assert lab.generate("multi", [], Sampling(4), 2) == []


def test_models_of_other_tokens_are_not_compared(bench: Bench, tmp_path: Path, lab: Laboratory) -> None:
    other = tmp_path / "other"
    shutil.copytree(lab.models["multi"].resolve(), other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[20:22]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    run = bench.stage_run(tmp_path / "look")
    run.models = {**run.models, "other": other}
    with pytest.raises(DataError, match="'multi' and 'other' read other tokens"):
        Laboratory(run).divergences("multi", "other", flat(drawn(lab)), Divergence("reverse"))


# ── gradients and weights ────────────────────────────────────────────────────────────────────────────────────────────


def by_hand(folder: Path, groups: list[list[Sample]]) -> dict[str, Tensor]:
    """Float64 gradients of the loss of ``plain``: Σ weight · keep · −A · logp, over all kept tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    total, kept = torch.zeros((), dtype=torch.float64), 0
    for group in groups:
        mean = sum(s.reward.value or 0.0 for s in group) / len(group)
        for s in group:
            ids = torch.tensor(s.ids_L)
            logits = model(ids[None]).logits[0]
            at = torch.nonzero(torch.tensor(s.sampled_L))[:, 0]
            logps = logits.log_softmax(-1)[at - 1].gather(1, ids[at][:, None])[:, 0]
            weight = (logps.detach() - torch.tensor(s.logps_L)[at]).exp() / 2
            keep = logps.detach() > -6.0
            total = total - (weight * keep * ((s.reward.value or 0.0) - mean) * logps).sum()
            kept += int(keep.sum())
    torch.autograd.backward(total / kept)
    return {name: p.grad for name, p in model.named_parameters()}


def test_gradients_are_those_of_the_stages_loss(lab: Laboratory) -> None:
    groups = lab.generate("exp-a", lab.prompts("a", "train")[:4], Sampling(5, seed=9), 4)
    before = [replace(sample) for sample in flat(groups)]
    found = dict(lab.gradients("multi", "multi", groups))
    naive = by_hand(lab.models["multi"], groups)
    assert found.keys() == naive.keys()
    assert sum(float(g.square().sum()) for g in naive.values()) > 1e-6
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, naive[name].float(), atol=2e-6, rtol=2e-4)
    assert flat(groups) == before


def test_groups_of_equal_rewards_have_no_gradient(lab: Laboratory) -> None:
    groups = [[replace(s, reward=replace(s.reward, value=1.0)) for s in group] for group in drawn(lab)]
    found = dict(lab.gradients("multi", "multi", groups))
    assert found.keys() == dict(Policy.load(lab.models["multi"], dtype="float32").model.named_parameters()).keys()
    assert not any(gradient.any() for gradient in found.values())


def test_blocks_are_the_weights_side_by_side(lab: Laboratory) -> None:
    from safetensors.torch import load_file

    stored = {name: load_file(lab.models[name] / "model.safetensors") for name in ("start", "exp-a", "avg")}
    seen: dict[str, list[int]] = {}
    for block in lab.blocks("start", ["exp-a", "avg"]):
        assert block.names_E == ("exp-a", "avg")
        assert block.base is not None
        part = slice(block.offset, block.offset + block.base.numel())
        seen.setdefault(block.name, []).append(block.base.numel())
        for name, values in zip(("start", "exp-a", "avg"), (block.base, *block.experts_E), strict=True):
            assert torch.equal(values.flatten(), stored[name][block.name].flatten()[part].float())
    assert {name: sum(sizes) for name, sizes in seen.items()} == {
        name: tensor.numel() for name, tensor in stored["start"].items() if name != "lm_head.weight"
    }


# ── the stage ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_stage_writes_findings_that_read_back_equal(bench: Bench) -> None:
    folder = bench.folder / "runs" / "tiny" / "look"
    found = read_findings(folder)
    assert [row[:2] for row in found.tables["looked"].rows] == [("a", "exp-a"), ("b", "exp-b")]
    for row in found.tables["looked"].rows:
        assert all(isinstance(value, float) and value > 0 for value in row[2:5])
        assert row[5] is None
    assert "NaN" not in (folder / "findings.json").read_text()
    assert [claim.verdict for claim in found.claims] == ["holds", "not measurable"]
    lines = (folder / "tables" / "looked.csv").read_text().splitlines()
    assert lines[0] == "domain,expert,KL,norm,moved,nothing"
    assert lines[1].startswith(f"a,exp-a,{found.tables['looked'].rows[0][2]!r},")
    assert lines[1].endswith(",")
    [line] = read_jsonl(folder / "metrics.jsonl")
    assert (line["claims"], line["claims/holds"], line["claims/not_measurable"]) == (2, 1, 1)
    assert {"rollout", "score", "train", "analyze"} <= set(next(read_jsonl(folder / "times.jsonl"))["seconds"])


def test_a_second_analysis_reads_what_the_first_has_drawn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = (bench.folder / "runs" / "tiny" / "look" / "findings.json").read_bytes()
    with monkeypatch.context() as nothing:
        nothing.setattr(draws, "open_sampler", no_sampler)
        done = bench.run(second=ANALYZE).done
    assert done == ["second"], "another analysis leaves the first one's key alone"
    assert (bench.folder / "runs" / "tiny" / "second" / "findings.json").read_bytes() == bytes_


def test_another_setting_is_another_analysis(bench: Bench) -> None:
    assert bench.run("third", third=ANALYZE).done == ["third"]
    assert bench.run("third", third={**ANALYZE, "verifier_failures": 0.5}).done == []
    assert bench.run("third", third={**ANALYZE, "analyzer": {"use": "look", "tokens": 4}}).done == ["third"]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"ragged": True}, StageError, "analyzer 'look' failed .*table 'looked': row 0 has 6 cells for 5 columns"),
        ({"ask": "avg"}, DataError, "no evaluation of model 'avg'"),
    ],
)
def test_a_failing_analyzer_is_named(
    bench: Bench, tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    run = bench.stage_run(tmp_path / "look", stage={"analyzer": {"use": "look", **settings}})
    with pytest.raises(error, match=message):
        analyze(run)
    assert not (tmp_path / "look" / "findings.json").exists()


# ── by itself ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_analyses_what_a_run_has_made(bench: Bench, tmp_path: Path) -> None:
    run = bench.folder / "runs" / "tiny"
    done = CliRunner().invoke(app, ["analyze", "look", "--study", str(run), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "Experts move away from the mixed model" in done.output
    alone, staged = read_findings(tmp_path / "out"), read_findings(run / "look")
    assert alone == staged
    inside = CliRunner().invoke(app, ["analyze", "look", "--study", str(run), "--out", str(run / "new")])
    assert inside.exit_code == 2
    assert "lies in the study's folder" in inside.stderr


def test_a_runs_kept_steps_are_looked_at(bench: Bench) -> None:
    interference = {"use": "interference", "prompts": 4, "samples": 4, "max_tokens": 4}
    stage = {**ANALYZE, "analyzer": interference, "models": ["multi@1", "multi@2"]}
    assert bench.run("apart", apart=stage).done == ["apart"]
    found = read_findings(bench.folder / "runs" / "tiny" / "apart")
    assert [row[1:4] for row in found.tables["cosines"].rows] == [
        (step, *pair) for step in (1, 2) for pair in (("a", "a"), ("b", "b"), ("a", "b"))
    ]
    norms = [row[3] for row in found.tables["norms"].rows]
    assert all(isinstance(norm, float) and norm > 0 for norm in norms)
