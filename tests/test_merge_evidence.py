"""Evidence for mergers: gathered as a naive reading of its definition says, checked, and gathered by a stage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

from m2rl_core.chat import Chat
from m2rl_core.cli import app
from m2rl_core.config import Study, check_components, check_references, grounded
from m2rl_core.errors import ConfigError, DataError, RunError
from m2rl_core.interfaces import ComponentConfig, Merger
from m2rl_core.merge import gather, load_recipe, merge_models, merge_recipe
from m2rl_core.merge.gather import gather_evidence
from m2rl_core.merge.sequences import conversations, drawn
from m2rl_core.plugins import Registry, load_plugins
from m2rl_core.rollout.records import to_record
from m2rl_core.study import plan, run_study
from m2rl_core.testing.family import family
from m2rl_core.types import Block, Sample, Stats
from m2rl_core.weights import Writer, stream_named
from m2rl_merger_evidence import Fisher

Make = Callable[..., Sample]


class Pick(Merger):
    """Says what it was shown: the Fisher of the first expert, or the sum of its Gram matrix, as every weight."""

    name: ClassVar[str] = "pick"
    reference: ClassVar[str] = "test"
    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    granularity = "tensor"
    needs_base = False

    def __init__(self, *needs: str) -> None:
        self.needs = frozenset(needs)

    def merge(self, block: Block, stats: Stats) -> list[Tensor]:
        if "fisher" in block.evidence:
            return [block.evidence["fisher"][0].clone()]
        if "gram" in block.evidence:
            return [block.evidence["gram"][0].sum().expand(block.shape).clone()]
        return [torch.zeros(block.shape)]


@pytest.fixture
def samples(make_sample: Make) -> list[Sample]:
    """Of different lengths; one is two sequences, as where earlier reasoning was dropped, and one says nothing."""
    found = [
        make_sample(length, drawn, seed, vocab=64) for seed, (length, drawn) in enumerate([(9, 4), (20, 11), (5, 1)])
    ]
    split = make_sample(24, 24, 7, vocab=64)
    split.starts, split.sampled_L = [0, 10], [i not in (0, 1, 10) for i in range(24)]
    return [*found, split, make_sample(6, 0, 8, vocab=64)]


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(stream_named(folder))


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def sequences(sample: Sample) -> Iterator[slice]:
    for start, stop in zip(sample.starts, [*sample.starts[1:], len(sample.ids_L)], strict=True):
        yield slice(start, stop)


def close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor.float(), rtol=1e-3, atol=1e-6 * float(tensor.abs().max()))


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [True, False])
def test_fisher_is_the_mean_of_squared_gradients_of_single_samples(
    tied: bool, tmp_path: Path, samples: list[Sample]
) -> None:
    """Against autograd on a plain model, sample by sample, sequence by sequence."""
    model = family(tmp_path, 1, tied=tied, dtype=torch.float32)["math"]
    gather_evidence(model, samples, frozenset({"fisher"}), tmp_path / "out", tokens_per_device=64)
    naive = plain(model)
    wanted = {name: torch.zeros_like(p) for name, p in naive.named_parameters()}
    for sample in samples:
        naive.zero_grad()
        said = torch.zeros(())
        for part in sequences(sample):
            ids = torch.tensor(sample.ids_L[part])
            logps = naive(ids[None]).logits[0].log_softmax(-1)
            for t in range(1, len(ids)):
                said = said + logps[t - 1, ids[t]] * float(sample.sampled_L[part][t])
        said.backward()  # type: ignore[no-untyped-call]
        for name, parameter in naive.named_parameters():
            wanted[name] += parameter.grad.square() / len(samples)
    close(weights(tmp_path / "out" / "fisher"), wanted)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("held", [1 << 31, 1])
def test_gram_is_the_mean_over_tokens_of_what_hooks_see(
    tied: bool, held: int, tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against hooks on a plain model's linear layers, whatever the number of layers that are watched at once."""
    monkeypatch.setattr(gather, "HELD_BYTES", held)
    model = family(tmp_path, 1, tied=tied, dtype=torch.float32)["math"]
    gather_evidence(model, samples, frozenset({"gram"}), tmp_path / "out", tokens_per_device=64)
    naive = plain(model).double()
    sums: dict[str, Tensor] = {}

    def look(name: str) -> Callable[..., None]:
        def add(layer: object, inputs: tuple[Tensor, ...]) -> None:
            states = inputs[0].detach()[0]
            sums[name] = sums.get(name, torch.zeros(())) + states.T @ states

        return add

    for name, layer in naive.named_modules():
        if isinstance(layer, torch.nn.Linear) and not (tied and name == "lm_head"):
            layer.register_forward_pre_hook(look(f"{name}.weight"))
    for sample in samples:
        for part in sequences(sample):
            naive(torch.tensor(sample.ids_L[part])[None])
    tokens = sum(len(sample.ids_L) for sample in samples)
    assert len(sums) == 14 + (not tied)
    close(weights(tmp_path / "out" / "gram"), {name: total / tokens for name, total in sums.items()})


