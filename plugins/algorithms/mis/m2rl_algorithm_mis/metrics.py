"""How far sampler and trainer disagree: numbers of a minibatch, of each domain and of each staleness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from m2rl_algorithm_mis.ratios import LIMIT, Ratios
from m2rl_core.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


def report(batch: Batch, ratios: Ratios, shares: Mapping[str, Tensor]) -> dict[str, float]:
    """All metrics of a minibatch: ``ratio_mean``, ``ratio_mean/math``, ``ratio_mean/staleness-1``, …

    Args:
        shares: name → bool [T]; logged as the share of tokens for which it is true.
    """
    shares = {**shares, "ratio_unknown": ratios.unknown_T}
    metrics: dict[str, float] = {}
    for suffix, where_T in _views(batch):
        numbers = _mismatch(ratios.log_T[where_T])
        numbers |= {name: share_T[where_T].double().mean().item() for name, share_T in shares.items()}
        metrics |= {name + suffix: number for name, number in numbers.items()}
    return metrics


def _views(batch: Batch) -> Iterator[tuple[str, Tensor]]:
    """(suffix, bool [T]) of all tokens, of each domain, and of each staleness where there are several.

    Staleness is the newest version in the minibatch minus the version that drew the token. No view is empty.
    """
    if not len(batch.sequence_T):
        return
    yield "", batch.sequence_T >= 0
    domains = sorted(set(batch.domain_N))
    domain_T = batch.sequence_T.new_tensor([domains.index(name) for name in batch.domain_N])[batch.sequence_T]
    yield from ((f"/{domains[number]}", where_T) for number, where_T in _classes(domain_T))
    staleness_T = batch.version_T.max() - batch.version_T
    if bool(staleness_T.any()):
        yield from ((f"/staleness-{age}", where_T) for age, where_T in _classes(staleness_T))


def _classes(number_T: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(number, bool [T]) of each number ≥ 0 that occurs; a scan each, for they are few and tokens many."""
    for number in range(int(number_T.max()) + 1):
        if bool((where_T := number_T == number).any()):
            yield number, where_T


def _mismatch(log_T: Tensor) -> dict[str, float]:
    """Statistics of token ratios r, whatever the rule's level, over tokens whose log ratio is finite; none, no numbers.

    ``ratio_k1`` and ``ratio_k3`` estimate KL(sampler ‖ trainer) [nats per token] from the sampler's tokens: the means
    of −log r and of r − 1 − log r (http://joschu.net/blog/kl-approx.html). ``ratio_ess`` is Kish's effective sample
    size as a share, (Σr)² / (n Σr²): 1 where all ratios are equal.
    """
    log_T = log_T[log_T.isfinite()]
    if not len(log_T):
        return {}
    clamped_T = log_T.clamp(-LIMIT, LIMIT)
    ratio_T = clamped_T.exp()
    return {
        "ratio_mean": ratio_T.mean().item(),
        "ratio_max": ratio_T.max().item(),
        "ratio_k1": -log_T.mean().item(),
        "ratio_k3": (clamped_T.expm1() - log_T).mean().item(),
        "ratio_ess": (ratio_T.sum().square() / (len(ratio_T) * ratio_T.square().sum())).item(),
    }
