"""pydantic's complaints in the user's words; most are tested through study files in test_config.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m2rl_core.validation import problems


class Here(BaseModel):
    model_config = ConfigDict(extra="forbid")
    use: Literal["auto", "bwrap"] = "auto"
    size: int = 1


class There(BaseModel):
    model_config = ConfigDict(extra="forbid")
    use: Literal["server"]
    url: str


class Domain(BaseModel):
    sandbox: Annotated[Here | There, Field(discriminator="use")] = Here()


@pytest.mark.parametrize(
    ("sandbox", "expected"),
    [
        ({"url": "x"}, "domains.code.sandbox.use: this key is required. Allowed: auto, bwrap, server."),
        ({"use": "serve"}, "domains.code.sandbox.use: 'serve' is not known. Did you mean 'server'? Allowed: auto, "),
        ({"use": "server"}, "domains.code.sandbox.url: this key is required."),
        ({"use": "server", "url": "x", "ur": 1}, "domains.code.sandbox.ur: unknown key. Did you mean 'url'?"),
        ({"use": "bwrap", "size": "big"}, "domains.code.sandbox.size: should be a valid integer"),
    ],
)
def test_a_choice_of_models_names_what_may_stand_there(sandbox: dict[str, Any], expected: str) -> None:
    data = {"sandbox": sandbox}
    with pytest.raises(ValidationError) as caught:
        Domain.model_validate(data)
    [found] = problems(caught.value, Domain, data, owner="domains.code")
    assert str(found).startswith(expected)
