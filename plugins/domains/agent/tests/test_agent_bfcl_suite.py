"""BFCL's files as prompts, from a folder of made-up rows and, where it is installed, from bfcl-eval's own."""

from __future__ import annotations

import importlib.util
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_agent import bfcl
from m2rl_domain_agent.bfcl.categories import CATEGORIES, FREE, LIVE, MULTI_TURN, NON_LIVE, weights
from m2rl_domain_agent.bfcl.tools import tools

INSTALLED = importlib.util.find_spec("bfcl_eval") is not None
ASK = {
    "name": "shop.ask",
    "description": "Asks.",
    "parameters": {"type": "dict", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
}
CLERK = {"name": "clerk", "description": "", "parameters": {"type": "dict", "properties": {}, "required": []}}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def write(path: Path, rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def entry(category: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row and its gold."""
    key = f"{category}_{number}"
    if category not in MULTI_TURN:
        kind = {"java": "integer", "javascript": "integer"}.get(category, "integer")
        ask = {**ASK, "parameters": {**ASK["parameters"], "properties": {"x": {"type": kind}}}}  # type: ignore[dict-item]
        gold = [{"shop.ask": {"x": [number]}}]
        return {"id": key, "question": [user(f"Ask {number}.")], "function": [ask]}, {"id": key, "ground_truth": gold}
    said = [user("First."), [] if category.endswith("miss_func") else user("Second."), user("Third.")]
    fields = {"question": said, "initial_config": {"TicketAPI": {}}, "involved_classes": ["TicketAPI"]}
    if category.endswith("miss_func"):
        fields["missed_function"] = {"1": ["clerk"]}
    return {"id": key, **fields}, {"id": key, "ground_truth": [["clerk()"], [], ["shop_open(day='Monday')"]]}


def folder(path: Path, prefix: str = "BFCL_v3", sizes: Mapping[str, int] | None = None) -> str:
    new = {"simple": "simple_python", "java": "simple_java", "javascript": "simple_javascript"}
    for category in CATEGORIES:
        pairs = [entry(category, number) for number in range((sizes or {}).get(category, 2))]
        name = f"{prefix}_{new.get(category, category) if prefix == 'BFCL_v4' else category}.json"
        write(path / name, [row for row, _ in pairs])
        if category not in FREE:
            write(path / "possible_answer" / name, [gold for _, gold in pairs])
    write(path / "multi_turn_func_doc" / "ticket_api.json", [CLERK, {**CLERK, "name": "shop_open"}])
    return str(path)


@pytest.fixture
def any_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads multi-turn rows without bfcl-eval, of which only the version is looked at."""
    monkeypatch.setattr("m2rl_domain_agent.bfcl.suite.check_package", lambda version: None)


@pytest.mark.usefixtures("any_version")
@pytest.mark.parametrize("prefix", ["BFCL_v3", "BFCL_v4"])
def test_all_categories_are_read_in_order(tmp_path: Path, prefix: str) -> None:
    prompts = list(bfcl.prompts(folder(tmp_path, prefix), "agent"))
    assert [prompt.metadata["category"] for prompt in prompts] == [each for each in CATEGORIES for _ in range(2)]
    assert {prompt.metadata["suite"] for prompt in prompts} == {"bfcl-v3"}
    assert {prompt.domain for prompt in prompts} == {"agent"}
    assert prompts[0].id == "bfcl-v3/simple_0"
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    json.dumps([[p.messages, p.tools, p.ground_truth, dict(p.metadata)] for p in prompts])
    assert prompts == list(bfcl.prompts(str(tmp_path), "agent"))


def test_a_weighted_mean_is_the_overall_score() -> None:
    """Spelled out as upstream's v3 does: means of means, but for live, which is a mean over its prompts."""
    draw = random.Random(3)
    right = {name: [float(draw.random() < 0.4) for _ in range(draw.randrange(1, 30))] for name in CATEGORIES}
    mean = {name: fmean(values) for name, values in right.items()}
    simple = fmean([mean["simple"], mean["java"], mean["javascript"]])
    others = [mean[name] for name in ("multiple", "parallel", "parallel_multiple", "irrelevance")]
    live = fmean([value for name in LIVE for value in right[name]])
    overall = fmean([fmean([simple, *others]), live, fmean([mean[name] for name in MULTI_TURN])])
    weight = weights({name: len(values) for name, values in right.items()})
    assert sum(weight[name] * sum(values) for name, values in right.items()) == pytest.approx(overall)
    assert sum(weight[name] * len(values) for name, values in right.items()) == pytest.approx(1.0)
    assert len(NON_LIVE) + len(LIVE) + len(MULTI_TURN) == len(CATEGORIES) == 17


@pytest.mark.usefixtures("any_version")
def test_functions_that_are_held_back_come_with_the_users_turn(tmp_path: Path) -> None:
    prompts = {prompt.id: prompt for prompt in bfcl.prompts(folder(tmp_path), "agent")}
    held, base = prompts["bfcl-v3/multi_turn_miss_func_0"], prompts["bfcl-v3/multi_turn_base_0"]
    assert [tool["function"]["name"] for tool in held.tools] == ["shop_open"]
    assert [tool["function"]["name"] for tool in base.tools] == ["clerk", "shop_open"]
    [coming], third = held.metadata["later"]
    assert coming["role"] == "user"
    assert json.loads(coming["content"].splitlines()[1])["function"]["name"] == "clerk"
    assert third == user("Third.")
    assert base.metadata["later"] == [user("Second."), user("Third.")]


def test_a_function_as_a_tool() -> None:
    spec = {
        "when": {"type": "float", "description": "Hours."},
        "where": {"type": "tuple", "items": {"type": "dict", "properties": {"type": {"type": "any"}}}},
    }
    parameters = {"type": "dict", "properties": spec, "required": ["when"]}
    [tool] = tools([{"name": "a.b.c", "description": "Does.", "parameters": parameters}], "python")
    shown = tool["function"]
    assert (tool["type"], shown["name"]) == ("function", "a_b_c")
    assert shown["description"].startswith("Does.")
    assert shown["parameters"]["type"] == "object"
    assert shown["parameters"]["required"] == ["when"]
    assert shown["parameters"]["properties"]["when"]["type"] == "number"
    where = shown["parameters"]["properties"]["where"]
    assert where["type"] == "array"
    assert where["items"] == {"type": "object", "properties": {"type": {"type": "string"}}}
    assert parameters["type"] == "dict", "the row is not changed"


def test_java_and_javascript_take_literals_in_strings() -> None:
    spec = {"ids": {"type": "ArrayList", "items": {"type": "long"}}, "any": {"type": "any"}}
    parameters = {"type": "dict", "properties": spec, "required": []}
    [tool] = tools([{"name": "f", "description": "", "parameters": parameters}], "java")
    shown = tool["function"]["parameters"]["properties"]
    assert shown["ids"]["type"] == shown["any"]["type"] == "string"
    assert "items" not in shown["ids"]
    assert "ArrayList" in shown["ids"]["description"]
    assert "long" in shown["ids"]["description"]


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_a_folder_without_bfcl_says_how_to_get_it(tmp_path: Path, source: str) -> None:
    with pytest.raises(DataError, match=r"pip install --no-deps bfcl-eval==2025\.8\.6\.2"):
        bfcl.prompts(str(tmp_path / source), "agent")


@pytest.mark.skipif(INSTALLED, reason="bfcl-eval is installed")
def test_without_bfcl_eval_the_multi_turn_rows_say_how_to_get_it(tmp_path: Path) -> None:
    read = bfcl.prompts(folder(tmp_path), "agent")
    single = [next(read) for _ in range(2 * (len(NON_LIVE) + len(LIVE)))]
    assert {prompt.metadata["category"] for prompt in single} == {*NON_LIVE, *LIVE}
    for ask in (lambda: next(read), lambda: bfcl.prompts("bfcl-eval", "agent")):
        with pytest.raises(DataError, match=r"not installed.*pip install --no-deps bfcl-eval"):
            ask()
    metadata = {"category": "multi_turn_base", "classes": ["TicketAPI"], "config": {}, "later": []}
    prompt = Prompt("bfcl-v3/x", "agent", (), [["clerk()"]], metadata)
    with pytest.raises(DataError, match="pip install --no-deps"):
        bfcl.open(prompt)
    with pytest.raises(DataError, match="pip install --no-deps"):
        bfcl.verify(Trajectory(prompt, ({"role": "assistant", "content": "Done."},), "Done."))


def change(name: str, row: int, **fields: Any) -> Callable[[Path], None]:
    """A fault: other fields in a row of a file; ``None`` takes one away."""

    def fault(path: Path) -> None:
        rows = [json.loads(line) for line in (path / name).read_text().splitlines()]
        rows[row] = {key: value for key, value in (rows[row] | fields).items() if value is not None}
        write(path / name, rows)

    return fault


@pytest.mark.usefixtures("any_version")
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (change("BFCL_v3_simple.json", 1, id="simple_0"), r"BFCL_v3_simple\.json, line 2 has no id"),
        (change("BFCL_v3_simple.json", 1, id=None), r"BFCL_v3_simple\.json, line 2 has no id"),
        (change("BFCL_v3_simple.json", 1, id="simple_9"), r"BFCL_v3_simple\.json, line 2.*simple_9.*no gold"),
        (change("BFCL_v3_java.json", 0, function=None), r"BFCL_v3_java\.json, line 1"),
        (change("BFCL_v3_java.json", 0, question=[]), r"BFCL_v3_java\.json, line 1"),
        (change("BFCL_v3_java.json", 0, question=[[]]), r"BFCL_v3_java\.json, line 1.*no chat"),
        (
            change("possible_answer/BFCL_v3_multiple.json", 1, ground_truth=[]),
            r"possible_answer/.*multiple\.json, line 2",
        ),
        (change("possible_answer/BFCL_v3_multiple.json", 1, ground_truth=None), r"line 2.*no ground_truth"),
        (change("possible_answer/BFCL_v3_parallel.json", 0, ground_truth=[{"no": {}}]), r"parallel\.json, line 1"),
        (change("BFCL_v3_multi_turn_base.json", 1, involved_classes=["Shell"]), r"line 2.*no class 'Shell'"),
        (change("BFCL_v3_multi_turn_base.json", 1, question=[user("One.")]), r"line 2.*1 turns.*gold for 3"),
        (
            change("possible_answer/BFCL_v3_multi_turn_base.json", 0, ground_truth=[["rm()"], [], []]),
            r"line 1.*unknown functions.*rm",
        ),
        (
            change("possible_answer/BFCL_v3_multi_turn_base.json", 0, ground_truth=[["clerk(open('x'))"], [], []]),
            r"line 1.*call that is none",
        ),
        (
            change("possible_answer/BFCL_v3_multi_turn_base.json", 0, ground_truth=[["import os"], [], []]),
            r"line 1.*call that is none",
        ),
        (lambda path: (path / "BFCL_v3_irrelevance.json").write_text(""), "no rows of irrelevance"),
        (lambda path: (path / "BFCL_v3_live_simple.json").unlink(), r"lacks the file .*live_simple"),
        (lambda path: (path / "possible_answer" / "BFCL_v3_java.json").unlink(), r"lacks the file .*java"),
        (lambda path: (path / "multi_turn_func_doc" / "ticket_api.json").unlink(), r"lacks the file .*ticket_api"),
        (lambda path: (path / "BFCL_v3_java.json").write_text("{}x\n"), r"java\.json, line 1.*no JSON"),
        (lambda path: (path / "BFCL_v3_java.json").write_text("[]\n"), r"java\.json, line 1.*no JSON object"),
    ],
)
def test_a_bad_file_is_an_error_that_names_the_row(tmp_path: Path, fault: Callable[[Path], Any], says: str) -> None:
    source = folder(tmp_path)
    fault(tmp_path)
    with pytest.raises(DataError, match=says):
        list(bfcl.prompts(source, "agent"))


@pytest.mark.skipif(not INSTALLED, reason="needs bfcl-eval: pip install --no-deps bfcl-eval==2025.8.6.2 mpmath")
def test_the_published_rows_are_complete_and_their_gold_is_right() -> None:
    prompts = list(bfcl.prompts("bfcl-eval", "agent"))
    count = Counter(prompt.metadata["category"] for prompt in prompts)
    assert len(prompts) == 4441
    assert sum(count[name] for name in NON_LIVE) == 1390
    assert sum(count[name] for name in LIVE) == 2251
    assert [count[name] for name in MULTI_TURN] == [200] * 4
    assert sum(prompt.weight for prompt in prompts) == pytest.approx(1.0)
    wrong = [
        prompt.id
        for prompt in prompts
        if (answer := bfcl.gold(prompt)) is not None and bfcl.verify(Trajectory(prompt, (), answer)).value != 1.0
    ]
    assert set(wrong) == {
        f"bfcl-v3/{row}"
        for row in (
            "live_simple_106-63-0",
            "live_simple_112-68-0",
            "live_multiple_862-181-3",
            "live_multiple_964-207-0",
        )
    }, "rows that upstream's own checker fails, too"