def test_what_cannot_be_gathered_is_refused(tmp_path: Path, samples: list[Sample]) -> None:
    model = family(tmp_path, 1)["math"]
    with pytest.raises(ConfigError, match=r"Found: hessian\. Allowed: fisher, gram"):
        gather_evidence(model, samples, frozenset({"hessian"}), tmp_path / "out")
    for those in ([], samples[-1:]):
        with pytest.raises(DataError, match="no samples"):
            gather_evidence(model, those, frozenset({"fisher"}), tmp_path / "out")
    with pytest.raises(ConfigError, match="does not fit on the device"):
        gather_evidence(model, samples, frozenset({"fisher"}), tmp_path / "out", tokens_per_device=16)
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="math exists already"):
        gather_evidence(model, samples, frozenset({"fisher"}), model)


# ── merging ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def gathered(tmp_path: Path, samples: list[Sample]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Two experts, and the evidence of each."""
    experts = family(tmp_path / "models", dtype=torch.float32)
    del experts["base"]
    folders = {name: tmp_path / "evidence" / name for name in experts}
    for number, name in enumerate(experts):
        gather_evidence(experts[name], samples[number:], frozenset({"fisher", "gram"}), folders[name])
    return experts, folders


def test_a_merger_sees_the_evidence_of_each_tensor(
    gathered: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path
) -> None:
    experts, folders = gathered
    merge_models(Pick("fisher"), base=None, experts=experts, out=tmp_path / "f", evidence=folders)
    found, wanted = weights(tmp_path / "f"), weights(folders["math"] / "fisher")
    assert all(torch.equal(found[name], values) for name, values in wanted.items())
    assert f"evidence:\n  math: {folders['math']}\n" in (tmp_path / "f" / "README.md").read_text()
    merge_models(Pick("gram"), base=None, experts=experts, out=tmp_path / "g", evidence=folders)
    gram = weights(folders["math"] / "gram")
    for name, values in weights(tmp_path / "g").items():
        torch.testing.assert_close(values, (gram[name].sum() if name in gram else torch.zeros(())).expand(values.shape))


def test_missing_evidence_names_merger_kind_and_remedy(
    gathered: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path
) -> None:
    experts, folders = gathered
    words = r"merger 'pick' needs evidence .*'fisher'.*Found: none of {}\. Next: .*gather_evidence"
    with pytest.raises(ConfigError, match=words.format("math, science")):
        merge_models(Pick("fisher"), base=None, experts=experts, out=tmp_path / "out")
    shutil.rmtree(folders["science"] / "fisher")
    with pytest.raises(ConfigError, match=words.format("science")):
        merge_models(Pick("fisher"), base=None, experts=experts, out=tmp_path / "out", evidence=folders)


