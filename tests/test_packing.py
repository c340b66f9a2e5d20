"""Packing: every token in one place, no padding inside, and no log-prob changed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from m2rl_core.errors import ConfigError
from m2rl_core.packing import ALIGN, choose_rows, fill_rows, pack, pieces, unpack
from m2rl_core.policy import Policy
from m2rl_core.types import Sample

Make = Callable[..., Sample]
CPU = torch.device("cpu")


def ragged(make: Make, count: int, seed: int = 0) -> list[Sample]:
    draw = random.Random(seed)
    lengths = [draw.randint(8, 60) for _ in range(count)]
    return [make(length, draw.randint(1, length - 2), i) for i, length in enumerate(lengths)]


def test_rows_hold_everything_once() -> None:
    draw = random.Random(1)
    lengths = [draw.randint(1, 100) for _ in range(300)]
    rows = fill_rows(lengths, 128)
    assert sorted(i for row in rows for i in row) == list(range(300))
    assert max(sum(lengths[i] for i in row) for row in rows) <= 128


def test_hand_case_of_best_fit() -> None:
    assert fill_rows([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


@pytest.mark.parametrize("seed", range(5))
def test_at_least_95_percent_useful(seed: int) -> None:
    draw = random.Random(seed)
    lengths = [min(128, max(4, int(draw.expovariate(1 / 27)))) for _ in range(512)]
    columns, rows = choose_rows(lengths, 16384, dense=True)
    assert sum(lengths) >= 0.95 * len(rows) * columns
    assert columns % ALIGN == 0


@pytest.mark.parametrize("lengths", [[100] * 180, [31, 700, 45, 45, 1200, 8] * 9, [5000, 4000, 90]])
def test_rows_of_variable_length_attention_are_as_full(lengths: list[int]) -> None:
    columns, rows = choose_rows(lengths, 16384, dense=False)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert max(sum(lengths[i] for i in row) for row in rows) <= columns <= 16384
    assert sum(lengths) >= 0.95 * len(rows) * columns


def test_every_token_lands_where_its_piece_says(make_sample: Make) -> None:
    samples = ragged(make_sample, 40)
    for batch in pack(samples, 512, CPU):
        assert len(batch.ids_T) <= 512
        for number, piece in enumerate(batch.pieces_N):
            here = slice(piece.at, piece.at + piece.stop - piece.start)
            sample = samples[piece.sample]
            assert batch.ids_T[here].tolist() == sample.ids_L[piece.start : piece.stop]
            assert batch.position_T[here].tolist() == list(range(piece.stop - piece.start))
            assert batch.sequence_T[here].unique().tolist() == [number]
            assert batch.trained_T[here].tolist() == sample.sampled_L[piece.start : piece.stop]
        assert not batch.trained_T[batch.sequence_T < 0].any()


def test_packing_changes_no_log_prob(tiny_policy: Policy, make_sample: Make) -> None:
    samples = ragged(make_sample, 24)
    for batch in pack(samples, 256, CPU):
        unpack(batch, tiny_policy.logps(batch), samples, "old_logps_L")
    for sample in samples:
        [alone] = pack([sample], 256, CPU)
        expected = tiny_policy.logps(alone)[: len(sample.ids_L)]
        assert sample.old_logps_L is not None
        torch.testing.assert_close(sample.old_logps_L, expected, rtol=0, atol=2e-6)


def test_samples_of_several_sequences_are_isolated(tiny_policy: Policy, make_sample: Make) -> None:
    sample = make_sample(30, 28)
    sample.starts, sample.sampled_L[14] = [0, 14], False
    assert [(p.start, p.stop) for p in pieces([sample])] == [(0, 14), (14, 30)]
    [batch] = pack([sample], 64, CPU)
    unpack(batch, tiny_policy.logps(batch), [sample], "old_logps_L")
    second = make_sample(30, 28)
    second.ids_L, second.sampled_L = sample.ids_L[14:], sample.sampled_L[14:]
    second.logps_L, second.versions_L = second.logps_L[14:], second.versions_L[14:]
    [alone] = pack([second], 64, CPU)
    assert sample.old_logps_L is not None
    torch.testing.assert_close(sample.old_logps_L[14:], tiny_policy.logps(alone)[:16], rtol=0, atol=2e-6)


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_all_rows_in_equal_numbers_of_batches(make_sample: Make, ranks: int) -> None:
    samples = ragged(make_sample, 31)
    shares = [pack(samples, 128, CPU, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(p.sample for share in shares for b in share for p in b.pieces_N) == list(range(31))


@pytest.mark.parametrize(("dense", "tokens"), [(True, 2048), (False, 16384)])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_get_the_same_number_of_tokens(make_sample: Make, dense: bool, tokens: int, ranks: int) -> None:
    """To within one short row on a CPU, to within a thousandth where a batch is one long row."""
    draw = random.Random(ranks)
    lengths = [min(1024, max(8, int(draw.expovariate(1 / 200)))) for _ in range(512)]
    samples = [make_sample(length, length - 2, i) for i, length in enumerate(lengths)]
    shares = [pack(samples, tokens, CPU, dense=dense, rank=rank, ranks=ranks) for rank in range(ranks)]
    loads = [sum(int((batch.sequence_T >= 0).sum()) for batch in share) for share in shares]
    mean = sum(loads) / ranks
    assert max(loads) - mean <= (shares[0][0].shape[1] if dense else 0.001 * mean)


def test_there_are_rows_for_every_rank() -> None:
    """Fewer and longer rows would leave ranks with filling only."""
    for ranks in (1, 2, 4, 8):
        columns, rows = choose_rows([1000] * 40, 16384, dense=False, ranks=ranks)
        assert len(rows) == {1: 3, 2: 4, 4: 4, 8: 8}[ranks]
        assert columns * len(rows) < 48_000


def test_a_rank_without_samples_gets_filling_only(make_sample: Make) -> None:
    [first], [second] = (pack([make_sample(20, 5)], 64, CPU, rank=rank, ranks=2) for rank in (0, 1))
    assert len(first.pieces_N) == 1
    assert not second.pieces_N
    assert not second.trained_T.any()


def test_a_sequence_that_does_not_fit_is_refused(make_sample: Make) -> None:
    with pytest.raises(ConfigError, match=r"100 tokens.*tokens_per_device = 64"):
        pack([make_sample(100, 5)], 64, CPU)
