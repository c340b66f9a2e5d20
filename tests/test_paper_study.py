"""The paper's study itself, run end to end: ``studies/qwen3-4b.yaml``, byte for byte, at the size of a test.

Overridden are the size of the model (and with it the one layer that an analysis looks at, since the model has two), the
places of data, models and services, and the numbers of steps. Besides:

- the engine: vLLM is installed nowhere that this test runs;
- how many rows two sources of Table 1 are sampled to, and how many conversations there are: the rows are few;
- which kept steps are evaluated: those that so few steps have;
- prompts of the policies' neighborhoods: 4 instead of 64, for time.

Prompts, groups, batches, lengths, suites, repeats and samples are the file's: the model ends its turn after some ten
tokens. Data lies where the file says, rows in the formats of the published data sets, all made up. The services are
servers of the real protocols on this machine: SandboxFusion runs programs in the embedded sandbox, and NeMo-Gym keeps a
workplace for each session.
"""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from m2rl_core.cli import app
from m2rl_core.config import load_study
from m2rl_core.study import one_study
from m2rl_domain_agent.bfcl.categories import CATEGORIES, FREE, MULTI_TURN
from m2rl_domain_agent.calls import Call
from m2rl_domain_agent.workplace import TOOLS, Workplace, answered, company, replayed
from m2rl_domain_coding.sandbox import open_backend
from m2rl_domain_coding.sandbox.backend import Limits, Program

pytest.importorskip("bfcl_eval", reason="the conversations of bfcl-v3 need upstream's classes")
pytestmark = pytest.mark.slow

STUDY = Path(__file__).resolve().parents[1] / "studies" / "qwen3-4b.yaml"
DOMAINS = ("math", "coding", "science", "if", "agent")
RL = (*DOMAINS, "multi", "mt-opd")
STEPS = 2
"""Of RL stages: samples of the second are drawn by what the first has learned."""
ROWS = {"math-proofs": 30, "math": 830, "science": 10, "code": 3, "chat": 10, "agent": 10}
"""Source of Table 1 → rows that there are; one has no messages."""
KEPT = {**ROWS, "math-proofs": 24, "math": 800, "code": 2}
"""Rows that are drawn, or all that can be used."""
BLEND = {**KEPT, "science": 100, "chat": 100}
"""Conversations of the blend: two updates, and twelve that no update takes."""

# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"responses_create_params": {"input": [{"role": "user", "content": text}], **more}}


def training_rows(number: int) -> Iterator[dict[str, Any]]:
    """One row of the RL blend for each domain."""
    prefix = "nano_v3_sft_profiled_"
    tests = {"inputs": [f"{number} 2\n"], "outputs": [f"{number + 2}\n"]}
    tool = {"type": "function", "name": "email_delete_email", "parameters": {"type": "object"}, "strict": False}
    call = {"name": "email_delete_email", "arguments": json.dumps({"email_id": f"{number:08}"})}
    yield {**asking(f"{number}+2? Box it."), "dataset": f"{prefix}dapo17k", "expected_answer": str(number + 2)}
    yield {
        **asking(f"Add {number} to what you read."),
        "dataset": f"{prefix}comp_coding_50tests",
        "verifier_metadata": {"unit_tests": tests},
    }
    yield {
        **asking(f"Which is {number}?\nA: {number}\nB: none"),
        "dataset": f"{prefix}stem_mcqa",
        "expected_answer": "A",
        "options": [{"A": str(number)}, {"B": "none"}],
    }
    yield {
        **asking(f"Say {number} without a comma."),
        "dataset": f"{prefix}instruction_following",
        "prompt": f"Say {number} without a comma.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    yield {
        **asking(f"Delete email {number}.", tools=[tool], parallel_tool_calls=False),
        "dataset": f"{prefix}workbench",
        "environment_name": "workplace_assistant",
        "ground_truth": [call],
    }


