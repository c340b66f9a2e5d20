"""What callers ask for (:class:`Job`) and what is being drawn (:class:`Row`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from m2rl_core.seeding import derive
from m2rl_core.types import Finish, Sampling, Turn


@dataclass(slots=True, eq=False)
class Row:
    """One sample: a row of the batch from its prefill until its last token."""

    job: Job
    key: int
    """Names this sample's stream of random numbers, 63 bits."""
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def context(self) -> int:
        """Tokens of the prompt and of the sample; also the position of the token to be drawn next."""
        return len(self.job.ids) + len(self.ids)

    def add(self, token: int, logp: float, version: int, limit: int) -> None:
        """Take a drawn token; ``limit`` is the longest context [tokens]."""
        self.ids.append(token)
        self.logps.append(logp)
        self.versions.append(version)
        if token in self.job.sampling.stop_ids:
            self.finish = "stop"
        elif len(self.ids) == self.job.sampling.max_tokens or self.context >= limit:
            self.finish = "length"


class Job:
    """``n`` continuations of one list of ids: one prefill, ``n`` rows."""

    def __init__(self, ids: list[int], sampling: Sampling, n: int) -> None:
        self.ids = ids
        self.sampling = sampling
        self.rows = [Row(self, derive(sampling.seed, sampling.sample + i)) for i in range(n)]

    @property
    def done(self) -> bool:
        """True once every row has ended."""
        return all(row.finish is not None for row in self.rows)

    def turns(self) -> list[Turn]:
        """What was drawn; a row that never ran has nothing and ended for lack of room."""
        return [Turn(row.ids, row.logps, row.versions, row.finish or "length") for row in self.rows]
