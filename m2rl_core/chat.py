"""Between messages and token ids: a tokenizer with its chat template.

Tokens in, tokens out: a conversation is rendered once, up to the first generation prompt; afterwards only what a
template puts *between* turns is tokenised and appended. What the policy drew is never turned into text and back.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # stages run in forked workers
from transformers import AutoTokenizer

from m2rl_core.errors import DataError
from m2rl_core.trust import own_code
from m2rl_core.types import Conversation, Message

__all__ = ["Chat"]

_MARK = "\u2063m2rl\u2063"


class Chat:
    """A tokenizer and its chat template, seen as episodes need them.

    Raises:
        DataError: no chat template, or one that does not end an assistant turn with a special token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise DataError("the tokenizer has no chat template", then="use a model with chat_template.jinja")
        after = self._between([{"role": "user", "content": "?"}])
        self.end_id = int(self._ids(after)[0])
        if self.end_id not in tokenizer.all_special_ids and self.end_id not in tokenizer.added_tokens_decoder:
            raise DataError(
                "the chat template does not end an assistant turn with a special token", found=repr(after[:20])
            )
        ends = {self.end_id, tokenizer.eos_token_id} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted(ends))

    @classmethod
    def load(cls, folder: Path, *, trust_remote_code: bool = False) -> Chat:
        """The tokenizer of a Hugging Face folder.

        Raises:
            DataError: it needs code of its own, which is not trusted.
        """
        with own_code(folder):
            return cls(
                AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
            )

    def encode(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids of a conversation up to and including the prompt for the next assistant turn."""
        return self._ids(self._render(messages, tools))

    def turn(self, text: str) -> list[int]:
        """Ids of a whole assistant turn, its end included: what a demonstration teaches."""
        return [*self._ids(text), self.end_id]

    def continuation(self, messages: Sequence[Message]) -> list[int]:
        """Ids between the end of an assistant turn and the next one, ``messages`` in between."""
        return self._ids(self._between(messages))[1:]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of sampled ids without the token that ends the turn."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_ids else len(ids)
        return str(
            self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def conversation(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """(ids, which of them an assistant says) of a demonstration, token for token as an episode would grow.

        Raises:
            DataError: no assistant turn, or two in a row.
        """
        turns = [i for i, m in enumerate(conversation.messages) if m["role"] == "assistant"]
        if not turns:
            raise DataError(f"conversation {conversation.id} of '{conversation.domain}' has no assistant turn")
        ids, said = list[int](), list[bool]()
        begin = 0
        for at in turns:
            between = conversation.messages[begin:at]
            if not between:
                raise DataError(
                    f"conversation {conversation.id} of '{conversation.domain}' has two assistant turns in a row"
                )
            context = self.continuation(between) if ids else self.encode(between, conversation.tools)
            spoken = self.turn(conversation.messages[at]["content"])
            ids += context + spoken
            said += [False] * len(context) + [True] * len(spoken)
            begin = at + 1
        return ids, said

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        text = self.tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False
        )
        return str(text)

    def _between(self, messages: Sequence[Message]) -> str:
        opening: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        text = self._render([*opening, *messages], ())
        if _MARK not in text:
            raise DataError("the chat template drops what an assistant says")
        return text[text.index(_MARK) + len(_MARK) :]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))
