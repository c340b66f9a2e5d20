"""Unit tests as rows hold them, packed ones among them: what is no test is a data error."""

from __future__ import annotations

import base64
import json
import os
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest

from m2rl_core.errors import DataError
from m2rl_domain_coding import packed
from m2rl_domain_coding.unit_tests import UnitTest, subset, unit_tests


def pack(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_standard_input_and_calls() -> None:
    assert unit_tests("row", {"inputs": ["1\n"], "outputs": ["2\n"]}) == [UnitTest("1\n", None, "2\n")]
    called = {"inputs": ['[1, 2]\n"a b"', "3\n", ""], "outputs": ['{"k": [null, true]}', "1.5", "0"], "fn_name": "f"}
    assert [(test.call, test.expected) for test in unit_tests("row", called)] == [
        (("f", ([1, 2], "a b")), {"k": [None, True]}),
        (("f", (3,)), 1.5),
        (("f", ()), 0),
    ]
    assert unit_tests("row", {"inputs": ["1"], "outputs": ["2"], "fn_name": None})[0].call is None


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "",
        {},
        {"inputs": [], "outputs": []},
        {"inputs": ["1"]},
        {"inputs": ["1"], "outputs": []},
        {"inputs": ["1"], "outputs": ["1", "2"]},
        {"inputs": "1", "outputs": "1"},
        {"inputs": [1], "outputs": [1]},
        {"inputs": [["1"]], "outputs": [["1"]]},
        {"inputs": ["1"], "outputs": [None]},
        {"inputs": ["1", "2"], "outputs": ["", " \n"]},
        {"inputs": ["1"], "outputs": ["1"], "fn_name": 5},
        {"inputs": ["1"], "outputs": ["1"], "fn_name": "f(x)"},
        {"inputs": ["1"], "outputs": ["1"], "fn_name": "a b"},
        {"inputs": ["x"], "outputs": ["1"], "fn_name": "f"},
        {"inputs": ["1"], "outputs": ["x"], "fn_name": "f"},
        {"inputs": ["1"], "outputs": ["[" * 100_000], "fn_name": "f"},
        {"inputs": ["1"], "outputs": ["1"], "packed": 3},
    ],
)
def test_everything_else_is_a_data_error_that_names_the_row(given: object) -> None:
    with pytest.raises(DataError, match="row 7"):
        unit_tests("row 7", given)


def test_a_subset_is_drawn_by_its_seed_alone() -> None:
    tests = [UnitTest(str(i), None, str(i)) for i in range(50)]
    drawn = subset(tests, 20, seed=1)
    assert drawn == subset(tests, 20, seed=1)
    assert len(drawn) == 20
    assert drawn == sorted(drawn, key=tests.index)
    assert drawn != subset(tests, 20, seed=2)
    assert subset(tests, None, 1) == subset(tests, 50, 1) == subset(tests, 99, 1) == tests


@pytest.mark.parametrize("plain", [True, False])
def test_further_tests_are_unpacked(plain: bool) -> None:
    listed = json.dumps([{"input": "3", "output": "4", "testtype": "stdin"}])
    given = {"inputs": ["1"], "outputs": ["2"], "packed": listed if plain else pack(listed)}
    assert [(test.stdin, test.expected) for test in unit_tests("row", given)] == [("1", "2"), ("3", "4")]


def test_sandboxfusion_packs_in_its_own_ways() -> None:
    listed = json.dumps([{"input": {"stdin": "3"}, "output": {"stdout": "4"}}])
    nested = pack({"input_output": json.dumps({"inputs": ["3"], "outputs": ["4"], "fn_name": None})})
    assert packed.unpacked("row", listed) == packed.unpacked("row", nested) == ([("3", "4")], None)
    called = pack({"input_output": json.dumps({"inputs": ["3"], "outputs": ["4"], "fn_name": "f"})})
    [test] = unit_tests("row", {"inputs": [], "outputs": [], "packed": called})
    assert (test.call, test.expected) == (("f", (3,)), 4)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("hidden", [lambda evil: evil, lambda evil: [evil], lambda evil: {"input_output": evil}])
def test_a_pickle_that_asks_for_code_is_refused_and_does_not_run(tmp_path: Path, hidden: Any) -> None:
    evil = pack(hidden(_Evil(tmp_path / "pwned")))
    with pytest.raises(DataError, match=r"row 7.*asks for posix.mkdir"):
        packed.unpacked("row 7", evil)
    assert not (tmp_path / "pwned").exists()
    pickle.loads(zlib.decompress(base64.b64decode(evil)))
    assert (tmp_path / "pwned").exists()  # it would have


@pytest.mark.parametrize(
    "given",
    [
        "",
        "no base64!",
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(b"no pickle")).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("[]")[:-1])).decode(),
        base64.b64encode(zlib.compress(b"cbuiltins\neval\n.")).decode(),
        base64.b64encode(zlib.compress(b"\x80\x04Pkey\n.")).decode(),
        pack(b"[]"),
        pack(7),
        pack(["[]"]),
        pack({"input_output": 7}),
        pack("no JSON"),
        pack("7"),
        pack('[{"input": "1"}]'),
        pack('[{"input": "1", "output": 2}]'),
        pack('{"inputs": ["1"], "outputs": []}'),
        "[" * 100_000,
        "[1]",
    ],
)
def test_what_cannot_be_unpacked_is_a_data_error(given: str) -> None:
    with pytest.raises(DataError, match="row 7"):
        packed.unpacked("row 7", given)


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LARGEST", 10_000)
    with pytest.raises(DataError, match="more than 10000 bytes"):
        packed.unpacked("row 7", pack("0" * 1_000_000))
