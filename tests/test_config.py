"""Study files: reading, overriding, and every mistake that is found before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from m2rl_core.config import (
    MergeStage,
    RlStage,
    SftStage,
    Study,
    anchor,
    check_components,
    check_references,
    grounded,
    load_study,
    local_path,
    model_names,
    references,
    split_reference,
)
from m2rl_core.errors import ComponentError, ConfigError, DataError, StageError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig
from m2rl_core.plugins import Registry
from m2rl_core.types import Composition, Divergence, Suite

GOOD = """\
name: mini
domains:
  math: {use: quiz, level: 2}
  science: quiz
x-expert: &expert
  kind: rl
  init: sft
  algorithm: grpo
  steps: 20
  max_tokens: 100
  keep_every: 10
  optim: &optim {clip: 0.5}
stages:
  init: {kind: init, domains: [math, science]}
  sft: {kind: sft, init: init, domains: {math: 1, science: 2}, conversations: 1000, optim: *optim}
  math: {<<: *expert, domains: [math]}
  science: {<<: *expert, domains: [science], lr: 1e-6}
  mean: {kind: merge, experts: [math, "science@10"], merger: mean}
  evals: {kind: eval}
  why: {kind: analyze, analyzer: {use: shift, layer: 3}}
  report: {kind: report}
"""

Read = Callable[..., Study]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """``read(old, new, overrides=[...])``: the good study with one piece of text replaced."""

    def read(old: str = "", new: str = "", overrides: list[str] | None = None) -> Study:
        assert old in GOOD
        file = tmp_path / "study.yaml"
        file.write_text(GOOD.replace(old, new, 1) if old else GOOD)
        return load_study(file, overrides or ())

    return read


def problems(call: Callable[[], object]) -> list[str]:
    """What a ConfigError says, without the file's folder."""
    with pytest.raises(ConfigError) as caught:
        call()
    return [re.sub(r"^\S*/(?=study\.yaml)", "", line) for line in str(caught.value).splitlines()]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_study_is_read(read: Read) -> None:
    study = read()
    math, mean = study.stages["math"], study.stages["mean"]
    assert isinstance(math, RlStage)
    assert isinstance(mean, MergeStage)
    assert (math.algorithm, math.steps, math.domains) == ({"use": "grpo"}, 20, ["math"])
    assert mean.merger == {"use": "mean"}
    assert study.engine == {"use": "embedded"}
    assert study.domains["math"].config == {"level": 2}
    assert study.domains["science"].use == "quiz"


def test_a_study_survives_its_own_dump(read: Read) -> None:
    study = read()
    assert Study.model_validate(study.model_dump()) == study
    assert Study.model_validate_json(study.model_dump_json()) == study


