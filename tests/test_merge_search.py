"""A search finds settings that are known to be best, says what that gains on other prompts, and survives kills."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from m2rl_core.config import Study, check_references, with_settings
from m2rl_core.config.components import check_components
from m2rl_core.errors import ConfigError, DataError, StageError, UserError
from m2rl_core.files import append_jsonl, read_jsonl, sweep
from m2rl_core.merge import merge, merge_models
from m2rl_core.merge.judge import Distance, Judge, gain, mean_distance
from m2rl_core.merge.space import Space
from m2rl_core.model_card import CARD
from m2rl_core.plugins import load_plugins
from m2rl_core.policy import Policy, compare
from m2rl_core.rollout.records import to_record
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive
from m2rl_core.testing.family import family
from m2rl_core.types import Divergence, Sample
from m2rl_merger_task_arithmetic import TaskArithmetic

Make = Callable[..., Sample]
GRID = {"scale": [0.0, 1.0, 2.0]}
OWN = {"use": "task-arithmetic", "scale": 0.5}
"""The stage's own settings, which the grid does not have."""
PROMPTS = 12
"""Stored of every expert."""


def expert(*domains: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "rl", "init": "sft", "domains": list(domains), "algorithm": "grpo", **changes}


def study(experts: Sequence[str], search: Any, *, merger: Any = OWN, also: Sequence[str] = (), **more: Any) -> Study:
    """Experts of a domain each, their start from elsewhere, and one merge."""
    merged = {"kind": "merge", "base": "sft", "experts": [*experts, *also], "merger": merger, "search": search, **more}
    stages = {"sft": {"kind": "model", "path": "."}, **{name: expert(name) for name in experts}, "merged": merged}
    domains = {name: "math" if name == "math" else {"use": "science"} for name in experts}
    given = {"name": "s", "model": {"dtype": "float32"}, "domains": domains, "stages": stages}
    return Study.model_validate(given)


@pytest.fixture
def make_run(tmp_path: Path, make_sample: Make) -> Callable[..., StageRun[Any]]:
    """Runs of a merge stage beside the folders of its experts' stages, which hold rollouts."""

    def make(folder: str = "run", experts: int = 1, search: Any = None, **changes: Any) -> StageRun[Any]:
        models = tmp_path / f"models-{experts}"
        if not models.exists():
            found = family(models / "made", experts, moved=0.05)
            found["base"].rename(models / "sft")
            for number, name in enumerate(list(found)[1:]):
                store(models / name, found[name], number, make_sample)
        names = ["math", "science"][:experts]
        whole = study(names, {"grid": GRID, "samples": PROMPTS} if search is None else search, **changes)
        return StageRun(
            name="merged", stage=whole.stages["merged"], study=whole, seed=5, folder=tmp_path / folder,
            models={"sft": models / "sft", **{name: models / name / "checkpoint" for name in names}},
            registry=load_plugins(), key="k",
        )  # fmt: skip

    return make


def store(stage: Path, model: Path, number: int, make_sample: Make) -> None:
    """What an rl stage leaves: its model, and a sample of each of its prompts, of unequal lengths."""
    stage.mkdir()
    model.rename(stage / "checkpoint")
    samples = [
        make_sample(12 + i % 5, 6 + i % 5, 100 * number + i, domain=stage.name, vocab=64) for i in range(PROMPTS)
    ]
    append_jsonl(stage / "rollouts.jsonl", ({"step": 0, **to_record(sample)} for sample in samples))


