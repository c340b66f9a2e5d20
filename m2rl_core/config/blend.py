"""``stages.NAME.blend`` — rows of conversations from several places, each with its sampling method, as in Table 1."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from m2rl_core.config.sections import Section

__all__ = ["BlendSource"]


class BlendSource(Section):
    """One source of a blend. All its usable rows once, unless it says how many to draw or how often to repeat them."""

    source: str
    """A local .jsonl or .parquet file, a folder of such, or a data set of the hub, ``OWNER/NAME@COMMIT:SPLIT``."""
    sample: PositiveInt | None = None
    """Random sampling: so many different rows."""
    repeat: PositiveInt | None = None
    """All rows so many times."""
    questions: dict[str, str] = Field(default_factory=dict)
    """``DATASET/SPLIT`` → where its rows are: they hold the questions of rows that have "-" instead of one."""

    @model_validator(mode="after")
    def _one_method(self) -> BlendSource:
        if self.sample is not None and self.repeat is not None:
            raise ValueError("rows are either sampled or repeated (allowed: one of sample and repeat, or neither)")
        return self

    @property
    def method(self) -> str:
        """In the words of Table 1."""
        if self.sample is not None:
            return "random sampling"
        return "use all" if self.repeat in (None, 1) else f"repeat {self.repeat} times"