def talk(number: int, question: str = "", **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": f"It is {number}.", "reasoning_content": f"{number} is {number}."}
    return {"messages": [{"role": "user", "content": question or f"What is {number}?"}, said], **more}


def write_sft(folder: Path) -> None:
    """The six sources of Table 1, and the questions that one of them only points at."""
    names = {
        "math-proofs": "Math-Proofs-v1",
        "math": "Math-v2",
        "science": "Science-v1",
        "chat": "Instruction-Following-Chat-v1",
        "agent": "Agentic-v1",
    }
    for source, name in names.items():
        said = (talk(10 * number) for number in range(ROWS[source]))
        write(folder / "sft" / f"Nemotron-{name}" / "data" / "rows.jsonl", *said)
    point = {"dataset": "taco", "split": "train", "index": 0}
    code = [talk(90, "-", **point), talk(91), {"messages": []}]
    write(folder / "sft" / "Nemotron-Competitive-Programming-v1" / "data" / "rows.jsonl", *code)
    sets = {"taco": "train test", "apps": "train test", "code_contests": "train valid test", "codeforces": "train test"}
    for name, splits in sets.items():
        for split in splits.split():
            write(
                folder / "questions" / name / split / "rows.jsonl", {"question": f"What is {name}?", "description": "?"}
            )


def write_suites(folder: Path) -> None:
    """Two prompts of each suite, as the published copies have them."""
    numbers = range(2)
    for name in ("aime24", "aime25"):
        write(folder / f"{name}.jsonl", *({"problem": f"{i}+1? Box it.", "answer": str(i + 1)} for i in numbers))
    lcb = [
        {
            "question_title": f"Sum {i}",
            "question_content": f"Add up {i}.",
            "question_id": f"sum_{i}",
            "contest_date": "2024-08-03T00:00:00",
            "starter_code": "",
            "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
            "private_test_cases": json.dumps([{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]),
            "metadata": "{}",
        }
        for i in numbers
    ]
    write(folder / "lcb-v5" / "test.jsonl", *lcb)
    write(folder / "lcb-v6.jsonl", *lcb)
    wrong = {f"Incorrect Answer {place}": f"{place} gnomes" for place in (1, 2, 3)}
    write(
        folder / "gpqa-diamond.jsonl", *({"Question": f"{i}?", "Correct Answer": "9 gnomes", **wrong} for i in numbers)
    )
    exact = {"answer": "7", "answer_type": "exactMatch", "image": ""}
    write(folder / "hle.jsonl", *({"question": f"{i}?", **exact} for i in numbers))
    obey = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    write(folder / "ifeval.jsonl", *({"prompt": f"Say {i}, no commas.", **obey} for i in numbers))
    count = {"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 1}]}
    write(folder / "ifbench.jsonl", *({"prompt": f"Say {i}.", **count} for i in numbers))
    write_bfcl(folder / "bfcl-v3")


def write_bfcl(folder: Path) -> None:
    """A row in each category."""
    nothing = {"type": "dict", "properties": {}, "required": []}
    number = {"type": "dict", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    question = [{"role": "user", "content": "Ask 7, then log out."}]
    for category in CATEGORIES:
        key, name = f"{category}_0", f"BFCL_v3_{category}.json"
        row: dict[str, Any] = {"function": [{"name": "ask", "description": "", "parameters": number}]}
        gold: list[Any] = [{"ask": {"x": [7]}}]
        turns = [question]
        if category in MULTI_TURN:
            row, gold = {"initial_config": {"TicketAPI": {}}, "involved_classes": ["TicketAPI"]}, [["logout()"]]
            if category.endswith("miss_func"):
                turns, gold = [question, []], [[], ["logout()"]]
                row["missed_function"] = {"1": ["logout"]}
        write(folder / name, {"id": key, "question": turns, **row})
        if category not in FREE:
            write(folder / "possible_answer" / name, {"id": key, "ground_truth": gold})
    docs = [{"name": each, "description": "", "parameters": nothing} for each in ("logout", "ticket_get_login_status")]
    write(folder / "multi_turn_func_doc" / "ticket_api.json", *docs)


@pytest.fixture(scope="module")
def place(write_brief: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's file and all that it names beside it."""
    root = tmp_path_factory.mktemp("paper")
    (root / "studies").mkdir()
    shutil.copy(STUDY, root / "studies")
    rows = [row for number in range(1, 131) for row in training_rows(number)]
    write(root / "data" / "rl" / "train-complete.jsonl", *rows)
    write_sft(root / "data")
    write_suites(root / "data" / "suites")
    for seed, name in enumerate(("Qwen3-4B-Base", "Qwen3-4B")):
        write_brief(root / "models" / name, (json.dumps(row) for row in rows), seed)
    return root


# ── services ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Answer = Callable[[BaseHTTPRequestHandler, str, Any], tuple[Any, dict[str, str]]]
"""(request, route, body) → reply and headers."""


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server of JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply, headers = answer(self, self.path.strip("/"), body)
            text = json.dumps(reply).encode()
            self.send_response(200)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def fusion(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """SandboxFusion: programs are really run."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sandbox = open_backend("auto", allow_weak_isolation=False)

    def answer(web: BaseHTTPRequestHandler, route: str, asked: Any) -> tuple[Any, dict[str, str]]:
        limits = Limits(asked["run_timeout"], asked["memory_limit_MB"] << 20)
        done = sandbox.run(Program(asked["code"], asked["stdin"]), limits)
        ok = done.status == "finished"
        run = {"status": "Finished", "execution_time": done.seconds, "return_code": int(not ok), "stderr": done.stderr}
        status = "Success" if ok else "Failed"
        return {"status": status, "message": "", "run_result": {**run, "stdout": done.stdout}, "files": {}}, {}

    with serving(answer) as url:
        yield url
    sandbox.close()


@pytest.fixture
def gym(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """NeMo-Gym's workplace, a session for each cookie; its address, and the routes that were asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sessions: dict[str, Workplace] = {}
    routes: list[str] = []

    def state(calls: list[dict[str, str]]) -> Workplace:
        return replayed(company(), [Call(call["name"], json.loads(call["arguments"])) for call in calls])[0]

    def answer(web: BaseHTTPRequestHandler, route: str, body: Any) -> tuple[Any, dict[str, str]]:
        routes.append(route)
        cookie = SimpleCookie(web.headers["Cookie"] or "").get("gym")
        if route == "seed_session" or cookie is None:
            key, reply = uuid4().hex, {}
            sessions[key] = company().copy()
        elif route == "verify":
            made = [each for each in body["response"]["output"] if each["type"] == "function_call"]
            key, reply = (
                cookie.value,
                {**body, "reward": float(not state(made).difference(state(body["ground_truth"])))},
            )
        else:
            assert route in TOOLS
            key, reply = cookie.value, json.loads(answered(sessions[cookie.value], Call(route, body)))
        return reply, {"Set-Cookie": f"gym={key}; path=/"}

    with serving(answer) as url:
        yield url, routes


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def places(root: Path, fusion: str, gym: str) -> dict[str, object]:
    """Where models and services are."""
    return {
        "engine": {"use": "embedded"},
        "model.base": str(root / "models" / "Qwen3-4B-Base"),
        "model.revision": None,
        "stages.qwen3-4b.path": str(root / "models" / "Qwen3-4B"),
        "stages.qwen3-4b.revision": None,
        "domains.coding.sandbox.url": fusion,
        "domains.agent.environment.url": gym,
    }


def sizes() -> dict[str, object]:
    """Of the data, of the work and of the model."""
    return {
        "stages.sft.blend.math-proofs.sample": KEPT["math-proofs"],
        "stages.sft.blend.math.sample": KEPT["math"],
        "stages.sft.conversations": sum(BLEND.values()),
        **{f"stages.{stage}.steps": STEPS for stage in RL},
        **{f"stages.{stage}.keep_every": 1 for stage in DOMAINS},
        "stages.trajectories.models": [f"{name}@1" for name in DOMAINS],
        "stages.weight-shift.analyzer.layer": 1,
        "stages.neighborhood.analyzer.prompts": 4,
    }


def changed(values: dict[str, object]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def test_the_papers_study_runs_from_end_to_end(place: Path, fusion: str, gym: tuple[str, list[str]]) -> None:
    url, routes = gym
    study = place / "studies" / STUDY.name
    changes = changed({**places(place, fusion, url), **sizes()})
    done = CliRunner().invoke(app, ["run", str(study), "--runs", str(place / "runs"), *changes])
    assert done.exit_code == 0, done.stderr
    runs = place / "runs" / "qwen3-4b"
    loaded, nodes = one_study([runs])
    assert set(loaded.stages) == set(load_study(STUDY).stages), "no stage is left out"
    assert all((node.folder / "DONE").exists() for node in nodes)
    merged = [name for name, stage in loaded.stages.items() if stage.kind == "merge"]
    assert len(merged) == 6 + 7
    for name in (*RL, *merged):
        assert (runs / name / "checkpoint" / "model.safetensors").is_file()
    assert "verify" in routes
    for name in RL:
        drawn = (runs / name / "rollouts.jsonl").read_text().splitlines()
        assert len(drawn) == STEPS * (256 * 4 if name == "mt-opd" else 128 * 16), "Table 2"
    page = (runs / "report" / "index.html").read_text()
    for told in ("Beside the paper", "The paper&#39;s findings", "aime24"):
        assert told in page
    with (runs / "report" / "tables" / "blend.csv").open(newline="") as table:
        seen = {row["source"]: int(row["conversations"]) for row in csv.DictReader(table)}
    assert seen == {**BLEND, "total": sum(BLEND.values())}
    assert "not finished" not in (runs / "report" / "findings.md").read_text()


def test_the_papers_blend_is_counted_beside_table_1(place: Path) -> None:
    """The three sampling methods, exact against the rows that there are."""
    sampled = changed({key: value for key, value in sizes().items() if key.startswith("stages.sft.")})
    out = place / "blend"
    done = CliRunner().invoke(app, ["blend", str(place / "studies" / STUDY.name), "--out", str(out), *sampled])
    assert done.exit_code == 0, done.stderr
    assert done.stderr == "", "the number of conversations is that of the blend"
    printed = [line.split() for line in done.stdout.splitlines()]
    assert {name: len((out / f"{name}.jsonl").read_text().splitlines()) for name in BLEND} == KEPT
    for row in (
        "math-proofs random sampling 24 2.32 335,122 2.37 30 0",
        "math random sampling 800 77.22 2,950,525 20.89 830 0",
        "science repeat 10 times 100 9.65 2,263,340 16.04 10 0",
        "code use all 2 0.19 3,927,984 27.81 3 1: no messages",
        "total 1,036 100.00 14,121,873 100.00 893",
    ):
        assert row.split() in printed
