"""Free-form answers: the same text in one spelling, or the same exact number."""

from __future__ import annotations

import pytest

from m2rl_core.errors import DataError
from m2rl_core.types import Prompt, Reward, Trajectory
from m2rl_domain_science import Science

DOMAIN = Science(Science.Config())


def judge(gold: object, text: str, kind: object = "exactMatch") -> Reward:
    return DOMAIN.verify(Trajectory(Prompt("p", "science", (), gold, {"answer_type": kind}), (), text))


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("7", "Answer: 7"),
        (7, "Answer: 7.0"),
        ("7", r"\boxed{7}"),
        ("7", "Explanation: easy.\nAnswer: 7\nConfidence: 90%"),
        ("7", "**Answer:** 7."),
        ("7", "The answer is 7."),
        ("7", "Answer: 7\nAnswer: 14/2"),
        ("1,234", "Answer: 1234"),
        ("0.5", r"\boxed{\frac{1}{2}}"),
        ("50%", "Answer: 0.5"),
        ("$2^{10}$", "Answer: 1024"),
        ("Paris", "Answer: paris"),
        ("Paris", "Answer: PARIS"),
        ("Paris", r"\boxed{\text{Paris}}"),
        ("The Law of Cosines.", "Answer: the law of cosines"),
        ("red, green", "Answer: Red,  green"),
        (r"$\frac{x}{2}$", r"Answer: \(\dfrac{x}{2}\)"),
        ("x² + 1", "Answer: x^2+1"),
        ("Caf\u00e9", "Answer: Cafe\u0301"),
        ("CO2", "Answer: ＣＯ２"),
        ("a*", "Answer: a*"),
        ("two\nlines", "\\boxed{two\nlines}"),
    ],
)
def test_right_in_other_spellings(gold: object, text: str) -> None:
    assert judge(gold, text).value == 1.0


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("7", ""),
        ("7", "7"),
        ("7", "Answer:"),
        ("7", "It must be 7."),
        ("7", "Answer: 8"),
        ("7", "Answer: 7 or 8"),
        ("7", "Answer: 7, 8"),
        ("7", "Answer: 7\nAnswer: 8"),
        ("7", r"\boxed{8}" + "\nAnswer: 7"),
        ("7", r"\boxed{7} or maybe 8"),
        ("7", r"\boxed{7"),
        ("7", "Answer: not 7"),
        ("7", "The answer is not 7"),
        ("7", "Answer: 7 m"),
        ("3.14", "Answer: 3.14159"),
        ("12345", "Answer: 12346"),
        ("CO", "Answer: Co"),
        ("x", "Answer: X"),
        ("Vitamin C", "Answer: Vitamin c"),
        ("Paris", "Answer: Paris or Rome"),
        ("Paris", "Answer: Not Paris"),
        ("12", "Answer: 1 2"),
        ("x + y", "Answer: y + x"),
        ("7", "Answer: 7" + "0" * 2000),
        ("7", "Answer: 9^9^9^9"),
        ("7", "A" * 200_000),
    ],
)
def test_wrong_however_close(gold: object, text: str) -> None:
    assert judge(gold, text).value == 0.0


@pytest.mark.parametrize("gold", ["", "  ", None, True, ["7"]])
def test_missing_gold_is_no_reward(gold: object) -> None:
    for text in ("", "Answer: 7", "Answer:"):
        with pytest.raises(DataError, match="prompt 'p'"):
            judge(gold, text)


def test_an_unknown_kind_is_no_reward() -> None:
    with pytest.raises(DataError, match="exactMatch, multipleChoice"):
        judge("7", "Answer: 7", "essay")