def searched(run: StageRun[Any]) -> list[dict[str, Any]]:
    """Run the stage; the lines of its metrics."""
    merge(run)
    run.close()
    return list(read_jsonl(run.folder / "metrics.jsonl"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# ── what is found ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_expert_is_found_again_exactly(make_run: Callable[..., StageRun[Any]]) -> None:
    """b + 1 · (x − b) = x, so that the best scale is 1 and its distance 0."""
    run = make_run()
    *candidates, last = searched(run)
    assert [line["settings"] for line in candidates] == ["scale=0.5", "scale=0.0", "scale=1.0", "scale=2.0"]
    scores = {line["settings"]: line["kl"] for line in candidates}
    assert scores["scale=1.0"] == 0
    assert 0 < scores["scale=0.5"] < scores["scale=0.0"]
    assert all(line["kl"] == line["kl/math/math"] for line in candidates)
    assert last["chosen"] == "scale=1.0"
    assert last["gain"] == last["kl_own"] > 0 == last["kl"]
    assert 0 < last["gain_low"] < last["gain"] < last["gain_high"]
    assert last["candidates"] == last["step"] == 4
    assert last["norm/math"] > 0
    assert weights(run.folder / "checkpoint") == weights(run.models["math"])
    assert "scale: 1.0" in (run.folder / "checkpoint" / "README.md").read_text()


def test_the_model_is_that_of_the_chosen_settings(make_run: Callable[..., StageRun[Any]], tmp_path: Path) -> None:
    run = make_run(experts=2, search={"grid": {"scale": [0.25, 0.75, 1.25]}, "samples": PROMPTS, "batch": 2})
    *_, last = searched(run)
    scale = float(last["chosen"].removeprefix("scale="))
    merger = TaskArithmetic(TaskArithmetic.Config(scale=scale))
    experts = {name: run.models[name] for name in ("math", "science")}
    merge_models(merger, base=run.models["sft"], experts=experts, out=tmp_path / "alone")
    for path in (tmp_path / "alone").iterdir():
        if path.name != CARD:
            assert path.read_bytes() == (run.folder / "checkpoint" / path.name).read_bytes()
    assert "\nbase: sft\n" in (run.folder / "checkpoint" / CARD).read_text()  # no folder of this machine


def test_scores_are_means_over_an_experts_tokens_then_over_experts(make_run: Callable[..., StageRun[Any]]) -> None:
    """Against a naive KL in float64 from whole rows of logits, on the half that chooses."""
    from transformers import AutoModelForCausalLM

    run = make_run(experts=2, search={"grid": {"scale": [1.0]}, "samples": PROMPTS})
    line = next(row for row in searched(run) if row.get("settings") == "scale=1.0")
    candidate = run.folder.parent / "candidate"
    merger = TaskArithmetic(TaskArithmetic.Config(scale=1.0))
    names = ("math", "science")
    merge_models(merger, base=run.models["sft"], experts={n: run.models[n] for n in names}, out=candidate)

    def logps(folder: Path, ids_L: list[int]) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        with torch.no_grad():
            found: torch.Tensor = model(torch.tensor([ids_L])).logits[0].log_softmax(-1)
        return found

    for name in names:
        kl, tokens = 0.0, 0
        for heard in Judge(run)._heard:
            for sample in heard.halves["chooses"] if heard.expert == name else ():
                theirs, ours = (logps(folder, sample.ids_L) for folder in (run.models[name], candidate))
                kl_L = (theirs.exp() * (theirs - ours)).sum(-1)
                kl += sum(float(kl_L[i - 1]) for i, drawn in enumerate(sample.sampled_L) if drawn)
                tokens += sum(sample.sampled_L)
        assert line[f"kl/{name}/{name}"] == pytest.approx(kl / tokens, rel=1e-4)
    assert line["kl"] == pytest.approx((line["kl/math/math"] + line["kl/science/science"]) / 2)


def test_divergences_are_measured_at_sampled_tokens_alone(
    tiny_model: Path, other_model: Path, make_sample: Make
) -> None:
    student, teacher = (Policy.load(folder, dtype="float32") for folder in (tiny_model, other_model))
    samples = [make_sample(20, 9, i) for i in range(3)]
    found = compare(student, teacher, samples, Divergence("forward"), 64)
    assert [(kl_L > 0).tolist() for kl_L in found] == [sample.sampled_L for sample in samples]
    same = compare(teacher, teacher, samples, Divergence("forward"), 32)
    assert all(torch.equal(kl_L, torch.zeros(20)) for kl_L in same)


def test_halves_share_no_prompt_whoever_drew_it(make_run: Callable[..., StageRun[Any]], tmp_path: Path) -> None:
    run = make_run(experts=2)
    [line, *_] = read_jsonl(run.models["math"].parent / "rollouts.jsonl")
    shared = {**line, "domain": "math", "step": 1}
    append_jsonl(run.models["science"].parent / "rollouts.jsonl", [shared])
    stages = {**run.study.stages, "science": run.study.stages["science"].model_copy(update={"domains": ["math"]})}
    run.study = run.study.model_copy(update={"stages": stages})
    append_jsonl(
        run.models["science"].parent / "rollouts.jsonl",
        [{**row, "domain": "math"} for row in list(read_jsonl(run.models["math"].parent / "rollouts.jsonl"))[1:]],
    )
    heard = Judge(run)._heard
    chooses = {sample.prompt.id for each in heard for sample in each.halves["chooses"]}
    tells = {sample.prompt.id for each in heard for sample in each.halves["tells"]}
    assert len(chooses) == len(tells) == PROMPTS // 2
    assert not chooses & tells


def test_an_expert_that_one_half_would_not_hear_is_refused(make_run: Callable[..., StageRun[Any]]) -> None:
    """Two experts of one domain with two prompts each, numbered so that both prompts of one come into one half."""
    run = make_run(experts=2, search={"grid": GRID, "samples": 2})
    stages = {**run.study.stages, "science": run.study.stages["science"].model_copy(update={"domains": ["math"]})}
    run.study = run.study.model_copy(update={"stages": stages})
    log = run.models["science"].parent / "rollouts.jsonl"
    rows = [{**row, "domain": "math"} for row in read_jsonl(log)]
    names = sorted((f"p{i}" for i in range(4)), key=lambda name: derive(run.seed, "half", name))
    for expert, mine in (("math", names[::2]), ("science", names[1::2])):
        last = [{**row, "prompt": name, "step": 9} for row, name in zip(rows, mine, strict=False)]
        append_jsonl(run.models[expert].parent / "rollouts.jsonl", last)
    with pytest.raises(DataError, match=r"search\.samples: one half of the prompts has none of 'math' by 'math'"):
        Judge(run)


def test_gain_is_an_interval_over_prompts() -> None:
    before = [Distance("a", "a", [2.0, 4.0, 6.0], [10, 10, 10]), Distance("b", "b", [1.0, 1.0, 1.0], [5, 10, 5])]
    after = [Distance("a", "a", [1.0, 1.0, 1.0], [10, 10, 10]), Distance("b", "b", [1.0, 1.0, 1.0], [5, 10, 5])]
    found = gain(before, after)
    assert found.value == pytest.approx((0.4 - 0.1) / 2) == mean_distance(before) - mean_distance(after)
    error = ((4 + 0 + 4) / 30**2 * 3 / 2) ** 0.5 / 2
    assert found.high - found.value == pytest.approx(1.959964 * error) == found.value - found.low


# ── proposals ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bayesian_rounds_come_nearer_than_the_grid(make_run: Callable[..., StageRun[Any]]) -> None:
    pytest.importorskip("optuna")
    search = {"grid": {"scale": [0.0, 1.7]}, "samples": PROMPTS, "rounds": 3, "batch": 3}
    lines = searched(make_run(search=search))
    *candidates, last = lines
    assert [line["round"] for line in candidates] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    scales = {float(line["settings"].removeprefix("scale=")): line["kl"] for line in candidates}
    assert len(scales) == 12
    assert all(0 <= scale <= 1.7 for scale in scales)
    best = float(last["chosen"].removeprefix("scale="))
    assert abs(best - 1.0) < 0.2
    assert scales[best] == min(scales.values())
    assert lines == searched(make_run("again", search=search))


def test_proposals_depend_on_what_was_tried_and_the_seed_alone(make_run: Callable[..., StageRun[Any]]) -> None:
    pytest.importorskip("optuna")
    run = make_run(search={"grid": {"scale": [0.0, 1.0]}, "samples": PROMPTS, "rounds": 1, "batch": 3})
    tried = [({"scale": 0.5}, 1.0), ({"scale": 0.0}, 3.0), ({"scale": 1.0}, 2.0)]
    first = Space(run).propose(tried, 7)
    assert len(first) == 3
    assert first == Space(run).propose(tried, 7)
    assert first != Space(run).propose(tried, 8)
    assert first != Space(run).propose([*tried, ({"scale": 0.9}, 0.1)], 7)


def test_when_everything_was_tried_nothing_is_proposed(make_run: Callable[..., StageRun[Any]]) -> None:
    pytest.importorskip("optuna")
    grid = {"weights": [None, [0.5], [1.0]]}
    run = make_run(search={"grid": grid, "samples": PROMPTS, "rounds": 2})
    *candidates, _ = searched(run)
    assert [line["settings"] for line in candidates] == ["weights=null", "weights=[0.5]", "weights=[1.0]"]


def test_whole_numbers_of_a_real_setting_are_a_range(make_run: Callable[..., StageRun[Any]]) -> None:
    pytest.importorskip("optuna")
    run = make_run(search={"grid": {"scale": [0, 1]}, "samples": PROMPTS, "rounds": 1}, merger="task-arithmetic")
    space = Space(run)
    assert space.default == {"scale": 1.0}
    assert space.points == [{"scale": 1.0}, {"scale": 0.0}]
    proposed = space.propose([({"scale": 1.0}, 0.0), ({"scale": 0.0}, 1.0)], 1)
    assert any(settings["scale"] not in (0.0, 1.0) for settings in proposed)


def test_without_optuna_the_command_is_named(
    make_run: Callable[..., StageRun[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import m2rl_core.config.search as config

    monkeypatch.setattr(config, "find_spec", lambda name: None)
    run = make_run(search={"grid": GRID, "samples": PROMPTS, "rounds": 1})
    wanted = r"stages\.merged\.search\.rounds: .*optuna.*pip install 'm2rl-core\[search\]'"
    with pytest.raises(UserError, match=wanted):
        check_components(run.study, run.registry)
    with pytest.raises(UserError, match=wanted):
        merge(run)
    assert "gain" in searched(make_run("grid"))[-1]


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"scael": [1.0]}, r"stages\.merged\.search\.grid\.scael: unknown key\. Did you mean 'scale'\?"),
        (
            {"scale": [1.0, "much"], "weights": [None, [1.0]]},
            r"^stages\.merged\.search\.grid\.scale: .*found 'much'\.$",
        ),
        ({"weights": [[1.0, 2.0]]}, r"stages\.merged\.search\.grid: 2 weights for 1 experts"),
    ],
)
def test_a_grid_that_the_merger_does_not_take_is_refused(
    make_run: Callable[..., StageRun[Any]], grid: Any, words: str
) -> None:
    run = make_run(search={"grid": grid})
    with pytest.raises(ConfigError, match=words):
        check_components(run.study, run.registry)


@pytest.mark.parametrize("search", [{}, {"grid": {}}, {"grid": {"scale": []}}, {"grid": GRID, "samples": 1}])
def test_a_search_that_is_none_is_refused(search: Any) -> None:
    with pytest.raises(ValueError, match="search"):
        study(["math"], search)


def test_experts_without_rollouts_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"stages\.merged\.search: scores candidates on rollouts.* 'sft' is none"):
        check_references(study(["math"], {"grid": GRID}, also=["sft"]))


