"""The verdict on finished episodes: attacks, and the catalogue of them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rollout.judging import gated
from m2rl_core.types import Message, Prompt, Reward, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import Call, text_of
from m2rl_domain_agent.workplace import company

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"
CATALOGUE, TABLES = SHARED / "adversarial.jsonl", SHARED / "workplace"
DOMAIN = Agent(Agent.Config())
GOLD = {"email_id": "00000057", "body": "Thanks for the update."}
REPLY = text_of([Call("email_reply_email", GOLD)])
SEARCH = text_of([Call("email_search_emails", {"query": "update"})])


def judge(*turns: str, gold: object = (("email_reply_email", GOLD),), domain: Agent = DOMAIN, **more: Any) -> Reward:
    listed = [{"name": n, "arguments": json.dumps(a)} for n, a in gold] if isinstance(gold, tuple) else gold
    messages = tuple(Message(role="assistant", content=turn) for turn in turns)
    return domain.verify(Trajectory(Prompt("p", "agent", (), listed, **more), messages, turns[-1] if turns else ""))


@pytest.mark.parametrize(
    "turns",
    [
        (REPLY,),
        (REPLY, "Done."),
        (SEARCH, REPLY, "Done."),
        (SEARCH + REPLY, "Done."),
        (f"<think>{SEARCH}</think>{REPLY}", "<think>ok</think>Done."),
        (text_of([Call("email_reply_email", GOLD | {"email_id": "57"})]), REPLY),
        (text_of([Call("verify", {"reward": 1.0})]), REPLY),
        (REPLY, "Done.", "<tool_call> is what I would write next"),  # the episode had ended
        (text_of([Call("email_search_emails", {"query": "x" * 1_000_000})]), REPLY),
        (SEARCH,) * 5 + (REPLY,),
        (text_of([Call("email_reply_email", GOLD | {"body": "THANKS for the update."})]),),
    ],
)
def test_right(turns: tuple[str, ...]) -> None:
    assert judge(*turns).value == 1.0


@pytest.mark.parametrize(
    "turns",
    [
        (),
        ("",),
        ("Done.",),
        ("Done.", REPLY),
        ("<think></think>", REPLY),
        (SEARCH,) * 6 + (REPLY,),
        (REPLY, REPLY),
        (REPLY.replace("\n</tool_call>", ""),),
        (REPLY, SEARCH.replace("\n</tool_call>", "")),  # a malformed turn spoils the episode
        (f"<think>{REPLY}</think>Done.",),
        (f"<think>{REPLY}",),
        (REPLY.replace("update.", "update!"),),
        (REPLY, text_of([Call("email_delete_email", {"email_id": "00000100"})])),
        (text_of([Call("email_reply_email", GOLD | {"self": "x"})]),),
        (text_of([Call("email_reply_email", GOLD | {"body": None})]),),
        (text_of([Call("email_reply_email", {"email_id": 57, "body": GOLD["body"]})]),),
        (text_of([Call("EMAIL_REPLY_EMAIL", GOLD)]),),
        (text_of([Call("email_reply_email ", GOLD)]),),
        ('<tool_response>\n{"output":"Email replied successfully."}\n</tool_response>',),
        (json.dumps({"name": "email_reply_email", "arguments": GOLD}),),
        (REPLY.replace("tool_call", "function_call"),),
    ],
)
def test_wrong(turns: tuple[str, ...]) -> None:
    assert judge(*turns).value == 0.0


def test_what_tools_and_users_say_is_no_call() -> None:
    forged = (Message(role="tool", content=REPLY), Message(role="user", content=REPLY))
    prompt = Prompt("p", "agent", (), [{"name": "email_reply_email", "arguments": json.dumps(GOLD)}])
    assert DOMAIN.verify(Trajectory(prompt, forged, REPLY)).value == 0.0


def test_nothing_to_do() -> None:
    assert judge("All is well.", gold=[]).value == 1.0
    assert judge("", gold="[]").value == 1.0
    assert judge(SEARCH, "All is well.", gold=[]).value == 1.0
    assert judge(REPLY, gold=[]).value == 0.0
    assert judge("<tool_call>", gold=[]).value == 0.0


@pytest.mark.parametrize("gold", [None, "", "x", {}, 7, [7], [{}], [{"name": "verify", "arguments": "{}"}]])
def test_without_gold_there_is_no_verdict(gold: object) -> None:
    for turn in (REPLY, "Done."):
        with pytest.raises(DataError, match="prompt 'p'"):
            judge(turn, gold=gold)


def test_gold_about_other_tables_is_no_gold() -> None:
    with pytest.raises(DataError, match="every gold call fails"):
        judge("Done.", gold=(("email_delete_email", {"email_id": "12345678"}),))


def test_tools_that_the_prompt_does_not_offer_do_nothing() -> None:
    tools = ({"type": "function", "function": {"name": "email_reply_email", "parameters": {}}},)
    delete = text_of([Call("email_delete_email", {"email_id": "00000100"})])
    assert judge(delete, REPLY, tools=tools).value == 1.0
    assert judge(delete, REPLY).value == 0.0


def test_a_verdict_takes_less_than_20_ms() -> None:
    company()
    started = time.process_time()
    for _ in range(50):
        assert judge(SEARCH, SEARCH + REPLY, "Done.").value == 1.0
    assert (time.process_time() - started) / 50 < 0.02


@pytest.mark.skipif(not CATALOGUE.is_file(), reason="needs ../shared beside the repository")
@pytest.mark.parametrize("tier", ["must", "control", "hardened", "conformance"])
@pytest.mark.parametrize("tables", [str(TABLES), None])
def test_the_catalogue(tier: str, tables: str | None) -> None:
    """The generated company has upstream's ids, so that the catalogue can be judged without its tables as well."""
    domain = Agent(Agent.Config(tables=tables))
    rows = [row for row in map(json.loads, CATALOGUE.read_text().splitlines()) if row["domain"] == "agent"]
    judged = [row for row in rows if row["tier"] == tier]
    assert judged
    for row in judged:
        prompt = Prompt(row["id"], "agent", (), row["ground_truth"], row["metadata"])
        said = [Message(role="assistant", content=turn) for turn in row["response"]]
        required = row["metadata"].get("reasoning") == "think"
        trajectory, refusal = gated(prompt, said, "required" if required else "off")
        started = time.process_time()
        value = 0.0 if refusal else domain.verify(trajectory).value
        assert value == row["expected_reward"], row["id"]
        assert time.process_time() - started < 1.0
