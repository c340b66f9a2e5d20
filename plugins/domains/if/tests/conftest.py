"""How the hand-written cases of IFEvalG are judged, and what a file of them must cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from m2rl_domain_if.ifevalg import TABLE
from m2rl_domain_if.judging import follows, instructions

Case = tuple[str, dict[str, Any], list[str], list[str]]
"""Instruction id, its arguments, texts that follow it and texts that do not."""

WORDS = {"keywords", "count", "letters", "language", "length_constraints", "change_case"}
"""Groups of instructions about words and how many there are; the other groups are about shapes."""


@pytest.fixture
def misjudged() -> Callable[[Case], list[tuple[str, bool]]]:
    """The texts of a case that are not judged as it says, each with the verdict that it should get."""

    def misjudged(case: Case) -> list[tuple[str, bool]]:
        name, arguments, right, wrong = case
        [given] = instructions("here", {"instruction_id_list": [name], "kwargs": [arguments]})
        expected = [(text, True) for text in right] + [(text, False) for text in wrong]
        return [(text, verdict) for text, verdict in expected if follows(given, text, "strict") != verdict]

    return misjudged


@pytest.fixture
def assert_complete() -> Callable[[list[Case], bool], None]:
    """Each instruction about words, or each of the others, has right and wrong texts, three or more in all."""

    def assert_complete(cases: list[Case], about_words: bool) -> None:
        names = {name for name in TABLE if (name.split(":")[0] in WORDS) == about_words}
        assert {case[0] for case in cases} == names
        for name in names:
            right = [text for case in cases if case[0] == name for text in case[2]]
            wrong = [text for case in cases if case[0] == name for text in case[3]]
            assert right, name
            assert wrong, name
            assert len(right + wrong) >= 3, name

    return assert_complete