def test_settings_of_a_part_are_reached_by_a_path() -> None:
    use = {"use": "dare", "density": 0.2, "then": "ties"}
    found = with_settings(use, {"density": 0.5, "then.density": 0.1, "then.scale": 2.0})
    assert found == {"use": "dare", "density": 0.5, "then": {"use": "ties", "density": 0.1, "scale": 2.0}}
    assert use["density"] == 0.2


def test_settings_of_a_part_are_searched(make_run: Callable[..., StageRun[Any]]) -> None:
    """The part's own defaults and the study's preset hold for all that the grid does not name."""
    pytest.importorskip("optuna")
    grid = {"rate": [0, 0.5], "then.scale": [1]}
    merger = {"use": "dare", "preset": "released-code"}
    run = make_run(search={"grid": grid, "samples": PROMPTS, "rounds": 1, "batch": 2}, merger=merger)
    check_components(run.study, run.registry)
    *candidates, last = searched(run)
    shown = [line["settings"] for line in candidates]
    assert shown[:3] == ["rate=0.2,then.scale=1.0", "rate=0.0,then.scale=1.0", "rate=0.5,then.scale=1.0"]
    assert len(shown) == 5
    assert last["chosen"] == "rate=0.0,then.scale=1.0"
    assert last["kl"] == 0
    assert weights(run.folder / "checkpoint") == weights(run.models["math"])