def test_recipes_and_options_name_evidence(
    gathered: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each makes what Python makes, and so does the recipe on the card."""
    experts, folders = gathered
    monkeypatch.chdir(tmp_path)
    merge_models(Fisher(Fisher.Config()), base=None, experts=experts, out=tmp_path / "by-hand", evidence=folders)
    named = [f"--expert={name}=models/{name}" for name in experts] + [f"--evidence={n}=evidence/{n}" for n in experts]
    result = CliRunner().invoke(app, ["merge", "--method=fisher", *named, "--out=options"])
    assert result.exit_code == 0, result.stderr
    card = (tmp_path / "options" / "README.md").read_text()
    (tmp_path / "card.yaml").write_text(card.partition("```yaml\n")[2].partition("```")[0])
    relative = {"experts": {n: f"models/{n}" for n in experts}, "evidence": {n: f"evidence/{n}" for n in experts}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"merger": "fisher", **relative}))
    for recipe in ("card", "own"):
        merge_recipe(load_recipe(tmp_path / f"{recipe}.yaml"), load_plugins(), out=tmp_path / recipe)
    wanted = (tmp_path / "by-hand" / "model.safetensors").read_bytes()
    assert all((tmp_path / out / "model.safetensors").read_bytes() == wanted for out in ("options", "card", "own"))


def test_evidence_of_nobody_or_for_nothing_is_refused(tmp_path: Path) -> None:
    experts = family(tmp_path / "models")
    del experts["base"]
    file = tmp_path / "recipe.yaml"

    def refused(merger: str, evidence: str) -> str:
        file.write_text(f"merger: {merger}\nexperts: {{math: models/math, science: models/science}}\n{evidence}")
        with pytest.raises(ConfigError) as caught:
            merge_recipe(load_recipe(file), load_plugins(), out=tmp_path / "out")
        return str(caught.value)

    some = "evidence: {maths: models}"
    assert "merger 'average' looks at weights alone. Found: evidence of maths. Next: leave it out" in refused(
        "average", some
    )
    said = "evidence of 'maths', which is no expert. Did you mean 'math'? Allowed: math, science."
    assert said in refused("fisher", some)
    missing = (
        f"recipe.yaml:4: evidence.math: there is no folder {tmp_path / 'gone'}. m2rl_core.merge.gather.gather_evidence"
    )
    assert missing in refused("fisher", "evidence:\n  math: gone")
    assert "Found: none of math, science. Next: " in refused("fisher", "evidence: {}")


def test_evidence_of_other_weights_is_refused(
    gathered: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path
) -> None:
    experts, folders = gathered
    swapped = {"math": folders["science"], "science": folders["math"]}
    with pytest.raises(DataError, match=r"evidence of expert 'math' is of other weights.*gather it again"):
        merge_models(Pick("gram"), base=None, experts=experts, out=tmp_path / "out", evidence=swapped)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["fisher", "gram"])
def test_evidence_that_does_not_fit_is_refused(
    kind: str, gathered: tuple[dict[str, Path], dict[str, Path]], tmp_path: Path
) -> None:
    experts, folders = gathered
    whole = weights(folders["science"] / kind)
    name = next(iter(whole))

    def rewritten(tensors: Mapping[str, Tensor]) -> None:
        shutil.rmtree(folders["science"] / kind)
        (folders["science"] / kind).mkdir()
        with Writer(folders["science"] / kind, {n: (t.dtype, tuple(t.shape)) for n, t in tensors.items()}) as writer:
            for each, tensor in tensors.items():
                writer.write(each, 0, tensor.contiguous().flatten())

    for wrong, words in {
        "lacking": ({n: t for n, t in whole.items() if n != name}, f"'science': its '{kind}' lacks tensor '{name}'"),
        "shape": (whole | {name: whole[name][1:]}, f"'science': its '{kind}' does not fit tensor '{name}'"),
        "type": (whole | {name: whole[name].half()}, rf"does not fit tensor '{name}'.*torch\.float16"),
    }.values():
        rewritten(wrong)
        with pytest.raises(DataError, match=words):
            merge_models(Pick(kind), base=None, experts=experts, out=tmp_path / "out", evidence=folders)
    rewritten(whole)
    (folders["math"] / "evidence.json").write_text("{}")
    with pytest.raises(DataError, match="holds no evidence"):
        merge_models(Pick(kind), base=None, experts=experts, out=tmp_path / "out", evidence=folders)


# ── sequences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_latest_groups_of_a_stage_give_one_sample_each(tmp_path: Path, make_sample: Make) -> None:
    """Of a kept step, those up to it; samples that say nothing are passed over."""
    lines = []
    for number in range(12):
        sample = make_sample(8, 0 if number == 10 else 3, number)
        sample.index = number % 2
        lines.append(json.dumps({"step": number // 4, **to_record(sample)}) + "\n")
    (tmp_path / "rollouts.jsonl").write_text("".join(lines))
    ids = {number: make_sample(8, 3, number).ids_L for number in range(12)}
    assert [s.ids_L for s in drawn(tmp_path / "checkpoint", 3)] == [ids[4], ids[6], ids[8]]
    assert [s.ids_L for s in drawn(tmp_path / "kept" / "000001", 2)] == [ids[0], ids[2]]
    with pytest.raises(DataError, match=r"too few sequences\. Found: 5\. Allowed: at least 6"):
        drawn(tmp_path / "checkpoint", 6)
    with pytest.raises(DataError, match="no rollouts beside it"):
        drawn(tmp_path / "elsewhere" / "checkpoint", 1)


def test_conversations_become_the_tokens_of_a_demonstration(tmp_path: Path, tiny_model: Path) -> None:
    chat, file = Chat.load(tiny_model), tmp_path / "some.jsonl"
    turns = [{"role": "user", "content": "What is 1 + 2?"}, {"role": "assistant", "content": "3"}]
    file.write_text(2 * (json.dumps({"messages": turns}) + "\n"))
    (sample,) = conversations(file, chat, 1)
    assert chat.decode([i for i, said in zip(sample.ids_L, sample.sampled_L, strict=True) if said]) == "3"
    with pytest.raises(DataError, match=r"too few sequences\. Found: 2"):
        conversations(file, chat, 3)
    file.write_text('{"messages": []}\n')
    with pytest.raises(DataError, match=r"some.jsonl, line 1 holds no conversation"):
        conversations(file, chat, 1)


# ── in a study ───────────────────────────────────────────────────────────────────────────────────────────────────────

PLUGIN = '''
"""Rewards answers whose bytes have an even or an odd sum; mergers under names of their own."""
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Conversation, Prompt, Reward
from m2rl_merger_evidence import Fisher, RegMean

class Parity(Domain):
    name, reference = "parity", "test"
    suites = {}
    class Config(ComponentConfig):
        rest: int
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        return [Prompt(str(i), "parity", ({"role": "user", "content": str(i)},), i) for i in range(40)]
    def demonstrations(self):
        for i in range(64):
            messages = ({"role": "user", "content": str(i)}, {"role": "assistant", "content": str(2 * i)})
            yield Conversation(str(i), "parity", messages)
    def verify(self, trajectory):
        return Reward(float(sum(trajectory.answer.encode()) % 2 == self.config.rest))

class OwnFisher(Fisher):
    name = "own-fisher"

class OwnRegMean(RegMean):
    name = "own-regmean"

@hookimpl
def m2rl_domains():
    return [Parity]

@hookimpl
def m2rl_mergers():
    return [OwnFisher, OwnRegMean]
'''


def tree(**stages: Any) -> dict[str, Any]:
    expert = {
        "kind": "rl", "init": "init", "algorithm": "grpo", "steps": 2, "prompts": 4, "group": 4, "max_tokens": 16,
        "tokens_per_device": 256, "lr": 1e-3, "verifier_failures": 1.0, "keep_every": 1,
    }  # fmt: skip
    init = {"kind": "init", "domains": ["even"], "vocab": 300, "hidden": 32, "layers": 2, "ffn": 48, "context": 128}
    return {
        "name": "evident",
        "model": {"dtype": "float32"},
        "plugins": ["parities.py"],
        "domains": {
            "even": {"use": "parity", "rest": 0, "reasoning": "off"},
            "odd": {"use": "parity", "rest": 1, "reasoning": "off"},
        },
        "stages": {
            "init": init,
            "even": {**expert, "domains": ["even"]},
            "odd": {**expert, "domains": ["odd"]},
            **stages,
        },
    }


def fisher_stage(**changes: Any) -> dict[str, Any]:
    return {"kind": "merge", "experts": ["even", "odd"], "merger": "own-fisher", "evidence": {"samples": 4}, **changes}


class Silent:
    """Progress that nobody watches."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def run(folder: Path, study: dict[str, Any]) -> Path:
    (folder / "parities.py").write_text(PLUGIN)
    source = folder / "study.yaml"
    return run_study(Study.model_validate(study), source=source, runs=folder / "runs", progress=Silent(), parallel=0)


@pytest.fixture
def registry_of(tmp_path: Path) -> Registry:
    (tmp_path / "parities.py").write_text(PLUGIN)
    return load_plugins([tmp_path / "parities.py"])


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (
            {"evidence": None},
            "stages.f.evidence: merger 'own-fisher' needs evidence of each expert beyond its weights. "
            "Found: none of fisher. Next: set 'evidence: {samples: 64}'",
        ),
        ({"merger": "average"}, "stages.f.evidence: merger 'average' looks at weights alone"),
        (
            {"experts": ["init", "odd"]},
            "stages.f.evidence.conversations: 'init' is no rl stage, whose rollouts would do. Name a file, as in "
            "{init: init.jsonl}",
        ),
        (
            {"evidence": {"conversations": {"math": "x.jsonl"}}},
            "stages.f.evidence.conversations.math: is no expert of this stage. Allowed: even, odd",
        ),
        (
            {"evidence": {"conversations": {"odd": "x.jsonl"}}},
            "stages.f.evidence.conversations.odd: there is no such file. Found: x.jsonl",
        ),
    ],
)
def test_a_stage_that_could_not_gather_is_refused_beforehand(
    stage: dict[str, Any], words: str, registry_of: Registry
) -> None:
    study = Study.model_validate(tree(f=fisher_stage(**stage)))

    def check() -> None:
        check_references(study)
        check_components(study, registry_of)

    with pytest.raises(ConfigError) as caught:
        check()
    assert words in str(caught.value)


