"""``m2rl verify`` and ``m2rl rescore``: verdicts on what is in files, with the domains' own workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import m2rl_core
from m2rl_core.cli import app
from m2rl_core.config import load_study
from m2rl_core.errors import DataError
from m2rl_core.rollout.judging import IN_FLIGHT, Case
from m2rl_core.rollout.records import to_record
from m2rl_core.rollout.verifiers import Spec
from m2rl_core.types import Finish, Message, Prompt, Reward, Sample, Trajectory
from m2rl_core.verify import verified

CATALOGUE = Path(__file__).resolve().parents[2] / "shared" / "data" / "adversarial.jsonl"

QUIZ = """
import os, time
from m2rl_core.errors import DataError
from m2rl_core.files import numbered_rows
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Domain
from m2rl_core.types import Prompt, Reward, Suite
from pathlib import Path

class Quiz(Domain):
    name, reference, verify_seconds = "quiz", "a test", 0.5
    suites = {"quiz-suite": Suite("generated")}
    class Config(ComponentConfig):
        source: str = ""
        ignore: dict[str, bool] = {}
        stops: bool = False
        silent: bool = False
    def __init__(self, config):
        self.config = config
    def prompts(self, split):
        if split == "quiz-suite":
            return [Prompt(f"s{n}", "quiz", ({"role": "user", "content": f"{n}?"},), str(n)) for n in range(3)]
        if not self.config.source:
            return []
        found = map(self.prompt, numbered_rows(Path(self.config.source)))
        return (prompt for prompt in found) if self.config.stops else found
    def prompt(self, numbered):
        number, row = numbered
        if "gold" not in row:
            raise DataError(f"row {number} has no gold")
        return Prompt(f"train/{number}", "quiz", ({"role": "user", "content": "?"},), row["gold"], row)
    def gold(self, prompt):
        return None if self.config.silent else f"={prompt.ground_truth}"
    def verify(self, trajectory):
        said = [m["content"] for m in trajectory.messages if m["role"] == "assistant"]
        answer = trajectory.answer
        if answer == "hang":
            time.sleep(60)
        if answer == "crash":
            os._exit(1)
        if answer == "count":
            return Reward(1.0, " ".join(said))
        if self.config.ignore.get("case"):
            answer = answer.lower()
        return Reward(float(answer == f"={trajectory.prompt.ground_truth}"), f"says {answer}")

