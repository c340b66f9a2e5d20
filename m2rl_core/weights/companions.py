"""What belongs to a model beside weights and configuration: one rule for every stage that makes a model of another."""

from __future__ import annotations

import shutil
from pathlib import Path

COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",  # SentencePiece
    "chat_template*",
    "generation_config.json",
    "*.py",  # a model of its own code
)
"""Tokenizer, chat template and generation settings; what else lies in a folder may be stale for another model."""


def copy_companions(source: Path, folder: Path) -> None:
    """Copy the :data:`COMPANIONS` of the model in ``source`` into ``folder``, over those that are there."""
    found = {path for pattern in COMPANIONS for path in source.glob(pattern) if path.is_file()}
    for path in sorted(found):
        shutil.copyfile(path, folder / path.name)
