"""BFCL's rows of several turns: with made-up API classes in the place of bfcl-eval's, and with its own if it is there.

The stand-in has the modules and the class names that the package looks for, and nothing of theirs: a shop whose stock
and till change. So every rule of a conversation is tested on machines without bfcl-eval, too.
"""

from __future__ import annotations

import asyncio
import decimal
import importlib.util
import inspect
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Message, Prompt, Trajectory
from m2rl_domain_agent import bfcl
from m2rl_domain_agent.bfcl.categories import MULTI_TURN
from m2rl_domain_agent.bfcl.conversation import Conversation
from m2rl_domain_agent.bfcl.turns import MOST_STEPS, gold_turns
from m2rl_domain_agent.bfcl.world import World, check_package
from m2rl_domain_agent.calls import Call, text_of

INSTALLED = importlib.util.find_spec("bfcl_eval") is not None
SHOP = '''
import decimal

SHARED = {"pears": 5}


class TicketAPI:
    """A shop; its till is not looked at."""

    def __init__(self):
        self._till = 0

    def _load_scenario(self, scenario, long_context=False):
        self.stock = dict(scenario.get("stock", {}))
        self.shared = SHARED
        self.padding = 1000 if long_context else 0

    def buy(self, what, count=1):
        if self.stock.get(what, 0) < count:
            return {"error": f"no {what}"}
        self.stock[what] -= count
        self._till += count
        return {"bought": what}

    def look(self):
        return {"stock": sorted(self.stock), "padding": self.padding}

    def spoil(self):
        SHARED["pears"] -= 1
        self.shared["pears"] -= 1
        return None

    def half(self, precision):
        decimal.getcontext().prec = precision
        return {"half": decimal.Decimal(1) / 3}

    def fall(self):
        return self.fall()

    def toil(self):
        while True:
            len("")

    def nest(self):
        self.stock["self"] = self.stock
        return "done"

    def _steal(self):
        return "secret"

    def say(self, words):
        return words
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A bfcl_eval whose only class is a shop."""
    package = tmp_path / "bfcl_eval"
    deepest = package / "eval_checker" / "multi_turn_eval" / "func_source_code"
    deepest.mkdir(parents=True)
    for folder in (deepest, *deepest.parents[:3]):
        (folder / "__init__.py").touch()
    (deepest / "ticket_api.py").write_text(SHOP)
    (package / "data").mkdir()
    (package / "data" / "BFCL_v3_multiple.json").touch()
    monkeypatch.syspath_prepend(tmp_path)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "bfcl_eval"}
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "bfcl_eval"]:
        del sys.modules[name]
    sys.modules.update(hidden)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def row(gold: Sequence[Sequence[str]], category: str = "multi_turn_base", stock: int = 3) -> Prompt:
    metadata = {
        "suite": "bfcl-v3",
        "category": category,
        "classes": ["TicketAPI"],
        "config": {"TicketAPI": {"stock": {"apple": stock, "fig": stock}}},
        "later": [[user(f"Turn {number}.")] for number in range(2, len(gold) + 1)],
    }
    return Prompt("bfcl-v3/made-up", "agent", (user("Turn 1."),), [list(turn) for turn in gold], metadata)


def call(name: str, **arguments: Any) -> str:
    return text_of([Call(name, arguments)])


def play(prompt: Prompt, said: Sequence[str]) -> tuple[float | None, str, list[Message]]:
    """The verdict on what an assistant says, its reason, and all messages."""

    async def episode() -> list[Message]:
        opened, messages = bfcl.open(prompt), list[Message]()
        for text in said:
            messages.append({"role": "assistant", "content": text})
            answer = await opened.reply(text)
            messages += answer
            if not answer:
                break
        await opened.close()
        return messages

    messages = asyncio.run(episode())
    reward = bfcl.verify(Trajectory(prompt, tuple(messages), said[-1] if said else ""))
    return reward.value, reward.reason, messages


def value(prompt: Prompt, *said: str) -> float | None:
    return play(prompt, said)[0]


TWO = [["buy('apple', count=2)"], ["look()", "buy(what='fig')"]]
APPLES, LOOK, FIG = call("buy", what="apple", count=2), call("look"), call("buy", what="fig")


@pytest.mark.usefixtures("shop")
def test_the_user_speaks_after_a_turn_without_calls() -> None:
    got, _, messages = play(row(TWO), [APPLES, "Bought.", LOOK + "\n" + FIG, "Done."])
    assert got == 1.0
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant", "user"] + ["assistant"] + [
        "tool"
    ] * 2 + ["assistant"]
    assert messages[1]["content"] == '{"bought": "apple"}'
    assert messages[3]["content"] == "Turn 2."


@pytest.mark.usefixtures("shop")
def test_steps_order_and_further_calls_that_change_nothing_are_free() -> None:
    assert value(row(TWO), APPLES, "ok", FIG, LOOK, "ok") == 1.0
    assert value(row(TWO), LOOK, APPLES, call("buy", what="kiwi"), call("sing"), "ok", FIG, LOOK, "ok") == 1.0
    one_by_one = [call("buy", what="apple"), call("buy", what="apple"), "ok", LOOK, FIG, "ok"]
    assert value(row(TWO), *one_by_one) == 1.0, "the same result and the same state"


@pytest.mark.usefixtures("shop")
def test_every_turn_is_judged_by_state_results_and_calls() -> None:
    assert play(row(TWO), ["ok", APPLES, LOOK, FIG, "ok"])[:2] == (0.0, "turn 1: no call")
    assert value(row(TWO), FIG, "ok", APPLES, LOOK, "ok") == 0.0, "another state after the first turn"
    assert value(row(TWO), APPLES, "ok", FIG, "ok") == 0.0, "the look is missing"
    assert value(row(TWO), APPLES, LOOK, "ok", FIG, "ok") == 1.0, "what was seen before need not be seen again"
    assert value(row(TWO), APPLES, "ok", LOOK, FIG, FIG, "ok") == 0.0
    assert value(row([["look()"], ["look()", "look()"]]), LOOK, "ok", LOOK, "ok") == 1.0
    assert value(row([["look()"], ["look()", "look()"]]), LOOK, "ok", "ok") == 0.0, "no call where one is wanted"
    assert value(row([["look()", "look()"]]), LOOK, "ok") == 0.0, "as often as the gold"


@pytest.mark.usefixtures("shop")
def test_a_turn_that_wants_no_calls_is_not_judged_but_counts() -> None:
    gold: list[list[str]] = [[], ["buy('fig')"]]
    assert value(row(gold), "What exactly?", FIG, "ok") == 1.0
    assert value(row(gold), LOOK, "Hm.", FIG, "ok") == 1.0
    assert value(row(gold), APPLES, "ok", FIG, "ok") == 0.0


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "said", [[], ["ok"], [APPLES], [APPLES, "ok"], [APPLES, "ok", LOOK + FIG], [APPLES, "ok", "ok"], [APPLES] * 3]
)
def test_what_is_not_finished_is_wrong(said: list[str]) -> None:
    assert value(row(TWO), *said) == 0.0


@pytest.mark.usefixtures("shop")
def test_a_call_that_cannot_be_read_ends_the_turn() -> None:
    broken = '<tool_call>{"name": "look", "arguments": {}'
    assert value(row([["look()"]]), broken, LOOK, "ok") == 0.0
    assert value(row([["look()"], []]), LOOK, broken, "ok") == 1.0
    assert value(row([["look()"]]), f"<think>{LOOK}</think>ok") == 0.0


@pytest.mark.usefixtures("shop")
def test_a_turn_has_twenty_steps() -> None:
    prompt = row([["look()"], ["look()"]])
    opened = bfcl.open(prompt)
    assert opened.max_turns == 2 * (MOST_STEPS + 1)
    assert value(prompt, *[LOOK] * MOST_STEPS, "ok", *[LOOK] * MOST_STEPS, "ok") == 1.0
    got, why, messages = play(prompt, [LOOK] * (MOST_STEPS + 5))
    assert (got, messages[-1]["role"]) == (0.0, "assistant")
    assert "more than 20 steps" in why
    assert len(messages) == 2 * MOST_STEPS + 1


@pytest.mark.usefixtures("shop")
def test_what_comes_after_the_end_does_not_count() -> None:
    messages: list[Message] = [{"role": "assistant", "content": text} for text in (LOOK, "ok", FIG, APPLES)]
    prompt = row([["look()"]])
    assert bfcl.verify(Trajectory(prompt, tuple(messages), "ok")).value == 1.0
    assert bfcl.verify(Trajectory(prompt, tuple(messages[:2]), "ok")).value == 1.0
    assert bfcl.verify(Trajectory(prompt, tuple(messages[2:]), "ok")).value == 0.0


@pytest.mark.usefixtures("shop")
def test_only_long_context_rows_are_padded() -> None:
    for category in MULTI_TURN:
        _, _, messages = play(row([["look()"]], category), [LOOK, "ok"])
        assert ('"padding": 1000' in messages[1]["content"]) == (category == "multi_turn_long_context")


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "name",
    ["_steal", "_load_scenario", "__init__", "__class__", "stock", "eval", "open", "exit", "buy.__globals__", ""],
)
def test_only_the_functions_of_the_classes_can_be_called(name: str) -> None:
    world = World(["TicketAPI"], {}, long_context=False)
    assert world.call(name, (), {}).startswith("Error during execution: there is no function")


def test_only_upstreams_classes_are_loaded() -> None:
    with pytest.raises(DataError, match="no class 'os'"):
        World(["os"], {}, long_context=False)


@pytest.mark.usefixtures("shop")
def test_a_call_that_fails_is_answered() -> None:
    world = World(["TicketAPI"], {}, long_context=False)
    for name, named in (("buy", {}), ("buy", {"what": "x", "colour": 1}), ("buy", {"a b": 1}), ("fall", {})):
        assert world.call(name, (), named).startswith("Error during execution: ")
    assert world.call("say", (), {"words": "plain"}) == "plain"
    assert world.call("say", (), {"words": [1]}) == "[1]"
    assert world.call("say", (), {"words": {"a": None}}) == '{"a": null}'


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("say", {"words": "x" * 50_000}),
        ("say", {"words": 10**30}),
        ("say", {"words": [{"deep": [10**30]}]}),
        ("half", {"precision": 10**9}),
        ("half", {"precision": 1e9}),
        ("toil", {}),
    ],
)
def test_a_call_cannot_take_for_ever(name: str, named: Mapping[str, Any]) -> None:
    started = time.process_time()
    assert "Error during execution" in World(["TicketAPI"], {}, long_context=False).call(name, (), named)
    assert time.process_time() - started < 5.0
    assert sys.getprofile() is None or "count" not in repr(sys.getprofile())


@pytest.mark.usefixtures("shop")
def test_nothing_global_is_changed_and_nothing_is_shared() -> None:
    before = decimal.getcontext().prec
    one, other = (World(["TicketAPI"], {}, long_context=False) for _ in range(2))
    assert "0.3333333'" in one.call("half", (), {"precision": 7})
    assert decimal.getcontext().prec == before
    assert not one.difference(other)
    one.call("spoil", (), {})
    assert one.difference(other) == "TicketAPI"


@pytest.mark.usefixtures("shop")
def test_a_state_within_itself_is_another_state() -> None:
    one, other = (World(["TicketAPI"], {}, long_context=False) for _ in range(2))
    one.call("nest", (), {})
    other.call("nest", (), {})
    assert one.difference(other)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "gold", [None, "", [], [[], []], [["look()"]], [["look()"], "look()"], [["look("], []], [["look(x)"], []]]
)
def test_bad_gold_is_an_error_and_no_verdict(gold: Any) -> None:
    metadata = row(TWO).metadata
    prompt = Prompt("bfcl-v3/made-up", "agent", (user("Turn 1."),), gold, metadata)
    for said in ((), ({"role": "assistant", "content": "ok"},) * 2):
        with pytest.raises(DataError, match="made-up"):
            bfcl.verify(Trajectory(prompt, said, "ok"))  # type: ignore[arg-type]


@pytest.mark.usefixtures("shop")
def test_rows_of_another_version_than_the_classes_are_refused() -> None:
    check_package("BFCL_v3")
    with pytest.raises(DataError, match=r"BFCL_v4, the installed bfcl-eval is not.*pip install --no-deps"):
        check_package("BFCL_v4")


@pytest.mark.usefixtures("shop")
def test_the_episode_of_a_row_is_of_its_category() -> None:
    assert isinstance(bfcl.open(row(TWO), "drop"), Conversation)
    assert bfcl.open(row(TWO), "drop").history == "drop"
    single = Prompt("bfcl-v3/x", "agent", (), [], {"category": "parallel"})
    assert bfcl.open(single).max_turns == 1


def golden(prompt: Prompt) -> list[str]:
    """What a model says that makes the gold calls."""
    made = World(prompt.metadata["classes"], prompt.metadata["config"], long_context=False)
    said: list[str] = []
    for turn in gold_turns(prompt):
        named = [(g.name, inspect.signature(made._functions[g.name]).bind(*g.given, **g.named)) for g in turn]
        said += [text_of(Call(name, bound.arguments) for name, bound in named)] if turn else []
        said.append("Done.")
    return said


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs bfcl-eval: pip install --no-deps bfcl-eval==2025.8.6.2 mpmath")
def test_with_upstreams_classes_gold_is_right_and_silence_is_wrong() -> None:
    prompts = [p for p in bfcl.prompts("bfcl-eval", "agent") if p.metadata["category"] in MULTI_TURN]
    assert len(prompts) == 800
    failed = [prompt.id for prompt in prompts if value(prompt, *golden(prompt)) != 1.0]
    assert set(failed) <= {"bfcl-v3/multi_turn_base_154"}, "v3's gold for it has one turn too many"
    silent = [prompt.id for prompt in prompts if value(prompt, *["ok"] * (len(prompt.metadata["later"]) + 1)) != 0.0]
    assert silent == []
