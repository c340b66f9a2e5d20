"""Rows of the blend from a local file, and what their gold calls are worth on upstream's tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Prompt, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import Call, text_of
from m2rl_domain_agent.prompts import gold_calls
from m2rl_domain_agent.workplace.tables import COLUMNS, FILES

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
ROWS, TABLES = SHARED / "rows" / "workplace_assistant.jsonl", SHARED / "workplace"
REPLY = {"name": "email_reply_email", "arguments": '{"email_id": "00000001", "body": "Yes."}'}
TOOL = {"type": "function", "name": "email_reply_email", "description": "d", "parameters": {}, "strict": False}


@pytest.fixture
def tables(tmp_path: Path) -> str:
    """A folder with tables of a few rows."""
    for name, file in FILES.items():
        values = [f"0000000{n}," + ",".join("a@b.c" for _ in COLUMNS[name][1:]) for n in (1, 2)]
        (tmp_path / file).write_text("\n".join([",".join(COLUMNS[name]), *values]) + "\n")
    (tmp_path / "email_addresses.csv").write_text("a@b.c\n")
    return str(tmp_path)


def row(**changes: Any) -> dict[str, Any]:
    asked = {"input": [{"role": "user", "content": "Reply!"}], "tools": [TOOL], "parallel_tool_calls": False}
    return {"id": 3, "responses_create_params": asked, "ground_truth": [REPLY], "category": "email"} | changes


def read(tables: str, *rows: object) -> tuple[Agent, list[Prompt]]:
    path = Path(tables) / "rows.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    domain = Agent(Agent.Config(source=str(path), tables=tables))
    return domain, list(domain.prompts("train"))


def judged(domain: Agent, prompt: Prompt, *turns: list[Call] | str) -> float | None:
    said = [turn if isinstance(turn, str) else text_of(turn) for turn in turns]
    messages = tuple(Message(role="assistant", content=text) for text in said)
    return domain.verify(Trajectory(prompt, messages, said[-1] if said else "")).value


@pytest.mark.skipif(not ROWS.is_file(), reason="needs ../shared beside the repository")
def test_real_rows_and_their_variants_score_as_upstreams_rules_say() -> None:
    domain = Agent(Agent.Config(source=str(ROWS), tables=str(TABLES)))
    domain.check()
    prompts = list(domain.prompts("train"))
    assert len(prompts) == 5
    look = Call("customer_relationship_manager_search_customers", {"status": "Lost"})
    for prompt in prompts:
        gold = list(gold_calls(prompt))
        assert len(prompt.tools) == 27
        assert set(prompt.tools[0]) == {"type", "function"}
        assert prompt.messages[-1]["role"] == "user"
        assert judged(domain, prompt, domain.gold(prompt)) == 1.0
        assert judged(domain, prompt, *([call] for call in gold), "Done.") == 1.0
        assert judged(domain, prompt, [look], gold, "Done.") == 1.0  # reading is free
        assert judged(domain, prompt, [Call("email_reply_email", {"email_id": "0"})], gold) == 1.0  # so is failing
        assert judged(domain, prompt, gold[::-1]) == 1.0  # these change different rows
        assert judged(domain, prompt, gold[:-1], "Done.") == 0.0  # incomplete
        assert judged(domain, prompt, "Done.") == 0.0
        once_more = Call("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": "b"})
        assert judged(domain, prompt, [*gold, once_more]) == 0.0  # over-eager
        assert judged(domain, prompt, "Done.", gold) == 0.0  # after the end
        assert judged(domain, prompt, *[[look]] * 5, gold) == 1.0
        assert judged(domain, prompt, *[[look]] * 6, gold) == 0.0  # the seventh turn is one too many
    twice = [*gold_calls(prompts[0])] * 2
    assert judged(domain, prompts[0], twice) == 0.0  # two replies
    assert judged(domain, prompts[1], [*gold_calls(prompts[1])] * 2) == 1.0  # the same update twice
    wrong = Call("calendar_update_event", {**gold_calls(prompts[1])[0].arguments, "new_value": "Nonsense"})
    assert judged(domain, prompts[1], [wrong], list(gold_calls(prompts[1]))) == 1.0  # corrected
    quiet = Call("calendar_update_event", {**gold_calls(prompts[1])[0].arguments, "new_value": "risk management FORUM"})
    assert judged(domain, prompts[1], [quiet]) == 1.0  # case means nothing in a name
    lost = [Call(c.name, {**c.arguments, "new_value": "lost"}) for c in gold_calls(prompts[4])]
    assert judged(domain, prompts[4], lost) == 0.0  # and much in a status
    with pytest.raises(DataError):  # generated prompts only without rows
        list(domain.prompts("agent-heldout"))
    assert not list(domain.demonstrations())


def test_reads_the_blend_schema(tables: str) -> None:
    domain, prompts = read(
        tables,
        row(),
        row(dataset="nano_v3_sft_profiled_workbench", ground_truth=json.dumps([REPLY]), environment_name="w"),
        row(ground_truth=[{"name": "email_reply_email", "arguments": {"email_id": "00000001", "body": "Yes."}}]),
        row(ground_truth=[]),
        {"dataset": "nano_v3_sft_profiled_dapo17k", "question": "?", "expected_answer": "7"},
    )
    assert len(prompts) == 4
    tool = {"type": "function", "function": {"name": "email_reply_email", "description": "d", "parameters": {}}}
    assert prompts[0].tools == (tool,)
    assert prompts[0].metadata == {"row": {"id": 3, "category": "email"}, "parallel_tool_calls": False}
    assert prompts[1].metadata["row"]["environment_name"] == "w"
    assert [judged(domain, prompt, domain.gold(prompt)) for prompt in prompts] == [1.0] * 4
    assert [judged(domain, prompt, "Nothing.") for prompt in prompts] == [0.0, 0.0, 0.0, 1.0]
    assert judged(domain, prompts[3], domain.gold(prompts[0])) == 0.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ground_truth": None}, "no gold calls"),
        ({"ground_truth": ""}, "no gold calls"),
        ({"ground_truth": "reply"}, "no gold calls"),
        ({"ground_truth": {}}, "no gold calls"),
        ({"ground_truth": ["email_reply_email"]}, "no gold calls"),
        ({"ground_truth": [{"name": "email_delete_email", "arguments": "{}"}]}, "unknown tool"),
        ({"ground_truth": [{"name": "nope", "arguments": "{}"}]}, "unknown tool"),
        ({"ground_truth": [{"arguments": "{}"}]}, "unknown tool"),
        ({"ground_truth": [REPLY | {"arguments": "{"}]}, "malformed arguments"),
        ({"ground_truth": [REPLY | {"arguments": "[1]"}]}, "malformed arguments"),
        ({"ground_truth": [REPLY | {"arguments": None}]}, "malformed arguments"),
        ({"ground_truth": [REPLY | {"arguments": '{"email_id": "9", "body": "b"}'}]}, "every gold call fails"),
        ({"responses_create_params": {"input": "?", "tools": [{"type": "function"}]}}, "malformed tool"),
        ({"responses_create_params": {"input": "?", "tools": [TOOL | {"name": "verify"}]}}, "malformed tool"),
        ({"responses_create_params": {"input": "?", "tools": [TOOL | {"name": "a/../verify"}]}}, "malformed tool"),
        ({"responses_create_params": {"input": "?", "tools": {"a": 1}}}, "malformed tools"),
        ({"responses_create_params": {"tools": [TOOL]}}, "asks nothing"),
        ({"responses_create_params": "Reply!"}, "malformed responses_create_params"),
    ],
)
def test_a_bad_row_is_an_error_that_names_it(tables: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=rf"rows.jsonl, row 2.*{problem}"):
        read(tables, row(), row(**changes))
    changed = {name: value for name, value in row(**changes).items() if value is not None}
    path = Path(tables) / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n" + json.dumps(changed) + "\n")
    with pytest.raises(DataError, match="row 2"):
        Agent(Agent.Config(source=str(path), tables=tables)).check()


def test_rows_need_the_tables_that_they_are_about(tables: str) -> None:
    path = Path(tables) / "rows.jsonl"
    path.write_text(json.dumps(row()) + "\n")
    with pytest.raises(DataError, match="set 'tables'"):
        Agent(Agent.Config(source=str(path))).check()
    with pytest.raises(DataError, match=r"no readable table .*emails\.csv"):
        Agent(Agent.Config(source=str(path), tables=str(path.parent / "no"))).check()
