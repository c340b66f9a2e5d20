"""The stage graph, its keys and folders, and the processes that work on it, with stages that are toys."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import m2rl_core.study
from m2rl_core.config import Study, grounded
from m2rl_core.errors import ConfigError, DataError, RunError, StageError, UserError
from m2rl_core.plugins import load_plugins
from m2rl_core.study import Node, plan, run_study
from m2rl_core.study.code import modules_behind

HERE = Path(__file__).parent
TOYS = {
    "model": "m2rl_core.model:model",
    "init": "toy_stages:init",
    "sft": "toy_stages:train",
    "rl": "toy_stages:train",
    "merge": "toy_stages:merge",
    "eval": "toy_stages:evaluate",
    "report": "toy_stages:report",
}
Tree = dict[str, Any]


def expert(*domains: str, **changes: Any) -> Tree:
    settings = {"steps": 6, "prompts": 2, "group": 2, "keep_every": 3, "checkpoint_every": 2}
    return {"kind": "rl", "init": "sft", "domains": list(domains), "algorithm": "toy", **settings, **changes}


def tree() -> Tree:
    """A small study as a file would hold it."""
    return {
        "name": "toy",
        "plugins": ["toy_plugin.py"],
        "domains": {"math": {"use": "toy", "prefix": "math"}, "science": {"use": "toy", "prefix": "science"}},
        "stages": {
            "init": {"kind": "init", "domains": ["math", "science"]},
            "sft": {"kind": "sft", "init": "init", "domains": ["math", "science"], "conversations": 4, "batch": 1},
            "m": expert("math"),
            "s": expert("science"),
            "avg": {"kind": "merge", "experts": ["m", "s"], "merger": "toy"},
            "evals": {"kind": "eval", "models": ["m", "avg"], "suites": ["math-easy", "science-easy"]},
            "report": {"kind": "report"},
        },
    }


class Watcher:
    """Takes progress down."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.messages: dict[str, str] = {}
        self.on_event: Callable[[], None] = lambda: None

    def cached(self, stage: str) -> None:
        self.seen.append(("cached", stage))

    def started(self, stage: str) -> None:
        self.seen.append(("started", stage))

    def event(self, stage: str, fields: Mapping[str, Any]) -> None:
        self.on_event()

    def finished(self, stage: str, seconds: float) -> None:
        self.seen.append(("finished", stage))

    def failed(self, stage: str, message: str) -> None:
        self.seen.append(("failed", stage))
        self.messages[stage] = message

    def those(self, what: str) -> list[str]:
        return [stage for each, stage in self.seen if each == what]


class Bench:
    """A folder with a plugin, and runs beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        self.runs.mkdir()
        shutil.copy(HERE / "toy_plugin.py", folder)

    def plan(self, study: Tree) -> dict[str, Node]:
        registry = load_plugins([self.folder / name for name in study.get("plugins", ())])
        nodes = plan(grounded(Study.model_validate(study), self.folder), registry, self.runs)
        return {node.id: node for node in nodes}

    def keys(self, study: Tree) -> dict[str, str]:
        return {name: node.key for name, node in self.plan(study).items()}

    def run(self, study: Tree, *, only: str | None = None, parallel: int | None = None) -> Watcher:
        watcher = Watcher()
        self.watched(study, watcher, only=only, parallel=parallel)
        return watcher

    def watched(self, study: Tree, watcher: Watcher, *, only: str | None = None, parallel: int | None = None) -> Path:
        source = self.folder / "study.yaml"
        return run_study(
            Study.model_validate(study), source=source, runs=self.runs, only=only, progress=watcher, parallel=parallel
        )

    def faults(self, **faults: list[str]) -> None:
        (self.runs / "faults").mkdir(exist_ok=True)
        for stage, those in faults.items():
            (self.runs / "faults" / f"{stage}.json").write_text(json.dumps(those))

    def lines(self) -> dict[str, bytes]:
        """All deterministic results, by their place."""
        root = self.runs / "toy"
        kinds = ("metrics.jsonl", "rollouts.jsonl", "model.json", "scores.json", "report.json")
        return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.name in kinds}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(m2rl_core.study, "STAGES", TOYS)
    monkeypatch.setattr(m2rl_core.study, "PRELOAD", m2rl_core.study.PRELOAD[1:])
    monkeypatch.syspath_prepend(HERE)
    return Bench(tmp_path)


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Nodes of both whose keys differ."""
    return {name for name in before.keys() & after.keys() if before[name] != after[name]}


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_is_one_node_per_model_and_suite(bench: Bench) -> None:
    nodes = bench.plan(tree())
    assert list(nodes) == [
        *("init", "sft", "m", "s", "avg"),
        *("evals/m/math-easy", "evals/m/science-easy", "evals/avg/math-easy", "evals/avg/science-easy"),
        "report",
    ]
    node = nodes["evals/avg/science-easy"]
    assert (node.suite, node.domains, node.inputs) == ("science-easy", ("science",), ("avg",))
    assert node.models == {"avg": ("avg", "checkpoint")}
    assert node.folder == bench.runs / "toy" / "evals" / "avg" / "science-easy"
    assert set(nodes["report"].inputs) == set(nodes) - {"report"}
    assert not any(each.done for each in nodes.values())


