"""A minimal environment of verifiers.v1: sums, with a weighted reward and a metric."""

from __future__ import annotations

from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["LittleSums"]


class SumData(vf.TaskData):
    answer: int


class SumTask(vf.Task[SumData]):
    @vf.reward(weight=0.9)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == str(self.data.answer))

    @vf.reward(weight=0.1)
    async def brief(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == str(self.data.answer) and not trace.is_truncated)

    @vf.metric
    async def characters(self, trace: vf.Trace) -> float:
        return len(trace.last_reply)


class SumsConfig(vf.TasksetConfig):
    largest: int = 9


class LittleSums(vf.Taskset[SumTask, SumsConfig]):
    def load(self) -> Iterator[SumTask]:
        for a in range(self.config.largest + 1):
            for b in range(self.config.largest + 1):
                data = SumData(prompt=f"{a} + {b} = ?", answer=a + b, system_prompt="Answer with a number.")
                yield SumTask(data, self.config.task)
