"""One suite evaluated with the real engine and verifier: the files, the numbers, and going on after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core import evaluate as module
from m2rl_core.config import EvalStage, Study
from m2rl_core.errors import ConfigError, DataError, UserError, VerifierError
from m2rl_core.evaluate import evaluate, scores
from m2rl_core.files import read_jsonl
from m2rl_core.plugins import load_plugins
from m2rl_core.run import StageRun

DOMAIN = '''
from m2rl_core.errors import DataError
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, SingleTurn
from m2rl_core.types import Prompt, Reward, Suite


class Letters:
    """Right where the answer's length is even; the verifier fails on prompts that are told to break it."""

    name = "letters"
    reference = "test"
    remote = False
    verify_seconds = 5.0

    class Config(ComponentConfig):
        prompts: int = 5
        breaks: list[int] = []

    def __init__(self, config):
        self.config = config

    @property
    def suites(self):
        return {
            "letters-easy": Suite("generated", k=3, max_tokens=6, reasoning="off"),
            "letters-think": Suite("generated", k=1, max_tokens=4, reasoning="required"),
            "letters-none": Suite("generated"),
            "letters-twice": Suite("generated"),
        }

    def prompts(self, split):
        count = {"letters-none": 0}.get(split, self.config.prompts)
        for i in range(count):
            name = f"{split}/{0 if split == 'letters-twice' else i}"
            yield Prompt(name, "letters", ({"role": "user", "content": f"say {i}"},), i, weight=1.0 + i)

    def demonstrations(self):
        return ()

    def open(self, prompt):
        return SingleTurn()

    def verify(self, trajectory):
        if trajectory.prompt.ground_truth in self.config.breaks:
            raise RuntimeError("broken on purpose")
        return Reward(float(len(trajectory.answer) % 2 == 0), "counted")


@hookimpl
def m2rl_domains():
    return [Letters]
