"""Counts of float32 values in bins that need no range beforehand: bins of the bit pattern."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_DROPPED_BITS = 12
_BINS = 2 ** (32 - _DROPPED_BITS)
_NEGATIVE_BINS = _BINS // 2
_ALL_BUT_SIGN = 0x7FFFFFFF
# Values that are counted at once: their keys stay in the cache of a core.
_PIECE = 2**18


class FloatHistogram:
    """Counts (2**20, groups) of float32 values of any sign and size, infinite ones too, apart for a few groups [ours].

    Read as integers, positive floats keep their order, and negative ones do so with all bits but the sign flipped.
    The upper 20 of the 32 bits are the bin: 2**11 bins from each power of two to the next. A bin's start belongs to
    it, so that the number of values below a start is exact. -0.0 counts as +0.0.

    Example:
        >>> histogram = FloatHistogram()
        >>> histogram.add(torch.tensor([[1.0, -2.0], [1.0, torch.inf]]))
        >>> used = np.flatnonzero(histogram.counts[:, 0])
        >>> bin_starts(used).round(2).tolist(), histogram.counts[used, 0].tolist()
        ([-2.0, 1.0, inf], [1, 2, 1])
    """

    def __init__(self, groups: int = 1) -> None:
        # Pages of zeros that nothing is added to take no memory.
        self.counts = np.zeros((_BINS, groups), dtype=np.int64)
        self._scratch = torch.empty(0)

    @torch.no_grad()
    def add(
        self, values: Tensor, row_groups: Tensor | None = None, column_groups: Tensor | None = None, sign: int = 1
    ) -> None:
        """Counts values (R, C) without NaN; with a sign of -1 they are taken away.

        The group of a value is the sum of what its row (R,) and its column (C,) add, int32.
        """
        if not values.numel():
            return
        first, last = _bins(torch.stack(torch.aminmax(values)), values.new_empty(2)).tolist()
        groups = self.counts.shape[1]
        span = (last - first + 1) * groups
        counts = self.counts[first + _NEGATIVE_BINS : last + 1 + _NEGATIVE_BINS].reshape(-1)
        row_groups = (values.new_zeros(len(values), dtype=torch.int32) if row_groups is None else row_groups)[:, None]
        first_key = first * groups
        # Pieces no smaller than their counts, or adding these up would take longer than counting.
        rows = max(1, max(_PIECE, span) // values.shape[1])
        for start in range(0, len(values), rows):
            piece = values[start : start + rows]
            if self._scratch.numel() < piece.numel() or self._scratch.device != piece.device:
                self._scratch = piece.new_empty(piece.numel())
            keys = _bins(piece, self._scratch[: piece.numel()].view(piece.shape), with_negative=first < 0)
            keys.mul_(groups).add_(row_groups[start : start + rows] - first_key)
            if column_groups is not None:
                keys += column_groups
            counts += sign * torch.bincount(keys.view(-1), minlength=span).cpu().numpy()


def bin_starts(bins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The least value of each bin of `FloatHistogram.counts`, exact in float32; NaN beyond the bin of infinity."""
    order = (np.asarray(bins) - _NEGATIVE_BINS).astype(np.int32) << _DROPPED_BITS
    bits = np.where(order < 0, order ^ _ALL_BUT_SIGN, order).astype(np.int32)
    with np.errstate(invalid="ignore"):  # signalling NaN
        starts = bits.view(np.float32).astype(np.float64)
    # The bin of negative infinity starts among NaN patterns.
    return np.where(np.isnan(starts) & (order < 0), -np.inf, starts)


def _bins(values: Tensor, room: Tensor, with_negative: bool = True) -> Tensor:
    """The bin of each value, counted from that of zero, in the memory of ``room``."""
    # Adding zero turns -0.0 into +0.0.
    bits = torch.add(values, 0.0, out=room).view(torch.int32)
    if with_negative:
        bits ^= (bits >> 31) & _ALL_BUT_SIGN
    bits >>= _DROPPED_BITS
    return bits