def test_local_plugins_are_relative_to_the_file(read: Read, tmp_path: Path) -> None:
    assert read("name: mini", "name: mini\nplugins: [./mine.py]").plugins == [str(tmp_path / "mine.py")]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: mini", "name: mini\nfoo: 1", ["study.yaml:2: foo: unknown key."]),
        (
            "keep_every",
            "keep_evry",
            ["study.yaml:11: stages.math.keep_evry, stages.science.keep_evry: unknown key. Did you mean 'keep_every'?"],
        ),
        (
            "clip: 0.5",
            "klip: 0.5",
            ["study.yaml:12: stages.sft.optim.klip, stages.math.optim.klip, stages.science.optim.klip: unknown"],
        ),
        (
            "kind: sft, init",
            "kind: sft, initt",
            [
                "study.yaml:15: stages.sft.init: this key is required.",
                "study.yaml:15: stages.sft.initt: unknown key. Did you mean 'init'?",
            ],
        ),
        (
            "kind: report",
            "kind: reprt",
            ["study.yaml:21: stages.report.kind: 'reprt' is not known. Did you mean 'report'? Allowed: model,"],
        ),
        (
            "kind: report",
            "limit: 3",
            ["study.yaml:21: stages.report.kind: this key is required. Allowed: model, init, "],
        ),
        ("lr: 1e-6", "lr: -1", ["study.yaml:17: stages.science.lr: should be greater than 0, found -1."]),
        (
            "lr: 1e-6",
            "schedule: linaer",
            [
                "study.yaml:17: stages.science.schedule: should be 'constant', 'linear' or 'cosine', found 'linaer'. "
                "Did you mean 'linear'?"
            ],
        ),
        (
            "domains: [math]",
            "domains: math",
            ["study.yaml:16: stages.math.domains: should be a valid list, found 'math'"],
        ),
        ("{math: 1,", "{math: 0,", ["study.yaml:15: stages.sft.domains.math: should be greater than 0, found 0."]),
        ('[math, "sci', '[1.5, "sci', ["study.yaml:18: stages.mean.experts[0]: should be a valid string, found 1.5."]),
        ("merger: mean", "merger: {uze: mean}", ["study.yaml:18: stages.mean.merger: needs a component's name, as in"]),
        ("merger: mean", "merger: [mean]", ["study.yaml:18: stages.mean.merger: should be a mapping, found ['mean']."]),
        ("science: quiz", "science: {level: 1}", ["study.yaml:4: domains.science.use: this key is required."]),
        (
            "science: quiz",
            "science: {use: quiz, reasoning: must}",
            ["study.yaml:4: domains.science.reasoning: should be 'required', 'optional' or 'off', found 'must'."],
        ),
        ("name: mini", "name: Mini!", ["study.yaml:1: name: String should match pattern"]),
        (
            "name: mini",
            "name: mini\nseeds: [1, 1]",
            ["study.yaml:2: seeds: should name at least one seed, and none tw"],
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(read: Read, old: str, new: str, expected: list[str]) -> None:
    found = problems(lambda: read(old, new))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ("vocab: 262", [".vocab: should be greater than or equal to 263, found 262."]),
        ("hidden: 130", [": heads should divide hidden, which is 130 (allowed: multiples of 8), found 4."]),
        ("heads: 3", [".heads: heads should divide hidden, which is 128 (allowed: multiples of 6), found 3."]),
        (
            "hidden: 36, heads: 12",
            [".heads: heads should have an even size, not 3: hidden is 36 (allowed: multiples of 24), found 12."],
        ),
        ("kv_heads: 3", [".kv_heads: kv_heads should divide heads, which is 4 (allowed: 1, 2, 4), found 3."]),
        ("heads: 1", [": kv_heads should divide heads, which is 1 (allowed: 1), found 2."]),
        ("hidden: 0, kv_heads: 3", [".hidden: should be greater than 0", ".kv_heads: kv_heads should divide heads, "]),
        ("heads: 0", [".heads: should be greater than 0, found 0."]),
        ("vocab: 263, hidden: 8, heads: 4, kv_heads: 4", []),
    ],
)
def test_sizes_that_make_no_model(read: Read, sizes: str, expected: list[str]) -> None:
    old, new = "domains: [math, science]}\n  sft", f"domains: [math, science], {sizes}}}\n  sft"
    if not expected:
        read(old, new)
        return
    found = problems(lambda: read(old, new))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(f"study.yaml:14: stages.init{start}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml is no study: it should hold keys such as 'name' and 'stages'."),
        ("- a\n- b\n", "study.yaml is no study"),
        ("name: mini\nstages: [\n", "study.yaml:3: no YAML: expected the node content"),
        ("name: a\nname: b\n", "study.yaml:2: key 'name' is already there on line 1."),
        ("stages: {a: {kind: report}, a: {kind: report}}\n", "study.yaml:1: key 'a' is already there on line 1."),
        ("x: !!python/object/apply:os.system [ls]\n", "study.yaml:1: no YAML: could not determine a constructor"),
        ("a: \0", "study.yaml: no YAML: unacceptable character"),
        ("name: a\nstages: &all\n  b: *all\n", "study.yaml:2: what begins here holds itself, by an alias."),
        ("&all [*all]\n", "study.yaml:1: what begins here holds itself, by an alias."),
        ("a: " + 5000 * "[", "study.yaml is no study: lists and mappings lie too deep in each other."),
    ],
)
def test_a_file_that_is_no_study(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    assert problems(lambda: load_study(file))[0].startswith(message)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert problems(lambda: load_study(tmp_path / "study.yaml")) == [
        "study.yaml cannot be read: No such file or directory."
    ]
    assert "cannot be read: Is a directory" in problems(lambda: load_study(tmp_path))[0]
    (tmp_path / "study.yaml").write_bytes(b"name: \xff")
    assert "cannot be read: 'utf-8' codec" in problems(lambda: load_study(tmp_path / "study.yaml"))[0]


# ── overrides ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_overrides_change_one_stage_and_not_its_siblings(read: Read) -> None:
    """Merged blocks share their values, so an override must not write into them."""
    study = read(
        overrides=["stages.math.optim.clip=2", "stages.math.steps = 5", "seed=3", "stages.evals.models=[math]"]
    )
    math, science = study.stages["math"], study.stages["science"]
    assert isinstance(math, RlStage)
    assert isinstance(science, RlStage)
    assert (math.optim.clip, science.optim.clip) == (2, 0.5)
    assert (math.steps, science.steps, study.seed) == (5, 20, 3)


def test_one_changed_setting_of_the_optimizer_leaves_the_stages_own(read: Read) -> None:
    """Section A trains with another beta2 where it fine-tunes."""
    sft, math = read().stages["sft"], read().stages["math"]
    assert isinstance(sft, SftStage)
    assert isinstance(math, RlStage)
    assert [(sft.optim.clip, sft.optim.beta2), (math.optim.clip, math.optim.beta2)] == [(0.5, 0.95), (0.5, 0.98)]


def test_an_override_takes_a_shorthand_apart(read: Read) -> None:
    study = read(overrides=["stages.math.algorithm.advantage.std=false", "domains.science.level=1"])
    math = study.stages["math"]
    assert isinstance(math, RlStage)
    assert math.algorithm == {"use": "grpo", "advantage": {"std": False}}
    assert study.domains["science"].config == {"level": 1}


def test_an_override_finds_names_with_dots(read: Read) -> None:
    study = read("  math: {<<: *expert,", "  qwen-1.7b: {kind: report}\n  math: {<<: *expert,", ["stages.math.steps=1"])
    assert "qwen-1.7b" in study.stages
    found = problems(lambda: read("report: {kind", "r.1.7: {kind", ["stages.r.1.7.limt=1"]))
    assert found[0].startswith("--set stages.r.1.7.limt=1: stages.r.1.7.limt: unknown key.")


def test_an_override_can_add_a_stage(read: Read) -> None:
    assert "again" in read(overrides=["stages.again={kind: report}"]).stages


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("x", "--set x: should read KEY.KEY=VALUE."),
        ("a..b=1", "--set a..b=1: should read KEY.KEY=VALUE."),
        ("seed=[", "--set seed=[: the value is no YAML: "),
        (
            "stages.mth.steps=3",
            "--set stages.mth.steps=3: stages has no 'mth'. Did you mean 'math'? Allowed: init, sft,",
        ),
        ("stages.math.steps.x=3", "--set stages.math.steps.x=3: stages.math.steps has no keys. Found: 20."),
        (
            "stages.math.steps=no",
            "--set stages.math.steps=no: stages.math.steps: should be greater than 0, found False.",
        ),
        ("stages.math.stepz=3", "--set stages.math.stepz=3: stages.math.stepz: unknown key. Did you mean 'steps'?"),
        ("stages.math=null", "--set stages.math=null: stages.math: should be a mapping, found None."),
    ],
)
def test_a_wrong_override_is_named(read: Read, override: str, message: str) -> None:
    [found] = problems(lambda: read(overrides=[override]))
    assert found.startswith(message)


