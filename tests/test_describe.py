"""What components say of themselves: types in words, defaults, docstrings; and that every one of ours says it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt

from m2rl_core.describe import REQUIRED, Setting, describe
from m2rl_core.hookspecs import hookimpl
from m2rl_core.interfaces import ComponentConfig, Preset
from m2rl_core.plugins import Entry, Registry, load_plugins

ENTRIES = load_plugins().entries()


class Here(ComponentConfig):
    use: Literal["here"] = "here"
    speed: float = Field(1.0, gt=0.0)
    """Tokens per second."""


class Away(ComponentConfig):
    use: Literal["away"]
    url: str
    """Of the server."""


class Odd:
    """A merger with every kind of setting.

    See :class:`~m2rl_core.types.Block` and ``passes``.
    """

    name: ClassVar[str] = "odd"
    reference: ClassVar[str] = "the paper's section 3.2"
    presets: ClassVar[Mapping[str, Preset]] = {"loud": Preset({"count": 9}, "much")}
    parts: ClassVar[Mapping[str, str]] = {"then": "merger"}

    class Config(ComponentConfig):
        needed: bool
        count: PositiveInt = 3
        """How many,
        as section 3 says."""
        share: float | None = Field(None, ge=0.0, lt=1.0)
        mode: Literal["a", "b"] = "a"
        each: list[Annotated[float, Field(ge=0.0)]] = Field(default_factory=list)
        levels: tuple[Literal[1, 2], ...] = (1,)
        named: dict[str, int] = {}
        then: Mapping[str, Any] = {"use": "average"}
        where: Here | Away = Here(speed=2.0)
        plain: Here = Here()

    def __init__(self, config: Config) -> None: ...


@pytest.fixture
def odd() -> Entry:
    registry = Registry()
    registry.register(SimpleNamespace(m2rl_mergers=hookimpl(lambda: [Odd])), distribution="tests", version="1")
    return registry.lookup("merger", "odd")


def test_settings_are_told_in_the_words_of_a_study(odd: Entry) -> None:
    assert describe(odd).settings == (
        Setting("needed", "true or false", REQUIRED, ""),
        Setting("count", "integer > 0", "3", "How many,\nas section 3 says."),
        Setting("share", "number ≥ 0.0, < 1.0 or null", "null", ""),
        Setting("mode", '"a" or "b"', '"a"', ""),
        Setting("each", "list of number ≥ 0.0", "[]", ""),
        Setting("levels", "list of 1 or 2", "[1]", ""),
        Setting("named", "mapping of integer", "{}", ""),
        Setting("then", "name of a merger, or its settings", '{"use": "average"}', ""),
        Setting("where", 'mapping with use: "here" or mapping with use: "away"', '{"use": "here", "speed": 2.0}', ""),
        Setting("where.speed", "number > 0.0", "2.0", "Tokens per second."),
        Setting("where.url", "text", REQUIRED, "Of the server."),
        Setting("plain", 'mapping with use: "here"', '{"use": "here"}', ""),
        Setting("plain.speed", "number > 0.0", "1.0", "Tokens per second."),
    )


def test_the_class_says_the_rest(odd: Entry) -> None:
    found = describe(odd)
    assert (found.kind, found.name, found.distribution, found.version) == ("merger", "odd", "tests", "1")
    formula = (__doc__ or "").strip()
    assert (
        found.text == f"{formula}\n\nA merger with every kind of setting.\n\nSee `m2rl_core.types.Block` and `passes`."
    )
    assert found.reference == "the paper's section 3.2"
    assert [(each.name, each.settings, each.note) for each in found.presets] == [("loud", '{"count": 9}', "much")]
    assert found.parts == {"then": "merger"}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_component_of_ours_says_what_it_is_and_what_each_setting_means(entry: Entry) -> None:
    found = describe(entry)
    assert found.text, "the class has a docstring"
    assert found.reference
    assert not [setting.name for setting in found.settings if not setting.text], "a docstring beneath each field"
    for setting in found.settings:
        assert "typing" not in setting.type, setting
        assert "<" not in setting.type.replace("< ", ""), setting
