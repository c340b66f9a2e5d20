"""What belongs to a model beside weights and configuration: one rule for every stage that makes a model of another."""

from __future__ import annotations

from pathlib import Path

from m2rl_core.errors import DataError

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
    """Copy the :data:`COMPANIONS` of the model in ``source`` into ``folder``, over those that are there.

    Raises:
        DataError: one that cannot be read.
    """
    found = {path for pattern in COMPANIONS for path in source.glob(pattern) if path.is_file()}
    for path in sorted(found):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read", found=error.strerror, then="mend or copy it again") from error
        (folder / path.name).write_bytes(content)