# ── references ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            '[math, "science@10"]',
            "[mth, science@15, science@x, sft@10, report, sft@0]",
            [
                "study.yaml:18: stages.mean.experts[0]: there is no model 'mth'. Did you mean 'math'? Models:",
                "study.yaml:18: stages.mean.experts[1]: 'science' keeps every 10 of 20 steps, and 15 is none of them.",
                "study.yaml:18: stages.mean.experts[2]: 'x' is no step, in 'science@x'. A step of an rl",
                "study.yaml:18: stages.mean.experts[3]: only rl stages keep steps, and 'sft' is none.",
                "study.yaml:18: stages.mean.experts[4]: stage 'report' (report) makes no model. Models: init, sft,",
                "study.yaml:18: stages.mean.experts[5]: '0' is no step, in 'sft@0'.",
            ],
        ),
        (
            "science@10",
            "science@30",
            ["study.yaml:18: stages.mean.experts[1]: 'science' keeps every 10 of 20 steps, and"],
        ),
        (
            "keep_every: 10",
            "group: 4",
            ["study.yaml:18: stages.mean.experts[1]: 'science' keeps no steps. Set stages.science.keep_every."],
        ),
        ("init: init", "init: base", ["study.yaml:15: stages.sft.init: there is no model 'base'."]),
        ("init: init", "init: mean", ["study.yaml:15: stages.sft: sft needs mean needs math needs sft: a cycle."]),
        ("init: init", "init: sft", ["study.yaml:15: stages.sft: sft needs sft: a cycle."]),
        (
            "domains: [math]",
            "domains: [maths]",
            ["study.yaml:16: stages.math.domains: there is no domain 'maths'. Did you mean 'math'? Domains:"],
        ),
        ("domains: [math]", "domains: []", ["study.yaml:16: stages.math.domains: there are none."]),
        (
            "domains: [math]",
            "domains: [math, math]",
            ["study.yaml:16: stages.math.domains: the same name stands here twic"],
        ),
        (
            "domains: [math]",
            "domains: [math], top_p: 0.9",
            ["study.yaml:16: stages.math.top_p: would train on tokens of"],
        ),
        (
            "domains: [math]",
            "domains: [math], teachers: {science: sft}",
            ["study.yaml:16: stages.math.teachers.science: is no domain of this stage. Allowed: math."],
        ),
        (
            "domains: [math]",
            "domains: {math: 2, science: 1}, mixture: proportional",
            ["study.yaml:16: stages.math.mixture: would set aside the shares that 'domains' gives."],
        ),
        (
            "{kind: sft, ",
            "{kind: sft, rollouts: {coding: math, math: science}, ",
            [
                "study.yaml:15: stages.sft.rollouts.coding: is no domain of this stage. Allowed: math, science.",
                "study.yaml:15: stages.sft.rollouts.math: 'science' is no rl stage that samples 'math'. Allowed: math.",
            ],
        ),
        (
            "{kind: sft, ",
            "{kind: sft, rollouts: {math: math@10, science: sft}, ",
            [
                "study.yaml:15: stages.sft.rollouts.math: 'math@10' is no rl stage that samples 'math'. Allowed: math.",
                "study.yaml:15: stages.sft.rollouts.science: 'sft' is no rl stage that samples 'science'. Allowed: s",
            ],
        ),
        ("{kind: eval}", "{kind: eval, models: ['*', no]}", ["study.yaml:19: stages.evals.models[1]: "]),
        ("report: {", "../up: {", ["study.yaml:21: stages.../up: cannot name a folder."]),
        ("report: {", ".x: {", ["study.yaml:21: stages..x: cannot name a folder."]),
        ("report: {", "a@1: {", ["study.yaml:21: stages.a@1: cannot name a folder."]),
        ("report: {", "seed-1: {", ["study.yaml:21: stages.seed-1: cannot name a folder."]),
        ("name: mini", "name: mini\nmodel: {base: Qwen/Qwen3-4B-Base}", []),
        ("mean: {", "base: {", []),
    ],
)
def test_names_must_fit_each_other(read: Read, old: str, new: str, expected: list[str]) -> None:
    if not expected:
        read(old, new)
        return
    found = problems(lambda: read(old, new))
    assert len(found) == len(expected), found
    for line, start in zip(found, expected, strict=True):
        assert line.startswith(start)


