"""Work on pieces of weights by several threads, taken in the pieces' order, so that nothing depends on their number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["in_order", "torch_threads", "workers"]

_A = TypeVar("_A")
_B = TypeVar("_B")


def in_order(pool: ThreadPoolExecutor, work: Callable[[_A], _B], items: Iterable[_A], *, ahead: int) -> Iterator[_B]:
    """``map`` over a pool, lazily: at most ``ahead`` results wait for their turn."""
    waiting: deque[Future[_B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def workers(count: int, *, each: int = 1) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads compute with ``each`` of torch's own threads, which torch settles in every thread apart.

    With several pieces at once, torch's own threads would only get in each other's way.
    """
    with torch_threads(each), ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,)) as pool:
        yield pool


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch's own threads in this thread, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
