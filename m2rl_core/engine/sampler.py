"""From logits to one token per row, by the inverse of the cumulative distribution.

Every number here depends on its own row alone, so that a row may be drawn in any company.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2rl_core.types import Sampling


def uniforms(keys: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """A number in [0, 1) with 53 random bits for each (key, position): element ``position`` of SplitMix64's stream.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17.
    """
    z: NDArray[np.uint64] = np.array(positions, dtype=np.uint64) + np.uint64(1)
    z = np.array(keys, dtype=np.uint64) + z * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return np.multiply(z, 2.0**-53, dtype=np.float64)


def draw(logits: Tensor, samplings: Sequence[Sampling], noise: NDArray[np.float64]) -> tuple[list[int], list[float]]:
    """One token per row and its log-prob [nats] under the distribution that it was drawn from.

    Args:
        logits: float32 [rows, V].
        samplings: of each row. Temperature 0 takes the likeliest token, with its log-prob at temperature 1.
        noise: [rows], uniform numbers.
    """
    greedy = [s.temperature == 0.0 for s in samplings]
    temperatures = [s.temperature or 1.0 for s in samplings]
    if any(t != 1.0 for t in temperatures):
        logits = logits / torch.tensor(temperatures, device=logits.device).unsqueeze(1)
    probs = torch.softmax(logits, dim=-1)
    cut = [i for i, s in enumerate(samplings) if not greedy[i] and (s.top_k > 0 or s.top_p < 1.0)]
    if cut:
        probs[cut] = _restrict(probs[cut], [samplings[i] for i in cut])
    cumulative = torch.cumsum(probs, dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # u · total < total in floating point too, so what is found has a probability above 0. NaN finds V: clamp.
    threshold = torch.from_numpy(noise).to(logits.device).unsqueeze(1) * total
    tokens = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=logits.shape[1] - 1)
    if any(greedy):
        likeliest = logits.argmax(dim=-1, keepdim=True)
        tokens = torch.where(torch.tensor(greedy, device=logits.device).unsqueeze(1), likeliest, tokens)
    chosen: list[float] = (probs.gather(1, tokens) / total)[:, 0].tolist()
    # Not Tensor.log: its vectorised loop and what remains after it round differently.
    return tokens[:, 0].tolist(), [math.log(p) for p in chosen]


def _restrict(probs: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """``probs`` [rows, V] with 0 outside the ``top_k`` likeliest tokens and, of these, outside the nucleus ``top_p``.

    The nucleus is the smallest set of likeliest tokens with a share of at least ``top_p`` (Holtzman et al.,
    https://arxiv.org/abs/1904.09751, section 3.1). Of equally likely tokens the smaller id comes first.
    """
    device = probs.device
    top_k = torch.tensor([s.top_k or probs.shape[1] for s in samplings], device=device).unsqueeze(1)
    top_p = torch.tensor([s.top_p for s in samplings], device=device, dtype=torch.float64).unsqueeze(1)
    ranked, ids = probs.sort(dim=-1, descending=True, stable=True)
    ranked = ranked.masked_fill(torch.arange(probs.shape[1], device=device) >= top_k, 0.0)
    cumulative = torch.cumsum(ranked, dim=-1, dtype=torch.float64)
    outside = (cumulative - ranked >= top_p * cumulative[:, -1:]) & (top_p < 1.0)
    return torch.zeros_like(probs).scatter_(1, ids, ranked.masked_fill(outside, 0.0))
