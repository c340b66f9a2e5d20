"""Rendering: a conversation grows token by token as an episode does."""

from __future__ import annotations

from pathlib import Path

import pytest

from m2rl_core.chat import Chat
from m2rl_core.errors import DataError
from m2rl_core.types import Conversation, Message

USER: Message = {"role": "user", "content": "What is 12 + 34?"}
SAID = "<think>2+4=6, 1+3=4</think>\\boxed{46}"
TOOL: Message = {"role": "tool", "content": "found: é 42"}


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> Chat:
    return Chat.load(tiny_model)


def test_growing_by_tokens_equals_rendering_the_whole_text(chat: Chat) -> None:
    grown = chat.encode([USER]) + chat.turn(SAID) + chat.continuation([TOOL]) + chat.turn("ok")
    text = chat.tokenizer.apply_chat_template(
        [USER, {"role": "assistant", "content": SAID}, TOOL, {"role": "assistant", "content": "ok"}], tokenize=False
    )
    assert chat.tokenizer.decode(grown) + "\n" == text


def test_decode_returns_what_was_said_without_its_end(chat: Chat) -> None:
    assert chat.decode(chat.turn(SAID)) == SAID
    assert chat.decode(chat.turn(SAID)[:-1]) == SAID
    assert chat.decode([]) == ""


@pytest.mark.parametrize("text", ["naïve 漢字 \U0001f600", "  two  spaces\n\n\ttabs ", "<|im_start|>", "12345"])
def test_any_text_survives(chat: Chat, text: str) -> None:
    assert chat.decode(chat.turn(text)) == text


def test_every_digit_is_a_token(chat: Chat) -> None:
    assert len(chat.turn("9073")) == 5


def test_the_turns_end_stops_sampling(chat: Chat) -> None:
    assert chat.end_id in chat.stop_ids
    assert chat.tokenizer.decode([chat.end_id]) == "<|im_end|>"


def test_loss_falls_on_assistant_turns_only(chat: Chat) -> None:
    messages = (USER, {"role": "assistant", "content": SAID}, TOOL, {"role": "assistant", "content": "ok"})
    ids, said = chat.conversation(Conversation("c", "math", messages))  # type: ignore[arg-type]
    assert ids == chat.encode([USER]) + chat.turn(SAID) + chat.continuation([TOOL]) + chat.turn("ok")
    assert [i for i, s in zip(ids, said, strict=True) if s] == chat.turn(SAID) + chat.turn("ok")


def test_tools_reach_the_prompt(chat: Chat) -> None:
    assert "lookup" in chat.tokenizer.decode(chat.encode([USER], [{"name": "lookup"}]))


@pytest.mark.parametrize(
    "messages", [(USER,), (USER, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"})]
)
def test_conversations_that_teach_nothing_are_refused(chat: Chat, messages: tuple[Message, ...]) -> None:
    with pytest.raises(DataError, match="conversation c of 'math'"):
        chat.conversation(Conversation("c", "math", messages))


def test_a_tokenizer_without_chat_template_is_refused(tiny_model: Path) -> None:
    tokenizer = Chat.load(tiny_model).tokenizer
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        Chat(tokenizer)


def test_a_template_that_never_ends_a_turn_is_refused(tiny_model: Path) -> None:
    tokenizer = Chat.load(tiny_model).tokenizer
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(DataError, match="does not end an assistant turn"):
        Chat(tokenizer)
