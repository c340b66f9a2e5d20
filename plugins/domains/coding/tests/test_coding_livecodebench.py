"""LiveCodeBench from a local copy; all rows are made up."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Trajectory
from m2rl_domain_coding import Coding


def listed(*pairs: tuple[str, str], kind: str = "stdin") -> list[dict[str, str]]:
    return [{"input": given, "output": expected, "testtype": kind} for given, expected in pairs]


def packed(listed: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(listed)))).decode()


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "question_title": f"Gnomes {number}",
        "question_content": f"Garden {number}: add up the gnomes.",
        "platform": "atcoder",
        "question_id": f"gnomes_{number}",
        "contest_id": "gnomes",
        "contest_date": "2024-08-03T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(listed(("1 2\n", "3\n"))),
        "private_test_cases": packed(listed(("5 6\n", "11\n"))),
        "metadata": "{}",
        **changes,
    }


def functional(**changes: Any) -> dict[str, Any]:
    shown = {
        "starter_code": "class Solution:\n    def addUp(self, a: List[int], b: int) -> int:\n        ",
        "public_test_cases": json.dumps(listed(("[1, 2]\n3", "6"), kind="functional")),
        "private_test_cases": packed(listed(("[5]\n6", "11"), kind="functional")),
        "metadata": json.dumps({"func_name": "addUp"}),
    }
    return row(1, **{**shown, **changes})


def domain_of(folder: Path, suite: str, *rows: object) -> Coding:
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return Coding(Coding.Config.model_validate({suite.replace("-", "_"): str(path)}))


def value(domain: Coding, prompt: Prompt, source: str) -> float | None:
    return domain.verify(Trajectory(prompt, (), f"```python\n{source}\n```")).value


def test_problems_of_standard_input(tmp_path: Path) -> None:
    domain = domain_of(tmp_path, "lcb-v6", row())
    domain.check()
    [prompt] = domain.prompts("lcb-v6")
    assert (prompt.id, prompt.domain) == ("lcb-v6/000000", "coding")
    assert prompt.messages[0]["content"].startswith("Garden 0: add up the gnomes.\n\nWrite a Python program that reads")
    assert value(domain, prompt, "print(sum(map(int, input().split())))") == 1.0
    assert value(domain, prompt, "print(reduce(add, map(int, input().split())))") == 1.0  # names that judges provide
    assert value(domain, prompt, "from __future__ import annotations\nprint(sum(map(int, input().split())))") == 1.0
    assert value(domain, prompt, "print(3)") == 0.0  # the private test tells


def test_problems_with_starter_code(tmp_path: Path) -> None:
    domain = domain_of(tmp_path, "lcb-v6", functional())
    [prompt] = domain.prompts("lcb-v6")
    solution = "class Solution:\n    def addUp(self, a: List[int], b: int) -> int:\n        "
    assert f"```python\n{solution.strip()}\n```" in prompt.messages[0]["content"]
    assert value(domain, prompt, solution + "return sum(a) + b") == 1.0
    assert value(domain, prompt, solution + "return 6") == 0.0


def test_tests_stay_packed_until_they_are_needed(tmp_path: Path) -> None:
    many = packed(listed(*((f"{i}\n" * 1000, f"{i}\n") for i in range(50))))
    [prompt] = domain_of(tmp_path, "lcb-v6", row(private_test_cases=many)).prompts("lcb-v6")
    assert prompt.metadata["unit_tests"]["packed"] == many
    assert len(json.dumps(prompt.metadata)) < len(many) + 1000


def test_tests_may_be_plain(tmp_path: Path) -> None:
    plain = json.dumps(listed(("5 6\n", "11\n")))
    domain = domain_of(tmp_path, "lcb-v6", row(private_test_cases=plain))
    [prompt] = domain.prompts("lcb-v6")
    assert value(domain, prompt, "print(sum(map(int, input().split())))") == 1.0
    assert value(domain, prompt, "print(3)") == 0.0


def test_v5_is_a_window_of_dates(tmp_path: Path) -> None:
    dates = ["2023-05-07", "2024-07-31T23:59:59", "2024-08-01T00:00:00", "2025-01-31T23:00:00", "2025-02-01T00:00:00"]
    rows = [row(number, contest_date=date) for number, date in enumerate(dates)]
    prompts = list(domain_of(tmp_path, "lcb-v5", *rows).prompts("lcb-v5"))
    assert [prompt.messages[0]["content"][:8] for prompt in prompts] == ["Garden 2", "Garden 3"]
    assert [prompt.id for prompt in prompts] == ["lcb-v5/000000", "lcb-v5/000001"]
    assert len(list(domain_of(tmp_path, "lcb-v6", *rows).prompts("lcb-v6"))) == 5


def test_the_suites_declare_their_samples_and_their_limits(tmp_path: Path) -> None:
    domain = domain_of(tmp_path, "lcb-v6", row())
    suites = domain.suites
    assert (suites["lcb-v5"].k, suites["lcb-v6"].k) == (8, 2)
    assert suites["lcb-v6"].reasoning == "optional"
    assert suites["lcb-v6"].source == str(tmp_path / "test.jsonl")
    assert "279" in suites["lcb-v5"].description
    assert "175" in suites["lcb-v6"].description
    with pytest.raises(DataError, match=r"livecodebench/code_generation_lite.*domains\.coding\.lcb_v5"):
        domain.prompts("lcb-v5")


def test_the_limits_are_the_suites_own_and_not_those_of_training(tmp_path: Path) -> None:
    path = domain_of(tmp_path, "lcb-v6", row()).config.lcb_v6
    hasty = Coding(Coding.Config(lcb_v6=path, seconds=0.2, total_seconds=0.3, tests=1))
    [prompt] = hasty.prompts("lcb-v6")
    slow = "import time\ntime.sleep(0.5)\nprint(sum(map(int, input().split())))"
    assert value(hasty, prompt, slow) == 1.0


@pytest.mark.parametrize(
    "bad",
    [
        row(question_content=" "),
        row(public_test_cases=None),
        row(public_test_cases="[]", private_test_cases="[]"),
        row(private_test_cases=""),
        row(private_test_cases="?"),
        row(private_test_cases=packed([{"input": "1"}])),
        row(public_test_cases=json.dumps(listed(("1", ""))), private_test_cases=packed(listed(("2", " ")))),
        functional(metadata="{}"),
        functional(metadata="no JSON"),
        functional(metadata="[]"),
        functional(private_test_cases=packed(listed(("no JSON", "3"), kind="functional"))),
        {key: text for key, text in row().items() if key != "contest_date"},
    ],
)
def test_a_bad_row_stops_the_check_and_is_named(tmp_path: Path, bad: object) -> None:
    with pytest.raises(DataError, match=r"test\.jsonl, row 2"):
        domain_of(tmp_path, "lcb-v5", row(), bad).check()
