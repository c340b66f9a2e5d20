"""Start-up checks, a few dozen tokens long: does this machine, with this model, keep what the engine promises?"""

from __future__ import annotations

from typing import Any

import torch

from m2rl_core.engine.cache import Cache
from m2rl_core.engine.decoder import Decoder
from m2rl_core.engine.rows import Job
from m2rl_core.errors import DataError
from m2rl_core.types import Sampling, Turn

TOKENS = 3
CROWD = ((3, 1), (18, 20), (31, 2), (31, 24), (33, 16))
"""(prompt length, rows) of jobs that are drawn together; some rows outgrow their shelf within ``TOKENS``."""
PAIR = ((1, 7), (4, 0))
"""(index in the crowd, row) of two samples that are drawn once more, with only each other for company."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1.0}
"""Largest difference from transformers' own log-probs [nats]: wide, as sharp distributions magnify rounding."""


def is_exact(model: Any, cache: Cache) -> bool:
    """True where samples come out bit-identical, tokens and log-probs, in a crowd and nearly alone."""
    crowd = _draw(model, cache, [_job(model, index, 0, rows) for index, (_, rows) in enumerate(CROWD)])
    pair = _draw(model, cache, [_job(model, index, row, 1) for index, row in PAIR])
    return all(turns == [crowd[index][row]] for turns, (index, row) in zip(pair, PAIR, strict=True))


@torch.inference_mode()
def check_parity(model: Any, cache: Cache) -> None:
    """Compare the engine's log-probs with those of transformers' own attention.

    Raises:
        DataError: they differ, so the architecture has a part that the engine does not know of.
    """
    job = _job(model, len(CROWD) - 1, 0, 1)
    turn = _draw(model, cache, [job])[0][0]
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        ids = torch.tensor([job.ids + turn.ids], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=TOKENS + 1).logits[0, :-1]
    finally:
        model.set_attn_implementation(own)
    expected = torch.log_softmax(logits.float(), -1).gather(1, ids[0, -TOKENS:, None])[:, 0].cpu()
    difference = (expected - torch.tensor(turn.logps)).abs().max().item()
    if not difference <= TOLERANCE[model.dtype]:
        raise DataError(
            f"the embedded engine's log-probs of {type(model).__name__} are not those of transformers",
            found=f"a difference of {difference:.2g} nats",
            allowed=f"up to {TOLERANCE[model.dtype]:g}",
            then="use another engine for this model",
        )


def _job(model: Any, index: int, row: int, rows: int) -> Job:
    vocab = model.get_input_embeddings().num_embeddings
    ids = [(7919 * (index + 1) + 104729 * position) % vocab for position in range(CROWD[index][0])]
    return Job(ids, Sampling(max_tokens=TOKENS, seed=index, sample=row), rows)


def _draw(model: Any, cache: Cache, jobs: list[Job]) -> list[list[Turn]]:
    decoder = Decoder(model, cache, context=1024, rows=sum(rows for _, rows in CROWD))
    for job in jobs:
        decoder.add(job)
    while decoder.busy:
        decoder.step()
    return [job.turns() for job in jobs]