'''


@pytest.fixture
def start(tmp_path: Path, tiny_model: Path) -> Any:
    """Builds the run of one evaluation node."""
    plugin = tmp_path / "letters.py"
    plugin.write_text(DOMAIN)
    registry = load_plugins([plugin])

    def build(
        suite: str = "letters-easy",
        *,
        out: str = "node",
        called: str = "letters",
        stage: Mapping[str, Any] | None = None,
        **domain: Any,
    ) -> StageRun[EvalStage]:
        section = EvalStage.model_validate({"kind": "eval", "max_tokens": 8, **(stage or {})})
        study = Study.model_validate(
            {
                "name": "s",
                "domains": {called: {"use": "letters", "config": domain}},
                "stages": {"evals": section},
                "plugins": [str(plugin)],
            }
        )
        return StageRun(
            name="evals", stage=section, study=study, seed=7, folder=tmp_path / out, models={"tiny": tiny_model},
            registry=registry, suite=suite, key="k",
        )  # fmt: skip

    return build


def samples(run: StageRun[EvalStage]) -> list[dict[str, Any]]:
    return list(read_jsonl(run.folder / "samples.jsonl"))


def test_every_sample_is_recorded_and_the_scores_add_up(start: Any) -> None:
    run = start()
    evaluate(run)
    rows = samples(run)
    assert [(r["prompt"], r["sample"]) for r in rows] == [(f"letters-easy/{i}", k) for i in range(5) for k in range(3)]
    first = rows[0]
    assert first["messages"] == [{"role": "user", "content": "say 0"}]
    assert first["response"][0]["role"] == "assistant"
    assert {r["verdict"] for r in rows} == {"right", "wrong"}
    assert all(r["finish"] == "length" for r in rows if r["tokens"] == 6)
    found = json.loads((run.folder / "scores.json").read_text())
    by_hand = sum((1 + i) * sum(r["reward"] for r in rows[3 * i : 3 * i + 3]) / 3 for i in range(5)) / 15
    assert found["score"] == pytest.approx(100 * by_hand)
    assert found["interval"][0] <= found["score"] <= found["interval"][1]
    assert found["pass_at_k"]["1"] == pytest.approx(found["score"])
    assert list(found["pass_at_k"]) == ["1", "2", "3"]
    expected = {"model": "tiny", "suite": "letters-easy", "domain": "letters", "k": 3, "prompts": 5, "failed": 0}
    assert expected.items() <= found.items()
    assert found["mean_tokens"] == sum(r["tokens"] for r in rows) / 15


def test_a_domain_may_have_another_name_than_its_plugin(start: Any) -> None:
    evaluate(run := start(called="words"))
    assert {row["domain"] for row in samples(run)} == {"words"}
    assert json.loads((run.folder / "scores.json").read_text())["domain"] == "words"


def test_the_suites_reasoning_rule_and_limit_hold(start: Any) -> None:
    run = start("letters-think", stage={"suites": {"letters-think": 2}, "limit": 2})
    evaluate(run)
    rows = samples(run)
    assert len(rows) == 4
    assert all(r["tokens"] <= 4 and r["reward"] == 0.0 for r in rows)
    assert all("</think>" in r["reason"] for r in rows)


def test_failed_verdicts_are_counted_and_never_scored(start: Any) -> None:
    run = start(breaks=[4], stage={"verifier_failures": 0.3})
    evaluate(run)
    rows = samples(run)
    assert [r["reward"] for r in rows[12:]] == [None] * 3
    assert all("broken on purpose" in r["reason"] for r in rows[12:])
    found = json.loads((run.folder / "scores.json").read_text())
    by_hand = sum((1 + i) * sum(r["reward"] for r in rows[3 * i : 3 * i + 3]) / 3 for i in range(4)) / 10
    assert found["failed"] == 3
    assert found["prompts"] == 5
    assert found["score"] == pytest.approx(100 * by_hand)


def test_a_verifier_that_is_down_stops_the_evaluation(start: Any) -> None:
    run = start(breaks=[0, 1, 2, 3, 4])
    with pytest.raises(VerifierError, match=r"15 of 15 verdicts .* letters-easy/0: .*broken on purpose"):
        evaluate(run)
    assert not (run.folder / "samples.jsonl").exists()
    assert not (run.folder / "scores.json").exists()


@pytest.mark.parametrize("survived", [1, 2])
def test_a_killed_evaluation_goes_on_and_writes_the_same_bytes(
    start: Any, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    whole = start(out="whole")
    evaluate(whole)
    monkeypatch.setattr(module, "CHUNK", 6)
    run = start(out="killed")
    with monkeypatch.context() as kill:
        kill.setattr(module, "append_jsonl", torn_after(survived, module.append_jsonl))
        with pytest.raises(KeyboardInterrupt):
            evaluate(run)
    assert len((run.folder / "samples.jsonl").read_bytes().splitlines()) == 6 * survived + 1
    again = start(out="killed")
    evaluate(again)
    for name in ("samples.jsonl", "scores.json"):
        assert (again.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    assert len(list(read_jsonl(again.folder / "metrics.jsonl"))) == 3


def torn_after(chunks: int, append: Any) -> Any:
    """Writes some chunks whole and half a line of the next one, as a kill does."""
    left = [chunks]

    def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
        if left[0] == 0:
            with path.open("a") as file:
                file.write(json.dumps(next(iter(rows)))[:40])
            raise KeyboardInterrupt
        left[0] -= 1
        append(path, rows)

    return write


@pytest.mark.parametrize(
    ("suite", "error", "message"),
    [
        ("letters-none", DataError, "suite 'letters-none' has no prompts"),
        ("letters-twice", DataError, "has two prompts 'letters-twice/0'"),
        ("letters-esy", ConfigError, "there is no suite 'letters-esy'. Did you mean 'letters-easy'?"),
    ],
)
def test_unfit_suites_are_refused(start: Any, suite: str, error: type[UserError], message: str) -> None:
    with pytest.raises(error, match=message.replace("?", r"\?")):
        evaluate(start(suite))


def record(prompt: str, reward: float | None, weight: float = 1.0) -> dict[str, Any]:
    return {"prompt": prompt, "weight": weight, "reward": reward, "tokens": 10, "finish": "stop"}


def test_pass_at_k_leaves_out_prompts_with_too_few_verdicts() -> None:
    """a: 1 of 4 right; b: 1 of 2 known right (of weight 3)."""
    rewards: Sequence[tuple[str, float | None]] = [
        ("a", 1.0), ("a", 0.0), ("a", 0.5), ("a", 0.0), ("b", 1.0), ("b", 0.0), ("b", None), ("b", None),
    ]  # fmt: skip
    found = scores(iter([record(p, r, 3.0 if p == "b" else 1.0) for p, r in rewards]))
    assert found["pass_at_k"] == pytest.approx({"1": 100 * (0.25 + 3 * 0.5) / 4, "2": 100 * (0.5 + 3) / 4, "4": 100.0})
    assert found["score"] == pytest.approx(100 * (0.375 + 3 * 0.5) / 4)
    assert found["failed"] == 2


def test_a_suite_without_any_verdict_has_no_score() -> None:
    found = scores(iter([record("a", None), record("b", None)]))
    assert found["score"] is None
    assert found["interval"] == [None, None]
    assert found["pass_at_k"] == {}
    json.dumps(found, allow_nan=False)
