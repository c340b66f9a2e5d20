"""What callers ask for (:class:`Job`) and what is being drawn (:class:`Row`)."""

from __future__ import annotations

from m2rl_core.seeding import derive
from m2rl_core.types import Finish, Sampling, Turn


class Row:
    """One sample: a row of the batch from its prefill until its last token."""

    __slots__ = ("context", "finish", "ids", "job", "key", "logps", "versions")

    def __init__(self, job: Job, key: int) -> None:
        self.job = job
        self.key = key
        """Names this sample's stream of random numbers, 63 bits."""
        self.context = len(job.ids)
        """Tokens of the prompt and of the sample; also the position of the token to be drawn next."""
        self.ids: list[int] = []
        self.logps: list[float] = []
        self.versions: list[int] = []
        self.finish: Finish | None = None

    def add(self, token: int, logp: float, version: int, limit: int) -> None:
        """Take a drawn token; ``limit`` is the longest context [tokens]."""
        self.ids.append(token)
        self.logps.append(logp)
        self.versions.append(version)
        self.context += 1
        sampling = self.job.sampling
        if token in sampling.stop_ids:
            self.finish = "stop"
        elif len(self.ids) == sampling.max_tokens or self.context >= limit:
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
        return all(row.finish for row in self.rows)

    def turns(self) -> list[Turn]:
        """What was drawn."""
        return [Turn(row.ids, row.logps, row.versions, row.finish or "abort") for row in self.rows]
