"""A resources server as the environment, over real HTTP: the protocol, and everything that can go wrong with it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.rollout.verifiers import Spec, VerifierPool
from m2rl_core.types import Message, Prompt, Reward, Trajectory
from m2rl_domain_agent import Agent
from m2rl_domain_agent.calls import Call, text_of
from m2rl_domain_agent.nemo_gym import LARGEST_ANSWER, LARGEST_ARGUMENTS
from m2rl_domain_agent.prompts import row_prompt
from m2rl_domain_agent.session import ServerError

if TYPE_CHECKING:
    from conftest import Resources

GOLD = {"email_id": "00000057", "body": "Thanks."}
REPLY = text_of([Call("email_reply_email", GOLD)])
SEARCH = text_of([Call("email_search_emails", {"query": "fix", "page_size": 1})])
DELETE = text_of([Call("email_delete_email", {"email_id": "00000100"})])
TOOLS = ("email_reply_email", "email_search_emails", "email_delete_email")
ROW = {
    "id": 7,
    "category": "email",
    "environment_name": "workplace_assistant",
    "ground_truth": [{"name": "email_reply_email", "arguments": json.dumps(GOLD)}],
    "responses_create_params": {
        "input": [{"role": "user", "content": "Reply to 57: Thanks."}],
        "tools": [{"type": "function", "name": n, "parameters": {}, "strict": False} for n in TOOLS],
        "parallel_tool_calls": False,
    },
}
PROMPT = row_prompt("train/000000", "agent", "row 1", ROW)


def domain(resources: Resources, **settings: Any) -> Agent:
    environment = {"use": "nemo-gym", "url": resources.url, **settings}
    return Agent(Agent.Config.model_validate({"environment": environment, "source": "rows.jsonl"}))


def played(agent: Agent, *turns: str, prompt: Prompt = PROMPT) -> Trajectory:
    """An episode as the core plays it."""

    async def play() -> tuple[Message, ...]:
        episode = agent.open(prompt)
        said: list[Message] = []
        try:
            for turn in turns:
                said.append(Message(role="assistant", content=turn))
                if not (reply := await episode.reply(turn)):
                    break
                said += reply
        finally:
            await episode.close()
        return tuple(said)

    said = asyncio.run(play())
    return Trajectory(prompt, said, said[-1]["content"])


def judged(agent: Agent, trajectory: Trajectory) -> Reward:
    """The verdict as a stage gets it: awaited by the core, asked again after a failure."""
    with VerifierPool({"agent": Spec("agent", {}, (), agent.verify_seconds, remote=agent)}) as pool:
        [found] = pool.verify_all([("agent", trajectory)])
    return found.reward


def test_an_episode_in_one_session(resources: Resources) -> None:
    agent = domain(resources)
    assert agent.remote
    trajectory = played(agent, f"<think>look</think>I look.{SEARCH}", REPLY, "Done.")
    assert [message["role"] for message in trajectory.messages] == ["assistant", "tool"] * 2 + ["assistant"]
    found = json.loads(trajectory.messages[1]["content"])["output"]
    assert len(found["emails"]) == 1
    assert trajectory.messages[3]["content"] == '{"output":"Email replied successfully."}'
    assert judged(agent, trajectory) == Reward(1.0, "the server's verdict")
    assert resources.routes() == ["seed_session", "email_search_emails", "email_reply_email", "verify"]
    assert resources.cookies[0] is None
    assert len(set(resources.cookies)) == 4  # each reply's cookie went into the next request
    assert resources.asked[2][1] == GOLD
    assert resources.asked[0][1] == ROW
    sent = resources.asked[3][1]
    assert {name: sent[name] for name in ROW} == ROW
    kinds = ["message", "function_call", "function_call_output", "function_call", "function_call_output", "message"]
    output = sent["response"]["output"]
    assert [item["type"] for item in output] == kinds
    assert output[0]["content"][0]["text"] == "I look."
    assert (output[1]["name"], json.loads(output[1]["arguments"])) == (
        "email_search_emails", {"query": "fix", "page_size": 1},
    )  # fmt: skip
    assert output[1]["call_id"] == output[2]["call_id"] != output[3]["call_id"]
    assert output[4]["output"] == trajectory.messages[3]["content"]


def test_verdicts_are_the_servers(resources: Resources) -> None:
    agent = domain(resources)
    assert judged(agent, played(agent, DELETE, REPLY, "Done.")).value == 0.0
    assert judged(agent, played(agent, "Done.")).value == 0.0
    resources.fault = lambda here, web, route: route == "verify" and here.send(web, {"reward": 0.25}) is None
    assert judged(agent, played(agent, "Done.")).value == 0.25


def test_a_malformed_turn_is_wrong_without_asking(resources: Resources) -> None:
    agent = domain(resources)
    for turn in ("<tool_call>{", f"<think>{REPLY}"):
        assert judged(agent, played(agent, turn)).value == 0.0
    assert not resources.asked


def test_a_finished_trajectory_can_be_judged_without_its_session(resources: Resources) -> None:
    agent = domain(resources)
    trajectory = played(agent, SEARCH, REPLY, "Done.")
    again = domain(resources)
    resources.asked.clear()
    assert judged(again, trajectory).value == 1.0
    assert resources.routes() == ["seed_session", "email_search_emails", "email_reply_email", "verify"]
    resources.asked.clear()
    assert judged(agent, trajectory).value == 1.0  # in its own session, once
    assert resources.routes() == ["verify"]
    assert judged(agent, trajectory).value == 1.0


def test_samples_do_not_share_sessions(resources: Resources) -> None:
    agent = domain(resources)
    one, two = played(agent, DELETE, REPLY, "Done."), played(agent, SEARCH, REPLY, "Done.")
    assert [judged(agent, each).value for each in (two, one)] == [1.0, 0.0]
    assert resources.routes().count("seed_session") == 2


@pytest.mark.parametrize(
    "name",
    ["verify", "seed_session", "aggregate_metrics", "../verify", "email_reply_email/../verify", "http://169.254.169.254/",
     "email_send_email", "email_reply_email?x=1", "email_reply_email\r\nX: y", "", "__class__"],
)  # fmt: skip
def test_only_the_prompts_tools_reach_the_server(resources: Resources, name: str) -> None:
    agent = domain(resources)
    if not name:
        return
    trajectory = played(agent, text_of([Call(name, {"reward": 1.0, "ground_truth": []})]), REPLY, "Done.")
    assert "unknown tool" in trajectory.messages[1]["content"]
    assert judged(agent, trajectory).value == 1.0
    assert resources.routes() == ["seed_session", "email_reply_email", "verify"]
    assert name not in json.dumps(resources.asked[-1][1]["response"]["output"])


def test_large_arguments_are_not_sent_and_large_answers_not_shown(resources: Resources) -> None:
    agent = domain(resources)
    huge = text_of([Call("email_search_emails", {"query": "x" * LARGEST_ARGUMENTS})])
    trajectory = played(agent, huge, REPLY, "Done.")
    assert "too long" in trajectory.messages[1]["content"]
    assert resources.routes() == ["seed_session", "email_reply_email"]
    assert judged(agent, trajectory).value == 1.0

    def large(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if route != "email_search_emails":
            return False
        session = here.session(web)
        here.send(web, {"output": "x" * LARGEST_ANSWER}, session=session)
        return True

    resources.fault = large
    trajectory = played(agent, SEARCH, REPLY, "Done.")
    assert len(trajectory.messages[1]["content"]) < 100
    assert judged(agent, trajectory).value == 1.0


def test_arguments_that_the_server_refuses_are_said_back(resources: Resources) -> None:
    def refuse(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if route != "email_search_emails":
            return False
        here.send(web, {"detail": "query: field required"}, 422, here.session(web))
        return True

    resources.fault = refuse
    agent = domain(resources)
    trajectory = played(agent, SEARCH, REPLY, "Done.")
    assert "field required" in trajectory.messages[1]["content"]
    assert judged(agent, trajectory).value == 1.0


def garbage(body: bytes) -> Any:
    return lambda here, web: here.send(web, body)


def status(code: int) -> Any:
    return lambda here, web: here.send(web, {"detail": "trouble"}, code)


def hang(here: Resources, web: BaseHTTPRequestHandler) -> None:
    here.done.wait(3)


def drip(here: Resources, web: BaseHTTPRequestHandler) -> None:
    web.send_response(200)
    web.send_header("Content-Length", "1000")
    web.end_headers()
    for _ in range(100):
        web.wfile.write(b" ")
        web.wfile.flush()
        time.sleep(0.02)


FAULTS = {
    "500": status(500), "404": status(404), "400": status(400), "302": status(302), "429": status(429),
    "hang": hang, "drip": drip, "close": lambda here, web: web.wfile.close(),
    "html": garbage(b"<html>busy</html>"), "empty": garbage(b""), "list": garbage(b"[]"), "null": garbage(b"null"),
    "bytes": garbage(b"\xff\xfe\x00"), "deep": garbage(b"[" * 100_000), "cut": garbage(b'{"output": "x'),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", ["email_search_emails", "verify"])
def test_a_fault_is_a_failed_verdict(resources: Resources, where: str, fault: str) -> None:
    def fails(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if route == where:
            FAULTS[fault](here, web)
        return route == where

    agent = domain(resources, timeout=0.3)
    started = time.monotonic()
    if where == "verify":
        trajectory = played(agent, SEARCH, REPLY, "Done.")
        resources.fault = fails
        reward = judged(agent, trajectory)
        assert reward.value is None
        assert "/verify" in reward.reason
        assert resources.routes().count("verify") == 2  # the core has asked once more
    else:
        resources.fault = fails
        with pytest.raises(ServerError, match="/email_search_emails"):
            played(agent, SEARCH, REPLY, "Done.")
        # what may have happened in a session is not repeated in it
        assert resources.routes() == 2 * ["seed_session", "email_search_emails"]
    assert time.monotonic() - started < 6.0


@pytest.mark.parametrize("reward", [None, "1", True, 2.0, -0.5, [1.0], {}])
def test_a_verdict_without_a_reward_is_a_failed_one(resources: Resources, reward: object) -> None:
    resources.fault = lambda here, web, route: route == "verify" and here.send(web, {"reward": reward}) is None
    agent = domain(resources)
    assert judged(agent, played(agent, REPLY, "Done.")).value is None


def test_a_hiccup_while_seeding_or_judging_is_tried_again(resources: Resources) -> None:
    failed: set[str] = set()

    def once(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if route in failed or route not in ("seed_session", "verify"):
            return False
        failed.add(route)
        here.send(web, {}, 503)
        return True

    resources.fault = once
    agent = domain(resources)
    assert judged(agent, played(agent, SEARCH, REPLY, "Done.")).value == 1.0
    assert failed == {"seed_session", "verify"}


def test_a_lost_session_is_begun_anew_with_the_same_calls(resources: Resources) -> None:
    def forgetful(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        if route == "email_reply_email" and here.routes().count(route) == 1:
            here.sessions.clear()
        return False

    resources.fault = forgetful
    agent = domain(resources)
    assert judged(agent, played(agent, SEARCH, REPLY, "Done.")).value == 1.0
    calls = ["email_search_emails", "email_reply_email"]
    assert resources.routes() == ["seed_session", *calls, "seed_session", *calls, "verify"]


def test_a_server_that_is_restarted_in_mid_episode_costs_nothing(resources: Resources) -> None:
    agent = domain(resources)

    async def play() -> Trajectory:
        episode = agent.open(PROMPT)
        found = await episode.reply(SEARCH)
        await asyncio.to_thread(resources.stop)
        resources.sessions.clear()
        threading.Timer(0.5, resources.start).start()
        said = [{"role": "assistant", "content": SEARCH}, *found, {"role": "assistant", "content": REPLY}]
        said += [*await episode.reply(REPLY), {"role": "assistant", "content": "Done."}]
        await episode.close()
        return Trajectory(PROMPT, tuple(said), "Done.")

    trajectory = asyncio.run(play())
    assert judged(agent, trajectory).value == 1.0


def test_a_server_killed_in_mid_episode_fails_the_episode_and_the_verdict(resources: Resources) -> None:
    agent = domain(resources, timeout=1.0)
    finished = played(agent, SEARCH, REPLY, "Done.")

    async def play() -> None:
        episode = agent.open(PROMPT)
        assert await episode.reply(SEARCH)
        await asyncio.to_thread(resources.stop)
        with pytest.raises(ServerError, match="ConnectionRefusedError"):
            await episode.reply(REPLY)
        await episode.close()

    asyncio.run(play())
    reward = judged(agent, finished)
    assert reward.value is None
    assert "ConnectionRefusedError" in reward.reason


def test_requests_run_at_the_same_time(resources: Resources) -> None:
    def slow(here: Resources, web: BaseHTTPRequestHandler, route: str) -> bool:
        time.sleep(0.3)
        return False

    resources.fault = slow
    agent = domain(resources)

    async def all_of_them() -> None:
        episodes = [agent.open(PROMPT) for _ in range(16)]
        await asyncio.gather(*(episode.reply(SEARCH) for episode in episodes))

    started = time.monotonic()
    asyncio.run(all_of_them())
    assert time.monotonic() - started < 4.0  # one after the other would take 9.6 s


def test_generated_prompts_have_no_server(tmp_path: Path) -> None:
    environment = {"use": "nemo-gym", "url": "http://localhost:12000"}
    with pytest.raises(DataError, match="set 'source'"):
        Agent(Agent.Config.model_validate({"environment": environment})).check()
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    agent = Agent(Agent.Config.model_validate({"environment": environment, "source": str(path)}))
    agent.check()  # needs neither tables nor the server
    assert list(agent.prompts("train")) == [PROMPT]
