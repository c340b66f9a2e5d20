"""The sample browser: a few hundred of a study's samples, with their tokens, so that one can read what was rewarded.

Whole files are never read: records are taken at equal distances from first to last, so that early and late steps are
both there, and long texts are cut.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2rl_core.report.evidence import Evidence, Node, done, understood

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MOST", "browsed", "embedded"]

MOST = 400
"""Samples in a page, shared evenly among rl stages and evaluations."""
LONGEST_TEXT = 6_000
"""Characters of a message."""
LONGEST_TOKENS = 1_500
"""Tokens of a sample; the first ones."""
LONGEST_LINE = 64 << 20
"""Bytes; a longer record is left out."""

Record = Mapping[str, Any]


def browsed(evidence: Evidence, most: int = MOST) -> list[dict[str, Any]]:
    """The samples, as the page's script reads them; sources in the order of the study's stages.

    Args:
        most: samples; of more sources than that, some at equal distances are shown.

    Raises:
        DataError: a line that is no sample.
    """
    files = [(node, path) for node in evidence.nodes if (path := _file(node)) is not None]
    files = files[:: math.ceil(len(files) / most) or 1]
    share = most // max(1, len(files))
    found = []
    for node, path in files:
        with understood(path, "samples"):
            found += [_shown(evidence, node, record) for record in spread(path, share)]
    return found


def embedded(samples: Sequence[Mapping[str, Any]]) -> str:
    """JSON that may stand inside a ``script`` element: nothing in it can end the element or begin a comment."""
    return json.dumps(samples, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def spread(path: Path, count: int) -> Iterator[Record]:
    """Up to ``count`` records of a JSONL file at equal distances, without reading what lies between.

    A line that is still being written at the end is left out.
    """
    size, last = path.stat().st_size, -1
    with path.open("rb") as file:
        for index in range(count):
            place = size * index // count
            file.seek(place)
            if place:
                file.readline(LONGEST_LINE)  # the rest of the line that the place lies in
            if (start := file.tell()) <= last:
                continue
            last, line = start, file.readline(LONGEST_LINE)
            if line.endswith(b"\n"):
                yield json.loads(line)


def _file(node: Node) -> Path | None:
    """Where a node's samples are; ``None`` without any."""
    name = {"rl": "rollouts.jsonl", "eval": "samples.jsonl"}.get(node.kind, "")
    path = node.folder / name
    return path if name and path.exists() and path.stat().st_size else None


def _shown(evidence: Evidence, node: Node, record: Record) -> dict[str, Any]:
    evaluated = node.kind == "eval"
    source = " · ".join(node.folder.parts[-2:]) if evaluated else node.stage
    return {
        "source": source + (f" (seed {node.seed})" if len(evidence.seeds) > 1 else ""),
        "step": record.get("step"),
        "domain": record["domain"],
        "prompt": record["prompt"],
        "reward": record["reward"],
        "verdict": record["verdict"],
        "reason": _cut(record["reason"]),
        "finish": record["finish"],
        "gold": _cut(record.get("ground_truth") or ""),
        "question": _messages(record["messages" if evaluated else "question"]),
        "response": _messages(record["response" if evaluated else "messages"]),
        "tokens": [] if evaluated else _tokens(node, record),
    }


def _messages(messages: Sequence[Record]) -> list[list[str]]:
    """[role, text] of each message; calls of tools that are fields of a message stand below its text."""
    return [[str(m["role"]), "\n".join(map(_cut, (m["content"], *m.get("tool_calls", ()))))] for m in messages]


def _tokens(node: Node, record: Record) -> list[list[Any]]:
    """[text, log-prob or ``None`` where nothing was sampled, policy version] of the first tokens."""
    tokenizer = _tokenizer(node.folder / "checkpoint") if done(node) else None
    columns = zip(record["ids"], record["sampled"], record["logps"], record["versions"], strict=True)
    return [
        [_text(tokenizer, token), round(logp, 4) if sampled else None, version]
        for (token, sampled, logp, version), _ in zip(columns, range(LONGEST_TOKENS), strict=False)
    ]


def _text(tokenizer: Tokenizer | None, token: int) -> str:
    """A token's text; its number where it is only a part of a character, or no tokenizer is known."""
    text = "" if tokenizer is None else tokenizer.decode([token], skip_special_tokens=False)
    return f"⟨{token}⟩" if not text or "\ufffd" in text else text


@cache
def _tokenizer(folder: Path) -> Tokenizer | None:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.exists() else None


def _cut(text: Any) -> str:
    text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
    return (
        text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}… ({len(text) - LONGEST_TEXT:,} more characters)"
    )