def test_base_is_the_studys_model_where_it_has_one(read: Read) -> None:
    model = "name: mini\nmodel: {base: some/model}"
    assert model_names(read("name: mini", model))[0] == "base"
    study = read().model_copy(update={"model": read("name: mini", model).model})
    clash = study.model_copy(update={"stages": {**study.stages, "base": study.stages["report"]}})
    assert problems(lambda: check_references(clash)) == ["stages.base: the name is taken by model.base."]
    empty = study.model_copy(update={"stages": {}})
    assert problems(lambda: check_references(empty)) == ["stages: there are none."]


def test_references_and_anchor(read: Read) -> None:
    study = read()
    mean = study.stages["mean"]
    assert isinstance(mean, MergeStage)
    assert list(references(mean)) == [(("experts", 0), "math"), (("experts", 1), "science@10")]
    assert anchor(study, mean) == "sft"
    assert anchor(study, mean.model_copy(update={"experts": ["math", "sft"]})) is None
    assert anchor(study, mean.model_copy(update={"base": "init"})) == "init"
    assert split_reference("math@200") == ("math", 200)
    assert split_reference("math") == ("math", None)


# ── components ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Part:
    """Enough of any component to be checked."""

    name: ClassVar[str]
    reference: ClassVar[str] = "a test"
    needs: frozenset[str] = frozenset()
    needs_base = False
    separable = True
    splits = False
    divergence: Divergence | None = None

    class Config(ComponentConfig):
        level: int = 0
        layer: int = 0
        std: bool = True

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config
        self.suites = {
            f"level-{getattr(config, 'level', 0)}": Suite("generated"),
            "aime": Suite("on/hub", missing="download on/hub"),
        }

    def check(self, experts: Sequence[str] = ()) -> None:
        if len(experts) > 3:
            raise ValueError(f"3 weights for {len(experts)} experts")