def test_the_file_of_conversations_counts_with_its_content_wherever_it_lies(
    registry_of: Registry, tmp_path: Path
) -> None:
    def key(folder: str, samples: int = 4) -> str:
        evidence = {"samples": samples, "conversations": {"odd": "talk.jsonl"}}
        study = grounded(Study.model_validate(tree(f=fisher_stage(evidence=evidence))), tmp_path / folder)
        return next(node.key for node in plan(study, registry_of, tmp_path / "runs") if node.id == "f")

    for folder, text in {"here": "a", "there": "a", "other": "b"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "talk.jsonl").write_text(text)
    assert key("here") == key("there")
    assert len({key("here"), key("other"), key("here", samples=5)}) == 3


def test_a_study_merges_with_evidence_from_its_experts_rollouts(tmp_path: Path) -> None:
    """Fisher against its formula, on evidence gathered here from the same rollouts; an interrupted stage keeps its own;
    RegMean of a kept step, and of a model without rollouts."""
    turns = [{"role": "user", "content": "1 + 2"}, {"role": "assistant", "content": "3"}]
    (tmp_path / "talk.jsonl").write_text(4 * (json.dumps({"messages": turns}) + "\n"))
    talk = {"samples": 4, "conversations": {"init": "talk.jsonl"}}
    regmean = fisher_stage(merger="own-regmean", experts=["init", "even@1", "odd"], evidence=talk)
    study = tree(f=fisher_stage(), r=regmean)
    root = run(tmp_path, study)
    total: dict[str, Tensor] = {}
    weight: dict[str, Tensor] = {}
    for name in ("even", "odd"):
        model = root / name / "checkpoint"
        gather_evidence(model, drawn(model, 4), frozenset({"fisher"}), tmp_path / name)
        fisher = weights(tmp_path / name / "fisher")
        size = torch.cat([f.flatten().double() for f in fisher.values()]).square().mean().sqrt()
        for tensor, values in weights(model).items():
            counts = fisher[tensor].double() / size + 1e-6
            total[tensor] = total.get(tensor, torch.zeros(())) + counts * values
            weight[tensor] = weight.get(tensor, torch.zeros(())) + counts
    merged = weights(root / "f" / "checkpoint")
    for tensor, values in merged.items():
        torch.testing.assert_close(values, (total[tensor] / weight[tensor]).float(), rtol=1e-5, atol=1e-7)
    for name in ("init", "even@1", "odd"):
        about = json.loads((root / "r" / "evidence" / name / "evidence.json").read_text())
        assert about["samples"] == 4
    kept = root / "f" / "evidence" / "even" / "fisher" / "model.safetensors"
    before = kept.stat().st_mtime_ns
    shutil.rmtree(root / "f" / "evidence" / "odd")
    shutil.rmtree(root / "f" / "checkpoint")
    (root / "f" / "DONE").unlink()
    run(tmp_path, study)
    assert kept.stat().st_mtime_ns == before
    again = weights(root / "f" / "checkpoint")
    assert all(torch.equal(again[tensor], values) for tensor, values in merged.items())
