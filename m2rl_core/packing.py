"""Packs ragged sequences into rows without padding between them.

Every row holds whole sequences, back to back, and filling only at its end; attention is confined to each sequence by
the policy, so packing changes no log-prob. On a CPU a row is about as long as the longest sequence (attention is dense
over a row); elsewhere one row takes as many tokens as the device may hold.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from m2rl_core.errors import ConfigError
from m2rl_core.types import Batch, Piece, Sample

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["pack", "pieces", "place", "unpack"]

ALIGN = 16
"""Rows are a multiple of this long: kernels like it, and CPU products are then bit-equal for any number of rows."""
USEFUL = 0.95
"""Share of useful tokens that a longer row is tried for."""


def pieces(samples_S: Sequence[Sample]) -> list[Piece]:
    """The sequences of all samples, in order."""
    return [
        Piece(i, start, stop)
        for i, sample in enumerate(samples_S)
        for start, stop in zip(sample.starts, [*sample.starts[1:], len(sample.ids_L)], strict=True)
    ]


def fill_rows(lengths: Sequence[int], columns: int) -> list[list[int]]:
    """Best-fit decreasing: rows of indices into ``lengths`` whose sums do not exceed ``columns``."""
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free columns, row), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect.bisect_left(room, (lengths[index], -1))
        if at == len(room):
            rows.append([])
            free, row = columns, len(rows) - 1
        else:
            free, row = room.pop(at)
        rows[row].append(index)
        bisect.insort(room, (free - lengths[index], row))
    return rows


def choose_rows(
    lengths: Sequence[int], tokens_per_device: int, *, dense: bool, ranks: int = 1
) -> tuple[int, list[list[int]]]:
    """(columns, rows) for these lengths; ``dense`` where attention costs the square of a row's length."""
    longest = -(-max(lengths) // ALIGN) * ALIGN
    if longest > tokens_per_device:
        raise ConfigError(
            "a sequence does not fit on the device",
            found=f"{max(lengths)} tokens",
            allowed=f"tokens_per_device = {tokens_per_device}",
            then="raise tokens_per_device or lower max_tokens",
        )
    if not dense:
        return _balanced(lengths, tokens_per_device, longest, ranks)
    best: tuple[int, list[list[int]]] | None = None
    for columns in sorted({min(tokens_per_device, -(-longest * k // (2 * ALIGN)) * ALIGN) for k in (2, 3, 4)}):
        rows = fill_rows(lengths, columns)
        if best is None or len(rows) * columns < len(best[1]) * best[0]:
            best = columns, rows
        if sum(lengths) >= USEFUL * len(rows) * columns:
            break
    assert best is not None
    return best


def _balanced(lengths: Sequence[int], tokens_per_device: int, longest: int, ranks: int) -> tuple[int, list[list[int]]]:
    """As few rows as fit and as give every rank as many, all about equally long, so that little is filling."""
    fewest = -(-len(fill_rows(lengths, tokens_per_device)) // ranks) * ranks
    columns = max(longest, -(-sum(lengths) // (fewest * ALIGN)) * ALIGN)
    while columns < tokens_per_device and len(fill_rows(lengths, columns)) > fewest:
        columns = min(tokens_per_device, columns + max(ALIGN, columns // (50 * ALIGN) * ALIGN))
    return columns, fill_rows(lengths, columns)


def pack(
    samples_S: Sequence[Sample],
    tokens_per_device: int,
    device: torch.device,
    *,
    dense: bool | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> list[Batch]:
    """This rank's share of the samples as batches of at most ``tokens_per_device`` tokens, filling included.

    ``dense`` says that attention will cost the square of a row's length; by default it does on a CPU. All ranks get
    the same number of batches (some may hold filling only), so that collective operations match.

    Raises:
        ConfigError: a sequence longer than ``tokens_per_device``.
    """
    todo = pieces(samples_S)
    if not todo:
        return []
    dense = device.type == "cpu" if dense is None else dense
    lengths = [p.stop - p.start for p in todo]
    columns, rows = choose_rows(lengths, tokens_per_device, dense=dense, ranks=ranks)
    per_batch = max(1, tokens_per_device // columns)
    total = -(-len(rows) // (per_batch * ranks)) * ranks
    return [  # best fit fills all rows but the last few, so that the same number of rows are the same number of tokens
        _batch(samples_S, [[todo[i] for i in row] for row in rows[number::total]], columns, device)
        for number in range(rank, total, ranks)
    ]


def _batch(samples_S: Sequence[Sample], rows: list[list[Piece]], columns: int, device: torch.device) -> Batch:
    shape = (max(1, len(rows)), columns)
    size = shape[0] * shape[1]
    ids, position, sequence = (torch.full((size,), fill, dtype=torch.int64) for fill in (0, 0, -1))
    trained, version = torch.zeros(size, dtype=torch.bool), torch.full((size,), -1, dtype=torch.int64)
    optional = {
        name: torch.zeros(size, device=device)
        for name in ("coef", "advantage", "old_logps", "reference_logps", "teacher_logps")
        if any(getattr(sample, name + "_L") is not None for sample in samples_S)
    }
    sampler, order = torch.zeros(size), list[Piece]()
    for number, row in enumerate(rows):
        at = number * columns
        for piece in row:
            sample, cut = samples_S[piece.sample], slice(piece.start, piece.stop)
            here = slice(at, at := at + piece.stop - piece.start)
            ids[here] = torch.tensor(sample.ids_L[cut])
            position[here] = torch.arange(piece.stop - piece.start)
            sequence[here] = len(order)
            trained[here] = torch.tensor(sample.sampled_L[cut])
            sampler[here] = torch.tensor(sample.logps_L[cut])
            version[here] = torch.tensor(sample.versions_L[cut])
            for name, target in optional.items():
                if (value := getattr(sample, name + "_L")) is not None:
                    target[here] = value[cut]
            order.append(piece._replace(at=here.start))
    return Batch(
        shape=shape,
        ids_T=ids.to(device),
        position_T=position.to(device),
        sequence_T=sequence.to(device),
        trained_T=trained.to(device),
        sampler_logps_T=sampler.to(device),
        version_T=version.to(device),
        domain_N=[samples_S[p.sample].prompt.domain for p in order],
        pieces_N=order,
        coef_T=optional.get("coef"),
        advantage_T=optional.get("advantage"),
        old_logps_T=optional.get("old_logps"),
        reference_logps_T=optional.get("reference_logps"),
        teacher_logps_T=optional.get("teacher_logps"),
    )


def unpack(batch: Batch, values_T: Tensor, samples_S: Sequence[Sample], field: str) -> None:
    """Write values [T] to the attribute ``field`` (float32 [L], on the CPU) of the samples that ``batch`` packs."""
    for sample in (samples_S[piece.sample] for piece in batch.pieces_N):
        if getattr(sample, field) is None:
            setattr(sample, field, torch.zeros(len(sample.ids_L)))
    place(batch, values_T, [getattr(sample, field) for sample in samples_S])


def place(batch: Batch, values_T: Tensor, out_S: Sequence[Tensor]) -> None:
    """Write values [T] to the tensors (float32 [L], on the CPU) of the samples that ``batch`` packs."""
    values = values_T.detach().float().cpu()
    for piece in batch.pieces_N:
        out_S[piece.sample][piece.start : piece.stop] = values[piece.at : piece.at + piece.stop - piece.start]