class Algorithm(Part):
    class Config(ComponentConfig):
        advantage: dict[str, Any] = {}
        importance: dict[str, Any] | None = None
        loss: dict[str, Any] = {}

    def compose(self) -> Composition:
        parts = self.config.model_dump()
        return Composition({"use": "group"} | parts["advantage"], {"use": "clip"} | parts["loss"], parts["importance"])


def lopsided() -> None:
    raise ValueError("shares: they lack science")


def named(name: str, base: type = Part, **attributes: object) -> type:
    return type(name.title(), (base,), {"name": name, **attributes})


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    hooks: dict[str, list[type]] = {
        "m2rl_engines": [named("embedded")],
        "m2rl_domains": [named("quiz"), named("talk", splits=True)],
        "m2rl_algorithms": [named("grpo", Algorithm)],
        "m2rl_advantages": [named("group"), named("distil", needs=frozenset({"teacher_logps"}))],
        "m2rl_importances": [named("mask")],
        "m2rl_losses": [
            named("clip"),
            named("kl", divergence=Divergence("reverse")),
            named("whole", separable=False),
        ],
        "m2rl_mixtures": [named("fixed"), named("lopsided", check=lambda *_: lopsided())],
        "m2rl_mergers": [named("mean"), named("ties", needs_base=True), named("broken", check=lambda *_: 1 / 0)],
        "m2rl_analyzers": [named("shift")],
    }
    offers = {name: hookimpl(lambda classes=classes: classes) for name, classes in hooks.items()}
    made.register(SimpleNamespace(**offers), distribution="tests")
    return made