def test_what_the_merger_tells_is_told_of_the_chosen_settings(make_run: Callable[..., StageRun[Any]]) -> None:
    run = make_run(search={"grid": {"density": [0.97]}, "samples": PROMPTS}, merger={"use": "ties", "density": 0.1})
    *_, last = searched(run)
    assert last["chosen"] == "density=0.97"
    assert last["density/math"] > 0.9
    assert not [name for name in last if "=" in name]


def test_a_list_with_a_number_per_expert_is_one_candidate(make_run: Callable[..., StageRun[Any]]) -> None:
    pytest.importorskip("optuna")
    search = {"grid": {"density": [0.5, [0.3, 1]]}, "samples": PROMPTS, "rounds": 1, "batch": 2}
    run = make_run(experts=2, search=search, merger={"use": "ties", "density": [0.5, 0.5]})
    check_components(run.study, run.registry)
    *candidates, _ = searched(run)
    assert [line["settings"] for line in candidates] == ["density=[0.5,0.5]", "density=0.5", "density=[0.3,1.0]"]
    same = [line["kl"] for line in candidates]
    assert same[0] == same[1] != same[2]


def test_evidence_is_gathered_once_for_all_candidates(make_run: Callable[..., StageRun[Any]]) -> None:
    search = {"grid": {"ratio": [0.0, 0.5, 1.0]}, "samples": PROMPTS, "batch": 2}
    run = make_run(experts=2, search=search, merger="regmean", evidence={"samples": 4})
    *candidates, last = searched(run)
    assert len(candidates) == 3 + (Space(run).default["ratio"] not in (0.0, 0.5, 1.0))
    assert all(line["kl"] > 0 for line in (*candidates, last))
    assert sorted(path.name for path in (run.folder / "evidence").iterdir()) == ["math", "science"]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"then.scael": [1.0]}, r"search\.grid\.then\.scael: unknown key\. Did you mean 'scale'\?"),
        ({"then": ["ties", "task-arithmetic"]}, r"search\.grid\.then: names another merger.*'then\.scale'"),
        ({"rate.scale": [1.0]}, r"search\.grid\.rate: "),
    ],
)
def test_a_grid_that_a_part_does_not_take_is_refused(
    make_run: Callable[..., StageRun[Any]], grid: Any, words: str
) -> None:
    run = make_run(search={"grid": grid}, merger="dare")
    with pytest.raises(ConfigError, match=words):
        check_components(run.study, run.registry)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_few_rollouts_are_refused(make_run: Callable[..., StageRun[Any]]) -> None:
    run = make_run(search={"grid": GRID, "samples": PROMPTS + 1})
    with pytest.raises(
        DataError, match=r"stages\.merged\.search\.samples: .*too few sequences of 'math'\. Found: 12\."
    ):
        merge(run)


