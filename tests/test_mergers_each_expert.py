"""Settings that all experts share, or that each has its own of."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from m2rl_core.interfaces import ComponentConfig
from m2rl_core.mergers.each_expert import Each, numbers_E
from m2rl_core.validation import problems


class Config(ComponentConfig):
    share: Each[Annotated[float, Field(gt=0.0)]] = 0.5


def test_one_number_is_everybodys() -> None:
    assert list(numbers_E(0.5, 3, "shares")) == [0.5] * 3
    assert list(numbers_E([0.1, 0.2], 2, "shares")) == [0.1, 0.2]


@pytest.mark.parametrize("given", [[], [0.1], [0.1, 0.2, 0.3]], ids=str)
def test_another_number_of_numbers_is_refused(given: list[float]) -> None:
    with pytest.raises(ValueError, match=f"{len(given)} shares for 2 experts"):
        numbers_E(given, 2, "shares")


def test_a_setting_takes_both() -> None:
    assert Config(share=1).share == 1.0
    assert Config(share=[1, 0.5]).model_dump(mode="json") == {"share": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (0, "share: should be greater than 0, found 0."),
        ([1, -1], "share[1]: should be greater than 0, found -1."),
        ("much", "share: should be a valid number, unable to parse string as a number, found 'much'."),
    ],
)
def test_complaints_name_the_number(given: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"share": given})
    assert [str(each) for each in problems(caught.value, Config, {"share": given})] == [said]