def test_all_models_are_those_that_have_learned(bench: Bench) -> None:
    study = tree()
    study["stages"]["evals"] = {"kind": "eval"}
    nodes = [node for node in bench.plan(study).values() if node.kind == "eval"]
    assert list(dict.fromkeys(next(iter(node.models)) for node in nodes)) == ["sft", "m", "s", "avg"]
    assert list(dict.fromkeys(node.suite for node in nodes)) == [
        *("math-easy", "math-hard", "science-easy", "science-hard")
    ]


def test_a_kept_step_is_a_model(bench: Bench) -> None:
    study = tree()
    study["stages"]["evals"]["models"] = ["m@3"]
    node = bench.plan(study)["evals/m@3/math-easy"]
    assert node.models == {"m@3": ("m", "kept/000003")}
    assert node.inputs == ("m",)


def test_a_merge_departs_from_the_common_start(bench: Bench) -> None:
    node = bench.plan(tree())["avg"]
    assert getattr(node.config, "base", None) == "sft"
    assert node.inputs == ("m", "s", "sft") or node.inputs == ("sft", "m", "s")


def test_teachers_are_inputs(bench: Bench) -> None:
    study = tree()
    study["stages"]["opd"] = expert("math", "science", teachers={"math": "m", "science": "s"})
    assert set(bench.plan(study)["opd"].inputs) == {"sft", "m", "s"}