def test_a_good_study_passes(read: Read, registry: Registry) -> None:
    check_components(read("level: 2", "level: 1"), registry)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("engine=embeded", "engine: engine 'embeded' is not available. Did you mean 'embedded'?"),
        ("engine={use: embedded, speed: 9}", "engine.speed: unknown key. Allowed: level, layer, std."),
        ("domains.math.use=qiz", "domains.math: domain 'qiz' is not available. Did you mean 'quiz'?"),
        ("domains.math.levell=3", "domains.math.levell: unknown key. Did you mean 'level'?"),
        ("domains.math.reasonning=off", "domains.math.reasonning: unknown key. Did you mean 'reasoning'?"),
        (
            "stages.math.algorithm=gpro",
            "stages.math.algorithm: algorithm 'gpro' is not available. Did you mean 'grpo'?",
        ),
        ("stages.math.algorithm.los=1", "stages.math.algorithm.los: unknown key. Did you mean 'loss'?"),
        (
            "stages.math.algorithm.advantage.stdd=1",
            "stages.math.algorithm.advantage.stdd: unknown key. Did you mean 'std'?",
        ),
        (
            "stages.math.algorithm.importance.use=tis",
            "stages.math.algorithm.importance: importance 'tis' is not availabl",
        ),
        ("stages.math.algorithm.importance={use: mask, x: 1}", "stages.math.algorithm.importance.x: unknown key."),
        ("stages.math.algorithm.loss.use=klip", "stages.math.algorithm.loss: loss 'klip' is not available."),
        (
            "stages.math.algorithm.loss.use=kl",
            "stages.math.teachers: algorithm 'grpo' needs a teacher for math.",
        ),
        (
            "stages.math.algorithm.advantage.use=distil",
            "stages.math.teachers: algorithm 'grpo' needs a teacher for math.",
        ),
        ("stages.math.teachers={math: sft}", "stages.math.teachers: algorithm 'grpo' learns from no teacher."),
        (
            "stages.math.algorithm.advantage.use=grup",
            "stages.math.algorithm.advantage: advantage 'grup' is not available. Did you mean 'group'?",
        ),
        ("stages.math.mixture=fixd", "stages.math.mixture: mixture 'fixd' is not available. Did you mean 'fixed'?"),
        ("stages.math.mixture=lopsided", "stages.math.mixture.shares: they lack science. Found: math."),
        ("stages.mean.merger=men", "stages.mean.merger: merger 'men' is not available."),
        (
            "stages.mean={kind: merge, merger: ties, experts: [math, sft]}",
            "stages.mean.base: 'ties' needs the model that the experts departed from; they share no 'init'.",
        ),
        (
            "stages.mean.experts=[math, science@10, init, science]",
            "stages.mean.merger: 3 weights for 4 experts. Found: math, science@10, init, science.",
        ),
        ("stages.why.analyzer.layr=1", "stages.why.analyzer.layr: unknown key. Did you mean 'layer'?"),
        ("stages.evals.suites=[levl-2]", "stages.evals.suites: there is no suite 'levl-2'. Did you mean 'level-2'?"),
        (
            "stages.evals.suites=[aime]",
            "stages.evals.suites: suite 'aime' has nothing to read. Next: download on/hub",
        ),
        (
            "domains.math.level=0",
            "stages.evals.suites: suite 'level-0' is offered by several domains. Found: math, scie",
        ),
    ],
)
def test_components_must_exist_and_fit(read: Read, registry: Registry, override: str, expected: str) -> None:
    study = read(overrides=[override])
    with pytest.raises((ConfigError, ComponentError)) as caught:
        check_components(study, registry)
    assert str(caught.value).startswith(expected)


def test_whole_sequences_where_they_are_needed(read: Read, registry: Registry) -> None:
    whole = "stages.math.algorithm.loss.use=whole"
    check_components(read("level: 2", "level: 1", [whole]), registry)
    with pytest.raises(ConfigError) as caught:
        check_components(read(overrides=[whole, "domains.math.use=talk"]), registry)
    assert str(caught.value).startswith(
        "stages.math.algorithm: loss 'whole' needs whole sequences, and samples of math are trained as several, because"
    )
    assert "Next: let these domains keep it" in str(caught.value)


def test_refilling_what_a_teacher_teaches_is_refused(read: Read, registry: Registry) -> None:
    taught = ["stages.math.algorithm.loss.use=kl", "stages.math.teachers={math: sft}", "stages.math.refill=2"]
    with pytest.raises(ConfigError, match=r"stages.math.refill: under 'grpo' groups of equal rewards teach too. Found"):
        check_components(read("level: 2", "level: 1", taught), registry)
    check_components(read("level: 2", "level: 1", ["stages.math.refill=2"]), registry)


def test_teachers_of_other_tokens_are_refused(read: Read) -> None:
    other = {"kind": "init", "domains": ["math"]}
    study = read(overrides=["stages.math.teachers={math: sft}", f"stages.other={other}"])
    math = study.stages["math"].model_copy(update={"teachers": {"math": "other"}})
    text = "stages.math.teachers.math: 'other' reads the tokens of 'other', but 'sft' those of 'init'."
    wrong = study.model_copy(update={"stages": {**study.stages, "math": math}})
    assert problems(lambda: check_references(wrong)) == [text]
    check_references(study)


def test_stale_tokens_need_an_importance_rule(read: Read, registry: Registry) -> None:
    stale = "stages.math.staleness=1"
    check_components(read(overrides=[stale, "stages.math.algorithm.importance.use=mask"]), registry)
    with pytest.raises(ConfigError) as caught:
        check_components(read(overrides=[stale]), registry)
    told = str(caught.value)
    assert told.startswith("stages.math.staleness: tokens are then drawn by weights one step older than those that are")
    assert (
        "algorithm 'grpo' does not correct for it. Found: 1. Next: give it a rule, as in 'algorithm: {use: grpo, imp"
        in told
    )
    taught = ["stages.math.algorithm.loss.use=kl", "stages.math.teachers={math: sft}"]
    with pytest.raises(ConfigError, match=r"stages.math.staleness: .*\(a teacher does not make up for that"):
        check_components(read(overrides=[stale, *taught]), registry)
    with pytest.raises(ConfigError, match=r"stages.math.staleness: .*0 or 1, found 2"):
        read(overrides=["stages.math.staleness=2"])