m2rl_domains = hookimpl(lambda: [Quiz])
"""


@pytest.fixture
def quiz(tmp_path: Path) -> Path:
    file = tmp_path / "quiz.py"
    file.write_text(QUIZ)
    return file


Verify = Callable[..., Result]


@pytest.fixture
def verify(quiz: Path) -> Verify:
    """``m2rl verify quiz ...``"""
    return lambda *arguments: m2rl("verify", "quiz", "--plugin", quiz, *arguments)


def m2rl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def row(key: object, response: object, gold: object = "1", **metadata: object) -> dict[str, object]:
    return {"id": key, "response": response, "ground_truth": gold, "metadata": metadata}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_line_per_row_in_the_order_of_the_rows(tmp_path: Path, verify: Verify) -> None:
    """A verifier that hangs or crashes fails, and harms no other row."""
    said = {0: "hang", 5: "crash"}
    rows = [row(n, said.get(n, f"={n}"), str(n - n % 2)) for n in range(40)]
    result = verify(written(tmp_path / "rows.jsonl", *rows), "--out", tmp_path / "scored.jsonl")
    assert result.exit_code == 0, result.output
    found = lines((tmp_path / "scored.jsonl").read_text())
    assert [each["id"] for each in found] == list(range(40))
    assert all(list(each) == ["id", "reward", "verdict", "reason", "seconds"] for each in found)
    for each in found:
        expected: Any = (1.0, "right") if each["id"] % 2 == 0 else (0.0, "wrong")
        expected = (None, "failed") if each["id"] in said else expected
        assert (each["reward"], each["verdict"]) == expected
        assert 0 <= each["seconds"] < 5
    assert "exceeded 1 s" in found[0]["reason"]
    assert found[0]["seconds"] >= 1
    assert "exited with code 1" in found[5]["reason"]
    assert found[7]["reason"] == "says =7"
    assert result.stdout.startswith("40 rows: 19 right, 19 wrong, 2 failed; ")
    assert result.stdout.endswith(" rows/s)\n")


def test_verdicts_go_to_standard_output_without_a_file(tmp_path: Path, verify: Verify) -> None:
    result = verify(written(tmp_path / "rows.jsonl", row("a", "=1"), row("b", "=\ud800", "\ud800")))
    assert [(each["id"], each["reward"]) for each in lines(result.stdout)] == [("a", 1.0), ("b", 1.0)]
    assert result.stderr.startswith("2 rows: 2 right")


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("nonsense", "line 3, is no JSON"),
        ('{"id": 3, "response"', "line 3, is no JSON"),
        ("[" * 100_000, "line 3, is no JSON"),
        ("", "line 3, is no JSON"),
        ([1], "line 3, is no JSON object. Found: list"),
        ({"id": 3, "ground_truth": "1"}, "line 3: the row has no 'response'"),
        ({"id": 3, "response": "=1"}, "line 3: the row has no 'ground_truth'"),
        ({"response": "=1", "ground_truth": "1"}, "line 3: the row has no 'id'"),
        (row(None, "=1"), "line 3: 'id' is neither text nor a whole number: None"),
        (row(1.5, "=1"), "line 3: 'id' is neither text nor a whole number: 1.5"),
        (row(3, 5), "line 3: 'response' is neither text nor a list"),
        (row(3, []), "line 3: 'response' is neither text nor a list"),
        (row(3, ["=1", None]), "line 3: 'response' is neither text nor a list"),
        (row(3, "=1") | {"metadata": [1]}, "line 3: 'metadata' is no object"),
        (row(3, "=1", reasoning="thinks"), "line 3: 'metadata.reasoning' is 'thinks'; allowed are think, required"),
        (row(3, "=1", reasoning=["think"]), "line 3: 'metadata.reasoning' is ['think']"),
        (row(1, "=1"), "line 3: id 1 is already there on line 1"),
        (row("2", "=1"), "line 3: id '2' is already there on line 2"),
    ],
)
def test_a_bad_row_is_an_error_and_nothing_is_written(
    tmp_path: Path, verify: Verify, bad: object, problem: str
) -> None:
    file = written(tmp_path / "rows.jsonl", row(1, "=1"), row(2, "=1"), bad)
    (tmp_path / "scored.jsonl").write_text("older")
    before = sorted(tmp_path.iterdir())
    result = verify(file, "--out", tmp_path / "scored.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {file}, {problem}")
    assert (tmp_path / "scored.jsonl").read_text() == "older"
    assert sorted(tmp_path.iterdir()) == before


def test_a_last_line_without_an_end_is_read_or_refused(tmp_path: Path, verify: Verify) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row("a", "=1")))
    assert len(lines(verify(file).stdout)) == 1
    file.write_text(json.dumps(row("a", "=1")) + "\n" + json.dumps(row("b", "=1"))[:-2])
    assert "line 2, is no JSON" in verify(file).stderr


@pytest.mark.parametrize("name", [".", "nowhere/scored.jsonl", "rows.jsonl"])
def test_verdicts_that_have_no_place(tmp_path: Path, verify: Verify, name: str) -> None:
    file = written(tmp_path / "rows.jsonl", row("a", "=1"))
    content = file.read_text()
    result = verify(file, "--out", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / name}")
    assert file.read_text() == content


def test_files_that_are_not_there(tmp_path: Path, verify: Verify) -> None:
    for more in ([], ["--gold"]):
        result = verify(tmp_path / "none.jsonl", *more)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"Error: there is no file {tmp_path / 'none.jsonl'}")
    assert verify().exit_code == 2


def test_an_empty_file_has_no_verdicts(tmp_path: Path, verify: Verify) -> None:
    result = verify(written(tmp_path / "rows.jsonl"), "--out", tmp_path / "scored.jsonl")
    assert result.exit_code == 0
    assert (tmp_path / "scored.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("response", "metadata", "option", "verdict"),
    [
        ("<think>x</think>=1", {"reasoning": "think"}, None, "right"),
        ("<think>x</think>=1", {"reasoning": "required"}, None, "right"),
        ("<think>=1", {"reasoning": "think"}, None, "wrong"),
        ("=1", {"reasoning": "think"}, None, "wrong"),
        ("=1", {}, None, "right"),
        ("=1", {"reasoning": "optional"}, None, "right"),
        ("<think>x</think>=1", {}, None, "wrong"),
        ("<think>x</think>=1", {}, "optional", "right"),
        ("=1", {}, "required", "wrong"),
        ("=1", {"reasoning": "think"}, "off", "right"),
        ("<think>x</think>y</think>=1", {"reasoning": "think"}, None, "wrong"),
        (["<think>x</think>hm", "<think>x</think>=1"], {"reasoning": "think"}, None, "right"),
        (["=1", "done"], {}, None, "wrong"),
    ],
)
def test_the_format_gate(
    tmp_path: Path, verify: Verify, response: object, metadata: dict[str, object], option: str | None, verdict: str
) -> None:
    file = written(tmp_path / "rows.jsonl", row("a", response, **metadata))
    [found] = lines(verify(file, *(["--reasoning", option] if option else [])).stdout)
    assert found["verdict"] == verdict


def test_what_the_gate_refuses_is_not_verified(tmp_path: Path, verify: Verify) -> None:
    [found] = lines(verify(written(tmp_path / "rows.jsonl", row("a", "hang", reasoning="think"))).stdout)
    assert found["reason"] == "the reasoning is not closed by </think>"
    assert found["seconds"] == 0.0


def test_the_verifier_sees_every_turn(tmp_path: Path, verify: Verify) -> None:
    [found] = lines(verify(written(tmp_path / "rows.jsonl", row("a", ["one", "two", "count"]))).stdout)
    assert found["reason"] == "one two count"


def test_settings_reach_the_workers(tmp_path: Path, verify: Verify) -> None:
    file = written(tmp_path / "rows.jsonl", row("a", "=X", "x") | {"metadata": None})
    assert [each["verdict"] for each in lines(verify(file).stdout)] == ["wrong"]
    assert [each["verdict"] for each in lines(verify(file, "--set", "ignore.case=true").stdout)] == ["right"]
    result = verify(file, "--set", "ignored=1")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: quiz.ignored: unknown key. Did you mean 'ignore'?\n"
    assert verify(file, "--set", "ignore").stderr == "Error: --set ignore: should read KEY.KEY=VALUE.\n"


def test_a_domain_that_is_not_there(tmp_path: Path) -> None:
    result = m2rl("verify", "quizz", written(tmp_path / "rows.jsonl", row("a", "=1")))
    assert result.exit_code == 2
    assert "domain 'quizz' is not available" in result.stderr


def test_verdicts_for_programs(tmp_path: Path, verify: Verify) -> None:
    file = written(tmp_path / "rows.jsonl", row("a", "=1"), row("b", "=2"), row("c", "crash"))
    found = json.loads(verify(file, "--json").stdout)
    assert {key: found[key] for key in ("rows", "right", "wrong", "failed")} == {
        "rows": 3, "right": 1, "wrong": 1, "failed": 1,
    }  # fmt: skip
    assert [(each["id"], each["reward"]) for each in found["verdicts"]] == [("a", 1.0), ("b", 0.0), ("c", None)]
    found = json.loads(verify(file, "--json", "--out", tmp_path / "scored.jsonl").stdout)
    assert "verdicts" not in found
    assert [each["id"] for each in lines((tmp_path / "scored.jsonl").read_text())] == ["a", "b", "c"]
    result = verify("--gold", written(file, {"gold": "1"}, {}), "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["prompts"], found["right"], found["unreadable"], found["problems"]) == (2, 1, 1, 1)
    assert found["shown"] == ["row 2 has no gold."]


# ── the Python API ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_from_python_are_judged_as_those_of_a_file(tmp_path: Path, quiz: Path, verify: Verify) -> None:
    rows = [row("a", "=X", "x"), row("b", ["one", "count"]), row("c", "hang", reasoning="think")]
    settings = {"ignore": {"case": True}}
    found = list(m2rl_core.verify("quiz", rows, settings=settings, plugins=[quiz]))
    assert [(each["id"], each["verdict"], each["reason"]) for each in found] == [
        ("a", "right", "says =x"),
        ("b", "right", "one count"),
        ("c", "wrong", "the reasoning is not closed by </think>"),
    ]
    file = written(tmp_path / "rows.jsonl", *rows)
    for other in (
        list(m2rl_core.verify("quiz", file, settings=settings, plugins=[quiz])),
        lines(verify(file, "--set", "ignore.case=true").stdout),
    ):
        assert [{**each, "seconds": 0} for each in other] == [{**each, "seconds": 0} for each in found]


def test_rows_from_python_are_read_as_they_are_needed(quiz: Path) -> None:
    drawn = 0

    def rows() -> Iterator[dict[str, object]]:
        nonlocal drawn
        for drawn in count(1):
            yield row(drawn, "=1")

    with closing(m2rl_core.verify("quiz", rows(), plugins=[quiz])) as verdicts:
        assert [each["id"] for each in islice(verdicts, 100)] == list(range(1, 101))
    assert drawn <= 100 + IN_FLIGHT
    with pytest.raises(DataError, match="row 2: the row has no 'response'"):
        list(m2rl_core.verify("quiz", [row(1, "=1"), {"id": 2, "ground_truth": "1"}], plugins=[quiz]))


# ── streaming ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def endless(quiz: Path) -> tuple[Spec, Iterator[Case[int]]]:
    said: list[Message] = [{"role": "assistant", "content": "=1"}]
    return Spec("quiz", plugins=[str(quiz)], seconds=0.5), (
        Case(n, "quiz", Prompt(str(n), "quiz", (), "1"), said) for n in count()
    )


def test_more_rows_than_memory(endless: tuple[Spec, Iterator[Case[int]]]) -> None:
    spec, cases = endless
    with closing(verified(cases, spec, 2)) as verdicts:
        assert [of for of, verdict in islice(verdicts, 2000) if verdict.reward.value == 1.0] == list(range(2000))
    assert next(cases).of <= 2000 + IN_FLIGHT


def test_a_slow_row_does_not_let_the_others_pile_up(quiz: Path) -> None:
    drawn = 0

    def cases() -> Iterator[Case[int]]:
        nonlocal drawn
        for drawn in count(1):
            answer = "hang" if drawn == 1 else "=1"
            yield Case(drawn, "quiz", Prompt("p", "quiz", (), "1"), [{"role": "assistant", "content": answer}])

    with closing(verified(cases(), Spec("quiz", plugins=[str(quiz)], seconds=0.5), 2)) as verdicts:
        first = next(verdicts)
        assert first[1].reward.value is None
        assert drawn == IN_FLIGHT
        assert [of for of, _ in islice(verdicts, 1000)] == list(range(2, 1002))


# ── gold answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gold_answers_that_are_right(tmp_path: Path, verify: Verify) -> None:
    file = written(tmp_path / "rows.jsonl", *({"gold": n} for n in range(30)))
    result = verify("--gold", file, "--out", tmp_path / "scored.jsonl")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "30 prompts: 30 right, 0 wrong, 0 failed, 0 unreadable, 0 without a gold answer to check\n"
    )
    assert [each["id"] for each in lines((tmp_path / "scored.jsonl").read_text())] == [
        f"train/{n + 1}" for n in range(30)
    ]
    assert verify("--gold", "--set", f"source={file}").stdout == result.stdout


def test_gold_answers_that_are_not_are_listed(tmp_path: Path, verify: Verify) -> None:
    """Unreadable rows do not hide those behind them; 20 problems are shown, all are counted."""
    rows = [{"gold": "1"}, "no JSON", {"gold": "X"}, {}, {"gold": "2"}]
    file = written(tmp_path / "rows.jsonl", *rows)
    result = verify("--gold", file, "--set", "ignore.case=true")
    assert result.exit_code == 1
    assert sorted(result.stdout.splitlines()[:-1]) == [
        f"{file}, line 2, is no JSON: Expecting value: line 1 column 1 (char 0).",
        "row 4 has no gold.",
        "train/3: wrong: says =x",
    ]
    assert result.stdout.splitlines()[-1] == (
        "5 prompts: 2 right, 1 wrong, 0 failed, 2 unreadable, 0 without a gold answer to check"
    )
    many = verify("--gold", written(file, *[{}] * 1234)).stdout.splitlines()
    assert many[19:] == [
        "row 20 has no gold.",
        "... and 1,214 more",
        "1,234 prompts: 0 right, 0 wrong, 0 failed, 1,234 unreadable, 0 without a gold answer to check",
    ]


def test_a_domain_that_ends_with_its_first_bad_row(tmp_path: Path, verify: Verify) -> None:
    file = written(tmp_path / "rows.jsonl", {"gold": "1"}, {}, {"gold": "2"})
    result = verify("--gold", file, "--set", "stops=true")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == "row 2 has no gold."
    assert result.stdout.splitlines()[1].startswith("2 prompts: 1 right")


def test_a_source_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    result = m2rl("verify", "math", "--gold", "--set", f"source={tmp_path / 'none.jsonl'}")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stdout.startswith("no rows to read.")


def test_nothing_to_check(tmp_path: Path, verify: Verify) -> None:
    result = verify("--gold")
    assert result.exit_code == 2
    assert result.stderr == "Error: domain 'quiz' has no training prompts.\n"
    silent = verify("--gold", written(tmp_path / "rows.jsonl", {"gold": "1"}), "--set", "silent=true")
    assert silent.exit_code == 0
    assert silent.stdout.endswith("1 without a gold answer to check\n")
    assert verify("--gold", "--reasoning", "off").exit_code == 2


@pytest.mark.parametrize("domain", ["math", "science"])
def test_generated_gold_answers_are_right(domain: str) -> None:
    result = m2rl("verify", domain, "--gold", "--set", "size=50")
    assert (result.exit_code, result.stdout[:23]) == (0, "50 prompts: 50 right, 0")


# ── the catalogue ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("domain", ["math", "science"])
def test_the_catalogue(domain: str, tmp_path: Path) -> None:
    """Attacks and controls through the command. A row without gold is a failed verdict, which is no reward."""
    rows = [each for each in lines(CATALOGUE.read_text()) if each["domain"] == domain]
    judged = [each for each in rows if each["tier"] in {"must", "control", "hardened"}]
    assert judged
    result = m2rl("verify", domain, written(tmp_path / "rows.jsonl", *judged), "--out", tmp_path / "scored.jsonl")
    assert result.exit_code == 0, result.output
    for each, found in zip(judged, lines((tmp_path / "scored.jsonl").read_text()), strict=True):
        expected = each["expected_reward"] if each["ground_truth"] else None
        assert (found["id"], found["reward"]) == (each["id"], expected), found["reason"]


# ── stored rollouts ──────────────────────────────────────────────────────────────────────────────────────────────────

STUDY = """\
name: mini
plugins: [./quiz.py]
domains: {quiz: {use: quiz, reasoning: optional}}
stages:
  init: {kind: init, domains: [quiz]}
  first: {kind: rl, init: init, algorithm: x, steps: 2, prompts: 2, group: 1, domains: [quiz]}
  second: {kind: rl, init: first, algorithm: x, steps: 2, prompts: 2, group: 1, domains: [quiz]}
  evals: {kind: eval, models: [first]}
