"""The sampler against SplitMix64's published stream, exact probabilities and transformers' logits processors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from m2rl_core.engine.sampler import draw, uniforms
from m2rl_core.seeding import derive
from m2rl_core.types import Sampling

PLAIN = Sampling(max_tokens=1)


def noise(count: int, key: int = 1) -> NDArray[np.float64]:
    return uniforms([key] * count, range(count))


def test_uniforms_are_splitmix64() -> None:
    """The stream of seed 1234567 as printed at https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64."""
    stream = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    expected = [(number >> 11) * 2.0**-53 for number in stream]
    assert uniforms([1234567] * 5, range(5)).tolist() == expected
    keys, positions = [derive(5, 0), 2**63 - 1, 0], [0, 10**6, 3]
    together = uniforms(keys, positions)
    assert [uniforms([k], [p])[0] for k, p in zip(keys, positions, strict=True)] == together.tolist()


def test_uniforms_are_uniform_and_unrelated_between_samples() -> None:
    keys = [derive(0, sample) for sample in range(200)]
    grid = np.array([uniforms([key] * 200, range(200)) for key in keys])
    assert 0 <= grid.min() < 1e-3
    assert 1 - 1e-3 < grid.max() < 1
    assert abs(grid.mean() - 0.5) < 0.01
    for a, b in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_tokens_are_drawn_with_their_probabilities() -> None:
    torch.manual_seed(0)
    logits = torch.randn(12).mul(2).expand(20_000, 12)
    sampling = Sampling(max_tokens=1, temperature=1.5)
    tokens, logps = draw(logits, [sampling] * len(logits), noise(len(logits)))
    probs = torch.softmax(logits[0] / 1.5, -1).double()
    seen = torch.bincount(torch.tensor(tokens), minlength=12) / len(tokens)
    assert ((seen - probs).abs() < 4 * (probs / len(tokens)).sqrt() + 1e-9).all()
    torch.testing.assert_close(torch.tensor(logps).double(), probs.log()[tokens], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=1, top_k=5),
        Sampling(max_tokens=1, top_p=0.8),
        Sampling(max_tokens=1, temperature=0.6, top_k=20, top_p=0.95),
        Sampling(max_tokens=1, temperature=2.0, top_p=1e-6),
    ],
)
def test_restricted_log_probs_are_those_of_transformers(sampling: Sampling) -> None:
    torch.manual_seed(1)
    logits = torch.randn(400, 64) * 3
    scores = TemperatureLogitsWarper(sampling.temperature)(None, logits)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    expected: Tensor = torch.log_softmax(scores, -1)
    tokens, logps = draw(logits, [sampling] * 400, noise(400))
    chosen = expected.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(logps), chosen, rtol=0, atol=2e-6)


def test_greedy_takes_the_likeliest_with_its_log_prob_at_temperature_one() -> None:
    torch.manual_seed(2)
    logits = torch.randn(9, 30)
    tokens, logps = draw(logits, [Sampling(max_tokens=1, temperature=0.0, top_k=1)] * 9, noise(9))
    assert tokens == logits.argmax(-1).tolist()
    assert logps == pytest.approx(torch.log_softmax(logits, -1).max(-1).values.tolist(), abs=1e-6)


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(3)
    kinds = [PLAIN, Sampling(1, 0.7), Sampling(1, 0.0), Sampling(1, 1.0, 0.9), Sampling(1, 1.3, 0.5, 3)]
    samplings = [kinds[i % 5] for i in range(37)]
    logits, u = torch.randn(37, 50), noise(37)
    tokens, logps = draw(logits, samplings, u)
    for row in range(37):
        assert draw(logits[row : row + 1], [samplings[row]], u[row : row + 1]) == ([tokens[row]], [logps[row]])


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    for u, token in ((0.0, 1), (0.5 - 2**-53, 1), (0.5, 3), (1 - 2**-53, 3)):
        tokens, logps = draw(logits, [PLAIN], np.array([u]))
        assert tokens == [token]
        assert logps == pytest.approx([math.log(0.5)])
    torch.manual_seed(4)
    wide = torch.randn(500, 300) * 30
    tokens, logps = draw(wide, [Sampling(1, top_k=3)] * 500, np.full(500, 1 - 2.0**-53))
    assert all(math.isfinite(logp) for logp in logps)


def test_logits_that_are_no_numbers_show_in_the_log_prob() -> None:
    _, logps = draw(torch.full((2, 4), math.nan), [PLAIN] * 2, noise(2))
    assert all(math.isnan(logp) for logp in logps)