def test_a_small_disk_is_refused_before_a_byte_is_written(
    make_run: Callable[..., StageRun[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    size = sum(path.stat().st_size for path in make_run().models["math"].glob("*.safetensors"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size))
    with pytest.raises(UserError, match="too small"):
        merge(make_run())
    assert "gain" in searched(make_run("less", search={"grid": GRID, "samples": PROMPTS, "batch": 2}))[-1]


def test_candidates_without_numbers_lose(make_run: Callable[..., StageRun[Any]]) -> None:
    """The expert differs in its last norm alone; near the largest number of its type, what that scales overflows."""
    from safetensors.torch import load_file, save_file

    huge, models = 1e36, make_run().models
    tensors = load_file(models["sft"] / "model.safetensors")
    tensors["model.norm.weight"] += 300
    save_file(tensors, models["math"] / "model.safetensors", {"format": "pt"})
    *candidates, last = searched(make_run(search={"grid": {"scale": [huge, 1.0]}, "samples": PROMPTS}))
    assert [line["kl"] is None for line in candidates] == [False, True, False]
    assert last["chosen"] == "scale=1.0"
    run = make_run("none", search={"grid": {"scale": [huge]}, "samples": PROMPTS}, merger={**OWN, "scale": 0.9 * huge})
    with pytest.raises(StageError, match=r"stages\.merged: no candidate has"):
        merge(run)


SCRIPT = """
import os, pickle, signal, sys
from m2rl_core.merge import merge
from m2rl_core.run import StageRun
from m2rl_core.seeding import derive
from m2rl_core.plugins import load_plugins
from m2rl_core.merge import judge

given, left = pickle.loads(sys.stdin.buffer.read())
run = StageRun(registry=load_plugins(), **given)
distances = judge.Judge.distances

def mortal(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return distances(*arguments)

judge.Judge.distances = mortal
merge(run)
run.close()
"""


@pytest.mark.slow
def test_kills_change_no_byte(make_run: Callable[..., StageRun[Any]]) -> None:
    """Killed at its third, then at its second judgement; what it leaves is swept before the next attempt."""
    import pickle

    grid = {"grid": {"scale": [0.0, 0.25, 0.75, 1.0]}, "samples": PROMPTS, "batch": 2}
    whole = searched(make_run("whole", search=grid))
    run = make_run("killed", search=grid)
    names = ("name", "stage", "study", "seed", "folder", "models", "key")
    given = {name: getattr(run, name) for name in names}
    codes = []
    for left in (3, 2, 0):
        sweep(run.folder, deep=True)
        work = pickle.dumps((given, left))
        done = subprocess.run([sys.executable, "-c", SCRIPT], input=work, capture_output=True, check=False)
        codes.append(done.returncode)
        held = [path for path in run.folder.iterdir() if path.name.startswith(".candidates")]
        assert bool(held) == (left > 0), done.stderr.decode()
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert list(read_jsonl(run.folder / "metrics.jsonl")) == whole
    assert weights(run.folder / "checkpoint") == weights(run.folder.parent / "whole" / "checkpoint")
