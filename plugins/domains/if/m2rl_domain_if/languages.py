"""The language of a text, by langdetect with a fixed seed: its sampling is random otherwise."""

from __future__ import annotations

__all__ = ["is_language"]

LOOKED_AT = 20_000
"""Characters. langdetect itself reads 10,000 of what is left when addresses are taken out."""


def is_language(text: str, language: str) -> bool:
    """Whether ``text`` is in ``language``; a text without a detectable language is in none."""
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0
    try:
        detected = str(detect(text[:LOOKED_AT]))
    except LangDetectException:
        return False
    return detected == language or (language == "zh" and detected.startswith("zh-"))