def test_seeds_repeat_all_but_outside_models_and_the_report(bench: Bench, local_model: Path) -> None:
    study = tree() | {"seeds": [1, 2]}
    study["stages"]["given"] = {"kind": "model", "path": str(local_model)}
    study["stages"]["evals"]["models"] = ["given", "m"]
    nodes = bench.plan(study)
    assert [name for name in nodes if "/" not in name] == ["given", "report"]
    assert {"seed-1/sft", "seed-2/sft", "seed-1/evals/given/math-easy", "seed-2/evals/m/science-easy"} < set(nodes)
    assert nodes["seed-2/m"].inputs == ("seed-2/sft",)
    assert nodes["seed-2/evals/given/math-easy"].inputs == ("given",)
    assert (nodes["seed-1/m"].seed, nodes["seed-2/m"].seed) == (1, 2)
    assert nodes["seed-1/m"].key != nodes["seed-2/m"].key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": {"seed-1": {"kind": "init", "domains": ["math"]}}}, "stages.seed-1"),
        ({"stages": {"x": {"kind": "analyze", "analyzer": "toy", "models": []}}}, "stages.x"),
        ({"stages": {"e": {"kind": "eval", "models": ["x"]}}}, "no model 'x'"),
        (
            {"stages": {"init": {"kind": "init", "domains": ["math"]}, "e": {"kind": "eval", "suites": ["mat"]}}},
            "'mat'",
        ),
        (
            {"domains": {"a": "toy", "b": "toy"}, "stages": {"e": {"kind": "eval"}}},
            "is offered by several domains. Found: a, b",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(bench: Bench, change: Tree, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bench.plan(tree() | change)


def test_analyses_are_refused_before_anything_runs(bench: Bench) -> None:
    study = tree()
    study["stages"]["why"] = {"kind": "analyze", "analyzer": "toy"}
    with pytest.raises(ConfigError, match=r"stages\.why\.kind: this version cannot run 'analyze'"):
        bench.run(study)
    assert not (bench.runs / "toy").exists()


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_the_same_in_another_process(bench: Bench) -> None:
    code = f"""
    import json, sys
    from pathlib import Path
    sys.path.insert(0, {str(HERE)!r})
    import m2rl_core.study
    from m2rl_core.config import Study
    from m2rl_core.plugins import load_plugins
    m2rl_core.study.STAGES = {TOYS!r}
    study = Study.model_validate({tree()!r})
    nodes = m2rl_core.study.plan(study, load_plugins([{str(bench.folder / "toy_plugin.py")!r}]), Path("elsewhere"))
    print(json.dumps({{node.id: node.key for node in nodes}}))
    """
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == bench.keys(tree())


def test_another_domain_retrains_no_expert(bench: Bench) -> None:
    before, study = bench.keys(tree()), tree()
    study["domains"]["coding"] = {"use": "toy", "prefix": "coding"}
    study["stages"]["c"] = expert("coding")
    study["stages"]["avg"]["experts"].append("c")
    after = bench.keys(study)
    assert changed(before, after) == {"avg", "evals/avg/math-easy", "evals/avg/science-easy", "report"}
    assert after.keys() - before.keys() == {"c"}


def test_another_merger_retrains_nothing(bench: Bench) -> None:
    before, study = bench.keys(tree()), tree()
    study["stages"]["avg"]["merger"] = {"use": "toy", "weight": 0.9}
    assert changed(before, bench.keys(study)) == {"avg", "evals/avg/math-easy", "evals/avg/science-easy", "report"}


def test_longer_lists_of_evaluations_keep_the_others(bench: Bench) -> None:
    before, study = bench.keys(tree()), tree()
    study["stages"]["evals"]["models"] = ["s", "avg", "m"]
    study["stages"]["evals"]["suites"] = ["math-hard", "science-easy", "math-easy"]
    after = bench.keys(study)
    assert changed(before, after) == {"report"}
    assert len(after) == len(before) + 5


@pytest.mark.parametrize(
    ("stage", "setting", "value", "expected"),
    [
        ("m", "checkpoint_every", 7, {"report"}),
        ("m", "verifier_failures", 0.5, {"report"}),
        ("m", "steps", 7, {"m", "avg", "evals", "report"}),
        ("s", "tokens_per_device", 99_999, {"s", "avg", "evals", "report"}),
        ("sft", "lr", 1e-3, {"sft", "m", "s", "avg", "evals", "report"}),
    ],
)
def test_a_setting_changes_what_it_can_change(
    bench: Bench, stage: str, setting: str, value: float, expected: set[str]
) -> None:
    before, study = bench.keys(tree()), tree()
    study["stages"][stage][setting] = value
    found = changed(before, bench.keys(study))
    assert {name.split("/")[0] for name in found} == expected


def test_what_is_spelled_out_is_no_change(bench: Bench) -> None:
    study = tree()
    study["stages"]["avg"]["merger"] = {"use": "toy", "weight": 0.5}
    study["stages"]["avg"]["base"] = "sft"
    study["domains"]["math"]["level"] = 1
    study["stages"]["m"]["temperature"] = 1
    assert changed(bench.keys(tree()), bench.keys(study)) == {"report"}


def test_a_domain_section_changes_those_who_use_it(bench: Bench) -> None:
    before, study = bench.keys(tree()), tree()
    study["domains"]["science"]["level"] = 2
    found = changed(before, bench.keys(study))
    assert "evals/m/math-easy" in found  # its model's start was made from both domains


def test_the_rewards_format_gate_changes_those_who_earn_rewards(bench: Bench) -> None:
    before, study = bench.keys(tree()), tree()
    study["domains"]["science"]["reasoning"] = "off"
    found = {name for name in changed(before, bench.keys(study)) if "avg" not in name}
    assert "s" in found
    assert not found & {"init", "sft", "m", "evals/m/science-easy", "evals/sft/science-easy"}


@pytest.mark.parametrize("inner", ["other", {"use": "other"}])
def test_code_of_a_plugin_counts_where_it_is_used(bench: Bench, inner: str | dict[str, str]) -> None:
    source = (bench.folder / "toy_plugin.py").read_text()
    only_merger = source.replace('"toy"', '"other"').split("@hookimpl")[0]
    merger = bench.folder / "other_plugin.py"
    merger.write_text(only_merger + "@hookimpl\ndef m2rl_mergers() -> list[type]:\n    return [ToyMerger]\n")
    study = tree()
    study["plugins"].append("other_plugin.py")
    study["stages"]["avg"]["merger"] = {"use": "other"}
    study["stages"]["deep"] = {
        "kind": "merge",
        "experts": ["m", "s"],
        "merger": {"use": "toy", "inner": inner},
    }
    study["stages"]["evals"]["models"] = ["m"]
    before = bench.keys(study)
    merger.write_text(merger.read_text() + "# changed\n")
    assert changed(before, bench.keys(study)) == {"avg", "deep", "report"}


def test_a_local_file_of_a_domain_counts(bench: Bench) -> None:
    data, study = bench.folder / "rows.jsonl", tree()
    data.write_text("{}\n")
    study["domains"]["science"]["data"] = str(data)
    before = bench.keys(study)
    data.write_text("{} \n")
    assert {"s", "evals/m/science-easy"} < changed(before, bench.keys(study))


def test_a_local_file_counts_with_its_content_wherever_it_lies(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another checkout of a study, and another working directory, leave its keys as they are."""
    study = tree()
    study["domains"]["science"]["data"] = "data/rows.jsonl"
    study["stages"]["given"] = {"kind": "model", "path": "models/given"}
    found = []
    for name in ("one", "two"):
        folder = bench.folder / name
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "rows.jsonl").write_text("{}\n")
        (folder / "models" / "given").mkdir(parents=True)
        (folder / "models" / "given" / "model.safetensors").touch()
        shutil.copy(HERE / "toy_plugin.py", folder)
        for place in (folder, bench.folder):
            monkeypatch.chdir(place)
            registry = load_plugins([folder / "toy_plugin.py"])
            found.append(
                {n.id: n.key for n in plan(grounded(Study.model_validate(study), folder), registry, bench.runs)}
            )
    assert all(keys == found[0] for keys in found[1:])
    study["domains"]["science"]["data"] = "data/gone.jsonl"
    keys = {n.id: n.key for n in plan(grounded(Study.model_validate(study), folder), registry, bench.runs)}
    assert {"s", "evals/m/science-easy", "report"} < changed(found[0], keys)


def test_workers_see_the_file_beside_the_study(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, study = bench.folder / "elsewhere", tree()
    elsewhere.mkdir()
    for folder in (bench.folder, elsewhere):
        (folder / "rows.jsonl").write_text("{}\n")
    study["domains"]["math"]["data"] = "rows.jsonl"
    monkeypatch.chdir(elsewhere)
    seen = []
    monkeypatch.setattr(m2rl_core.study, "run_here", lambda nodes, job, progress: seen.extend(map(job, nodes)))
    bench.run(study, only="init", parallel=0)
    [job] = seen
    assert job.study.domains["math"].config["data"] == str(bench.folder / "rows.jsonl")


def test_the_key_is_the_hash_of_config_yaml(bench: Bench) -> None:
    bench.run(tree(), only="sft")
    folder = bench.runs / "toy" / "sft"
    covered = yaml.safe_load((folder / "config.yaml").read_text())
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    assert (folder / "KEY").read_text().strip() == hashlib.sha256(text.encode()).hexdigest()
    assert covered["inputs"] == {"init": (bench.runs / "toy" / "init" / "KEY").read_text().strip()}


def test_code_behind_a_stage() -> None:
    assert modules_behind("m2rl_core.files") == ["m2rl_core.errors", "m2rl_core.files", "m2rl_core.redaction"]
    # interfaces are imported for type checkers alone
    assert modules_behind("m2rl_core.hookspecs") == ["m2rl_core.hookspecs"]
    # verifier processes are started by their module's name
    assert "m2rl_core.rollout.worker" in modules_behind("m2rl_core.rollout.process")
    behind = modules_behind("m2rl_core.run")
    assert {"m2rl_core.config.sections", "m2rl_core.run.states", "m2rl_core.run"} < set(behind)
    assert not any(name.startswith(("m2rl_core.cli", "m2rl_core.study", "m2rl_core.plugins")) for name in behind)
    # a study is read and checked before its stages run
    assert not {"m2rl_core.config.components", "m2rl_core.config.paths", "m2rl_core.config.reading"} & set(behind)


# ── outside models ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def local_model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "given"
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors", "model.json"):
        (folder / name).write_text("1.5")
    return folder


def test_an_outside_model_is_used_where_it_lies(bench: Bench, local_model: Path) -> None:
    study = tree()
    study["stages"] = {
        "given": {"kind": "model", "path": "models/given"},
        "evals": {"kind": "eval", "suites": ["math-easy"]},
    }
    bench.run(study)
    assert (bench.runs / "toy" / "given" / "checkpoint").resolve() == local_model
    scores = json.loads((bench.runs / "toy" / "evals" / "given" / "math-easy" / "scores.json").read_text())
    assert scores["score"] == 1.5


def test_an_outside_model_is_known_by_its_content(bench: Bench, local_model: Path) -> None:
    study = tree() | {"model": {"base": str(local_model)}}
    study["stages"] = {"evals": {"kind": "eval", "suites": ["math-easy"]}}
    before = bench.keys(study)
    moved = local_model.rename(local_model.with_name("moved"))
    study["model"]["base"] = str(moved)
    assert changed(before, bench.keys(study)) == {"report"} & before.keys()
    (moved / "model.safetensors").write_text("2.5")
    assert changed(before, bench.keys(study)) == {"base", "evals/base/math-easy"}


@pytest.mark.parametrize(
    ("path", "revision", "error", "words"),
    [
        ("models/gone", None, ConfigError, "stages.given.revision: 'models/gone' is no local folder"),
        ("./models/gone", None, DataError, r"stages.given.path: there is no folder .*models/gone"),
        ("some/thing", "main", ConfigError, "what comes from the hub is pinned. Found: main"),
        ("nonsense", None, DataError, "stages.given.path: there is no folder"),
    ],
)
def test_an_outside_model_that_is_not_there(
    bench: Bench, path: str, revision: str | None, error: type[Exception], words: str
) -> None:
    study = tree()
    study["stages"] = {"given": {"kind": "model", "path": path, "revision": revision}}
    with pytest.raises(error, match=words):
        bench.plan(study)


def test_an_outside_model_without_a_tokenizer_is_refused(bench: Bench, local_model: Path) -> None:
    (local_model / "tokenizer.json").unlink()
    study = tree()
    study["stages"] = {"given": {"kind": "model", "path": str(local_model)}}
    with pytest.raises(DataError, match="no tokenizer"):
        bench.run(study, parallel=0)


def test_a_model_from_the_hub_comes_from_its_cache(
    bench: Bench, local_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / commit
    shutil.copytree(local_model, snapshot)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    study = tree()
    study["stages"] = {"given": {"kind": "model", "path": "some/model", "revision": commit}}
    bench.run(study, parallel=0)
    link = bench.runs / "toy" / "given" / "checkpoint"
    assert link.resolve() == snapshot
    assert bench.run(study, parallel=0).those("cached") == ["given"]
    shutil.rmtree(snapshot)
    with pytest.raises(DataError, match="some/model at 0123"):
        bench.run(study, parallel=0)


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_study_runs_once(bench: Bench) -> None:
    watcher = bench.run(tree())
    nodes = list(bench.plan(tree()))
    assert sorted(watcher.those("finished")) == sorted(nodes)
    assert watcher.seen[-1] == ("finished", "report")
    report = json.loads((bench.runs / "toy" / "report" / "report.json").read_text())
    assert report == [name for name in nodes if name != "report"]
    assert all(node.done for node in bench.plan(tree()).values())
    again = bench.run(tree())
    assert again.seen == [("cached", name) for name in nodes]


def test_no_process_or_as_many_as_you_like_same_results(bench: Bench, tmp_path: Path) -> None:
    bench.run(tree(), parallel=0)
    alone = bench.lines()
    shutil.rmtree(bench.runs / "toy")
    bench.run(tree(), parallel=3)
    assert bench.lines() == alone


def test_another_domain_in_a_finished_study_runs_what_is_new_and_what_combines(bench: Bench) -> None:
    names, study = ("math", "science", "coding", "if", "agent"), tree()
    study["domains"] = {name: {"use": "toy", "prefix": name} for name in names}
    study["stages"] = {
        "init": {"kind": "init", "domains": list(names)},
        "sft": {"kind": "sft", "init": "init", "domains": list(names), "conversations": 4, "batch": 1},
        **{name: expert(name) for name in names},
        "multi": expert(*names),
        "avg": {"kind": "merge", "experts": list(names), "merger": "toy"},
        "evals": {"kind": "eval"},
        "report": {"kind": "report"},
    }
    assert len(bench.run(study).those("finished")) == 2 + 5 + 2 + 8 * 10 + 1  # eight models on ten suites
    code = (bench.folder / "toy_plugin.py").read_text().replace('"toy"', '"sixth"')
    (bench.folder / "sixth.py").write_text(code)
    study["plugins"].append("sixth.py")
    study["domains"]["tables"] = {"use": "sixth", "prefix": "tables"}
    study["stages"]["tables"] = expert("tables")
    study["stages"]["multi"]["domains"].append("tables")
    study["stages"]["avg"]["experts"].append("tables")
    again = bench.run(study)
    ran = {stage for stage in again.those("finished") if not stage.startswith("evals/")}
    assert ran == {"tables", "multi", "avg", "report"}
    assert set(again.those("cached")) >= {"init", "sft", *names}
    suites = [f"{name}-{level}" for name in (*names, "tables") for level in ("easy", "hard")]
    new = {f"evals/{model}/{suite}" for model in ("tables", "multi", "avg") for suite in suites}
    new |= {f"evals/{model}/{suite}" for model in ("sft", *names) for suite in suites[-2:]}
    assert {stage for stage in again.those("finished") if stage.startswith("evals/")} == new


def test_independent_stages_run_at_the_same_time(bench: Bench) -> None:
    seen = bench.run(tree(), only="avg", parallel=2).seen
    begun = seen.index(("started", "m")), seen.index(("started", "s"))
    assert max(begun) < min(seen.index(("finished", "m")), seen.index(("finished", "s")))


def test_a_stage_with_threads_takes_their_places_on_a_cpu(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def together(threads: int) -> bool:
        study = tree()
        for name in ("one", "two"):
            study["stages"][name] = {**study["stages"]["sft"], "lr": 0.5 + threads, "threads": threads}
        study["stages"] = {name: study["stages"][name] for name in ("init", "one", "two")}
        seen = bench.run(study, parallel=2).seen
        begun = [seen.index(("started", name)) for name in ("one", "two")]
        return max(begun) < min(seen.index(("finished", name)) for name in ("one", "two"))

    assert together(threads=1)
    assert not together(threads=2)
    assert not together(threads=3)  # more than there are, and it runs all the same
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert together(threads=4)


def test_every_worker_has_a_gpu_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    bench.run(tree(), only="avg")
    assert {(bench.runs / "toy" / name / "device").read_text() for name in ("m", "s")} == {"4", "GPU-7"}


def test_the_longest_way_goes_first(bench: Bench) -> None:
    study = tree()
    study["stages"] = {name: study["stages"][name] for name in ("init", "sft", "m")}
    study["stages"]["short"] = expert("science", steps=2)
    study["stages"]["long"] = expert("math", "science", steps=20)
    study["stages"]["cascade"] = expert("science", init="short", steps=7)
    order = bench.run(study, parallel=1).those("started")
    assert order == ["init", "sft", "long", "short", "cascade", "m"]


def test_only_runs_what_a_stage_needs(bench: Bench) -> None:
    assert bench.run(tree(), only="m").those("finished") == ["init", "sft", "m"]
    assert bench.run(tree(), only="evals/m/math-easy").those("finished") == ["evals/m/math-easy"]
    assert set(bench.run(tree(), only="evals").those("finished")) > {"s", "avg", "evals/avg/math-easy"}
    with pytest.raises(ConfigError, match=r"no stage 'aveg'.* Did you mean 'avg'"):
        bench.run(tree(), only="aveg")


def test_changing_a_setting_and_changing_it_back_costs_nothing(bench: Bench) -> None:
    bench.run(tree())
    before, other = bench.lines(), tree()
    other["stages"]["s"]["steps"] = 7
    assert set(bench.run(other).those("cached")) == {"init", "sft", "m", "evals/m/math-easy", "evals/m/science-easy"}
    assert bench.lines() != before
    assert bench.run(tree()).those("started") == []
    assert bench.lines().items() >= before.items()
    assert bench.run(other).those("started") == []


def test_an_unfinished_stage_of_other_settings_is_not_resumed(bench: Bench) -> None:
    bench.faults(m=["between 3"])
    with pytest.raises(StageError):
        bench.run(tree(), only="m")
    other = tree()
    other["stages"]["m"]["lr"] = 1.0
    bench.run(other, only="m")
    assert len((bench.runs / "toy" / "m" / "metrics.jsonl").read_text().splitlines()) == 6
    stale = [path.name for path in (bench.runs / "toy" / ".stale").iterdir()]
    assert len(stale) == 1
    assert stale[0].startswith("m-")
    bench.run(tree(), only="m")
    assert (bench.runs / "toy" / "m" / "config.yaml").exists()


def test_a_missing_model_of_a_finished_stage_is_named(bench: Bench) -> None:
    bench.run(tree(), only="sft")
    shutil.rmtree(bench.runs / "toy" / "sft" / "checkpoint")
    with pytest.raises(RunError, match="the model 'sft' is gone"):
        bench.run(tree(), only="m")


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run of :func:`tree` writes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(m2rl_core.study, "STAGES", TOYS)
        monkeypatch.syspath_prepend(HERE)
        bench = Bench(tmp_path_factory.mktemp("undisturbed"))
        bench.run(tree(), parallel=0)
        return bench.lines()


@pytest.mark.parametrize(
    "faults",
    [
        {"m": ["log 0"]},
        {"m": ["log 3", "checkpoint 4", "between 4"]},
        {"m": ["checkpoint 2"], "s": ["checkpoint 6"]},
        {"m": ["log 1", "between 1", "between 2"]},
        {"sft": ["log 2", "between 3"], "m": ["finish"]},
        {"m": ["finish", "finish"], "s": ["between 5"]},
    ],
    ids=str,
)
def test_killed_and_run_again_gives_the_same_bytes(
    bench: Bench, undisturbed: dict[str, bytes], faults: dict[str, list[str]]
) -> None:
    bench.faults(**faults)
    while any(json.loads(file.read_text()) for file in (bench.runs / "faults").iterdir()):
        with pytest.raises(StageError, match=r"killed by signal 9 \(SIGKILL\).*run the same command again"):
            bench.run(tree())
    bench.run(tree())
    assert bench.lines() == undisturbed
    leftovers = [path for path in (bench.runs / "toy").rglob("*") if ".part-" in path.name or path.name == "state"]
    assert leftovers == []


PROGRAM = f"""
import signal
import sys
from pathlib import Path
sys.path.insert(0, {str(HERE)!r})
import m2rl_core.study
from m2rl_core.config import Study
from test_study import TOYS, Watcher, tree
m2rl_core.study.STAGES, m2rl_core.study.PRELOAD = TOYS, m2rl_core.study.PRELOAD[1:]
if __name__ == "__main__":
    folder, watcher = Path(sys.argv[1]), Watcher()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests are a shell's background job
    try:
        m2rl_core.study.run_study(
            Study.model_validate(tree()), source=folder / "s.yaml", runs=folder / "runs", progress=watcher
        )
    except KeyboardInterrupt:
        sys.exit(130)
    assert "torch" not in sys.modules
"""


def start_program(bench: Bench) -> subprocess.Popen[bytes]:
    (bench.folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(bench.folder / "program.py"), str(bench.folder)]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_ended_leaves_no_process_and_resumes(
    bench: Bench, undisturbed: dict[str, bytes], number: signal.Signals
) -> None:
    bench.faults(m=["hang 3"])
    marker = bench.runs / "toy" / "m" / "hanging"
    program = start_program(bench)
    wait_until(lambda: marker.exists() and " " in marker.read_text())
    processes = [int(pid) for pid in marker.read_text().split()]
    assert all(map(alive, processes))
    with pytest.raises(RunError, match=f"in use by process {program.pid}"):
        bench.run(tree())
    program.send_signal(number)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), errors
    wait_until(lambda: not any(map(alive, processes)), 5)
    marker.unlink()
    program = start_program(bench)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == 0, errors
    assert errors == b""
    assert bench.lines() == undisturbed


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failing_stage_lets_independent_ones_finish(bench: Bench) -> None:
    bench.faults(m=["raise 2"])
    watcher = Watcher()
    with pytest.raises(StageError, match="stage 'm' failed: ZeroDivisionError: step 2 went wrong"):
        bench.watched(tree(), watcher)
    assert watcher.those("failed") == ["m"]
    assert "toy_stages.py" in watcher.messages["m"]  # the traceback
    assert "s" in watcher.those("finished")
    assert not {"avg", "report"} & set(watcher.those("started"))
    assert "ZeroDivisionError" in (bench.runs / "toy" / "m" / "output.log").read_text()
    assert set(bench.run(tree()).those("cached")) == {"init", "sft", "s"}


def test_the_users_mistake_keeps_its_class(bench: Bench) -> None:
    bench.faults(m=["refuse 1"])
    watcher = Watcher()
    with pytest.raises(DataError, match="stage 'm' failed: row 1 has no gold") as caught:
        bench.watched(tree(), watcher)
    assert caught.value.exit_code == 2
    assert watcher.messages["m"] == "row 1 has no gold."


@pytest.mark.parametrize(("second", "kind"), [("refuse 1", UserError), ("raise 1", StageError)])
def test_several_failures_are_told_together(bench: Bench, second: str, kind: type[Exception]) -> None:
    bench.faults(m=["refuse 1"], s=[second])
    with pytest.raises(kind, match=r"(?s)(stage 'm' failed.*stage 's' failed)|(stage 's' failed.*stage 'm' failed)"):
        bench.run(tree())


def test_an_exception_of_the_watcher_ends_the_workers(bench: Bench) -> None:
    bench.faults(s=["hang 0"])
    watcher = Watcher()

    def stumble() -> None:
        if (bench.runs / "toy" / "s" / "hanging").exists():
            raise RuntimeError("the terminal is gone")

    watcher.on_event = stumble
    study = tree()
    study["stages"]["m"]["steps"] = 100_000
    with pytest.raises(RuntimeError, match="terminal is gone"):
        bench.watched(study, watcher, parallel=2)
    pid, child = map(int, (bench.runs / "toy" / "s" / "hanging").read_text().split())
    wait_until(lambda: not alive(pid) and not alive(child), 5)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_somebody_else_is_not_touched(bench: Bench) -> None:
    (bench.runs / "toy").mkdir()
    (bench.runs / "toy" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="was not made by m2rl"):
        bench.run(tree())
    assert [path.name for path in (bench.runs / "toy").iterdir()] == ["thesis.tex"]


def test_a_folder_of_another_study_is_not_touched(bench: Bench) -> None:
    bench.run(tree(), only="init")
    (bench.runs / "toy").rename(bench.runs / "renamed")
    before = sorted(path.stat().st_mtime_ns for path in (bench.runs / "renamed").rglob("*"))
    with pytest.raises(RunError, match=r"belongs to another study. Found: toy"):
        bench.run(tree() | {"name": "renamed"})
    assert sorted(path.stat().st_mtime_ns for path in (bench.runs / "renamed").rglob("*")) == before


def test_an_empty_folder_is_taken(bench: Bench) -> None:
    (bench.runs / "toy").mkdir()
    assert bench.run(tree(), only="init").those("finished") == ["init"]


def test_a_stage_folder_of_somebody_else_is_not_touched(bench: Bench) -> None:
    bench.run(tree(), only="init")
    (bench.runs / "toy" / "sft").mkdir()
    (bench.runs / "toy" / "sft" / "notes").touch()
    with pytest.raises(RunError, match=r"toy/sft was not made by m2rl"):
        bench.run(tree(), only="sft")
    assert (bench.runs / "toy" / "sft" / "notes").exists()


def test_runs_that_cannot_be_a_folder(bench: Bench) -> None:
    bench.runs.rmdir()
    bench.runs.touch()
    with pytest.raises(RunError, match="cannot be used"):
        bench.run(tree())