def test_teachers_where_they_are_needed(read: Read, registry: Registry) -> None:
    overrides = ["stages.math.algorithm.loss.use=kl", "stages.math.teachers={math: sft}"]
    check_components(read(overrides=overrides), registry)


def test_a_merger_that_fails_to_check_its_experts_is_named(read: Read, registry: Registry) -> None:
    study = read(overrides=["stages.mean.merger=broken"])
    with pytest.raises(StageError, match="merger 'broken' failed while checking its experts: ZeroDivisionError"):
        check_components(study, registry)


def test_all_problems_are_told_at_once(read: Read, registry: Registry) -> None:
    study = read(overrides=["engine=nope", "stages.mean.merger=nope", "domains.math.x=1"])
    found = problems(lambda: check_components(study, registry))
    assert [line.split(":")[0] for line in found] == ["engine", "domains.math.x", "stages.mean.merger"]


def test_a_study_without_suites_has_nothing_to_evaluate(registry: Registry) -> None:
    study = Study.model_validate({"name": "x", "model": {"base": "m"}, "stages": {"e": {"kind": "eval"}}})
    assert problems(lambda: check_components(study, registry)) == [
        "stages.e.suites: no domain of this study has a suite."
    ]


@pytest.mark.parametrize(
    ("raised", "error", "expected"),
    [
        (DataError("row 3 has no gold"), DataError, "domains.math: row 3 has no gold."),
        (ZeroDivisionError("oops"), StageError, "domains.math failed while checking its data: ZeroDivisionError: oops"),
    ],
)
def test_domains_check_their_data(
    read: Read, registry: Registry, raised: Exception, error: type[Exception], expected: str
) -> None:
    class Strict(Part):
        name = "strict"

        def check(self, experts: Sequence[str] = ()) -> None:
            raise raised

    registry.register(SimpleNamespace(m2rl_domains=hookimpl(lambda: [Strict])), distribution="strict-tests")
    with pytest.raises(error) as caught:
        check_components(read(overrides=["domains.math.use=strict"]), registry)
    assert str(caught.value).startswith(expected)
    with pytest.raises(StageError if error is StageError else ConfigError, match=r"(?s)domains\.math.*levl"):
        check_components(read(overrides=["domains.math.use=strict", "stages.evals.suites=[levl]"]), registry)


# ── local files ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_in_the_working_directory_is_not_the_studys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    study = Study.model_validate({"name": "x", "domains": {"d": {"use": "d", "source": "rows.jsonl"}}, "stages": {}})
    found = grounded(study, tmp_path / "study").domains["d"].config["source"]
    assert found == str(tmp_path / "study" / "rows.jsonl")
    assert local_path(found) is None


@pytest.mark.parametrize("text", ["/", "./", "..", "//", "~a\0b/c", "a/\0", "tmp", "x" * 5000 + ".jsonl"])
def test_what_is_no_path(text: str) -> None:
    assert local_path(text) is None


def test_a_domains_files_start_from_the_studys_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("rows.jsonl", "data/more.jsonl", "generated"):
        (tmp_path / name).write_text("{}")
    given = {
        "source": "rows.jsonl",
        "nested": {"files": ["data/more.jsonl", "./data", 3, None]},
        "word": "generated",
        "text": "data",
        "missing": "gone.jsonl",
        "absolute": str(tmp_path / "rows.jsonl"),
        "long": "x" * 5000 + ".jsonl",
        "odd": "a/\0",
    }
    study = Study.model_validate({"name": "x", "domains": {"d": {"use": "d", **given}}, "stages": {}})
    found = grounded(study, tmp_path)
    assert found.domains["d"].config == given | {
        "source": str(tmp_path / "rows.jsonl"),
        "nested": {"files": [str(tmp_path / "data/more.jsonl"), str(tmp_path / "data"), 3, None]},
    }
    assert grounded(found, tmp_path / "data") == found