"""


@dataclass(frozen=True)
class Run:
    """A study's folder with hand-written rollouts."""

    folder: Path

    def store(self, stage: str, *records: dict[str, Any]) -> None:
        name = "samples.jsonl" if stage.startswith("evals") else "rollouts.jsonl"
        (self.folder / stage).mkdir(parents=True, exist_ok=True)
        written(self.folder / stage / name, *records)

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path, quiz: Path) -> Run:
    (tmp_path / "mini.yaml").write_text(STUDY)
    folder = tmp_path / "runs" / "mini"
    folder.mkdir(parents=True)
    study = load_study(tmp_path / "mini.yaml")
    (folder / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    return Run(folder)


def rollout(answer: str, reward: float | None, *, finish: Finish = "stop", reason: str = "") -> dict[str, Any]:
    prompt = Prompt("p", "quiz", ({"role": "user", "content": "?"},), "1")
    said: tuple[Message, ...] = ({"role": "assistant", "content": answer},)
    sample = Sample(
        prompt=prompt,
        index=0,
        ids_L=[1, 2],
        sampled_L=[False, True],
        logps_L=[0.0, -1.0],
        versions_L=[-1, 0],
        trajectory=Trajectory(prompt, said, answer),
        finish=finish,
        reward=Reward(reward, reason),
    )
    return {"step": 3, **to_record(sample)}


def sample(prompt: str, answer: str, reward: float | None, asked: str | None = None) -> dict[str, Any]:
    question = [{"role": "user", "content": asked or f"{prompt[1:]}?"}]
    said = [{"role": "assistant", "content": answer}]
    head = {"prompt": prompt, "domain": "quiz", "suite": "quiz-suite", "sample": 1, "reward": reward, "reason": ""}
    return {**head, "weight": 1.0, "tokens": 1, "finish": "stop", "messages": question, "response": said}


def test_stored_rewards_that_stand(run: Run) -> None:
    run.store("first", rollout("=1", 1.0), rollout("=2", 0.0), rollout("<think>=1", 0.0))
    run.store("second", rollout("<think>x</think>=1", 1.0))
    run.store("evals/first/quiz-suite", sample("s0", "=0", 1.0), sample("s1", "=0", 0.0))
    before = run.files()
    result = m2rl("rescore", run.folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("6 rollouts verified again: no reward flipped; ")
    assert run.files() == before


def test_flipped_rewards_are_listed(run: Run, tmp_path: Path) -> None:
    run.store("first", rollout("=1", 1.0), rollout("=1", 0.0, reason="says [b]"), rollout("=2", 1.0))
    run.store("second", rollout("=1", None, reason="verifier exceeded 1 s"), rollout("hang", 1.0))
    run.store("evals/first/quiz-suite", sample("s2", "=2", 0.5))
    before = run.files()
    result = m2rl("rescore", run.folder, "--out", tmp_path / "flips.jsonl")
    assert result.exit_code == 1, result.output
    assert [line.split()[:7] for line in result.stdout.splitlines()[3:8]] == [
        ["first", "3", "quiz", "p", "0", "0", "→"],
        ["first", "3", "quiz", "p", "0", "1", "→"],
        ["evals/first/quiz-suite", "quiz", "s2", "1", "0.5", "→", "1"],
        ["second", "3", "quiz", "p", "0", "failed", "→"],
        ["second", "3", "quiz", "p", "0", "1", "→"],
    ]
    assert "6 rollouts verified again: 5 rewards flipped" in result.stdout
    assert "(1 failed → right, 1 right → failed, 1 right → wrong, 2 wrong → right)" in result.stdout
    flips = lines((tmp_path / "flips.jsonl").read_text())
    assert flips[0] == {
        "stage": "first",
        "step": 3,
        "domain": "quiz",
        "prompt": "p",
        "sample": 0,
        "old": 0.0,
        "new": 1.0,
        "old_reason": "says [b]",
        "reason": "says =1",
    }
    assert [(each["stage"], each["old"], each["new"]) for each in flips[1:]] == [
        ("first", 1.0, 0.0),
        ("evals/first/quiz-suite", 0.5, 1.0),
        ("second", None, 1.0),
        ("second", 1.0, None),
    ]
    assert run.files() == before


def test_one_stage_alone(run: Run) -> None:
    run.store("first", rollout("=1", 0.0))
    run.store("second", rollout("=1", 1.0))
    assert m2rl("rescore", run.folder, "--stage", "second").exit_code == 0
    assert m2rl("rescore", run.folder, "--stage", "first").exit_code == 1
    wrong = m2rl("rescore", run.folder, "--stage", "frist")
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("Error: the study has no stage 'frist'. Did you mean 'first'?")
    assert m2rl("rescore", run.folder, "--stage", "evals").stderr.startswith(f"Error: {run.folder / 'evals'} holds no")


def test_what_was_never_judged_is_left_out(run: Run) -> None:
    """An environment or an engine that gave up says nothing of the verifier; nor does a suite that asks otherwise."""
    trouble = "the environment failed: OSError: gone"
    gone = rollout("=1", 1.0) | {"domain": "gone"}
    run.store("first", rollout("=1", None, reason=trouble), rollout("=1", None, finish="abort"), gone)
    run.store("evals/first/quiz-suite", sample("s9", "=9", 0.0), sample("s1", "=1", 0.0, asked="1 or 2?"))
    result = m2rl("rescore", run.folder)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("0 rollouts verified again: no reward flipped; 5 could not be verified again; ")


def test_long_lists_are_cut(run: Run, tmp_path: Path) -> None:
    run.store("first", *[rollout("=1", 0.0)] * 60)
    result = m2rl("rescore", run.folder, "--out", tmp_path / "flips.jsonl")
    assert "... and 10 more" in result.stdout
    assert len(lines((tmp_path / "flips.jsonl").read_text())) == 60


def test_folders_that_cannot_be_rescored(run: Run, tmp_path: Path) -> None:
    assert m2rl("rescore", tmp_path).stderr.startswith(f"Error: {tmp_path} is no study's folder")
    assert m2rl("rescore", run.folder).stderr.startswith(f"Error: {run.folder} holds no rollouts")
    run.store("first", {"step": 0, "domain": "quiz"})
    result = m2rl("rescore", run.folder)
    assert result.exit_code == 2
    assert "rollouts.jsonl, line 1, is no sample of this version: KeyError" in result.stderr
    inside = m2rl("rescore", run.folder, "--out", run.folder / "first" / "rollouts.jsonl")
    assert inside.exit_code == 2
    assert "lies in the study's folder" in inside.stderr
