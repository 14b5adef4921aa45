"""Error rates of all thresholds on a distance, from counts of genuine and impostor pairs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import Floats, Integers
from .float_histogram import bin_starts

_DRAWN_BINS = 200
_DRAWN_SHARE = 0.9999


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on the distance; ``far`` and ``tar`` are the shares of impostor and of genuine pairs below it."""

    threshold: float
    far: float
    tar: float


@dataclass(frozen=True)
class MeasuredRates:
    """False and true accept rate of a threshold inside one half of the identities, and the pairs behind them."""

    far: float
    tar: float
    genuine_pairs: int
    impostor_pairs: int


class ErrorRates:
    """False and true accept rates at the starts of bins, which are exact there, from counts (U,) in rising bins (U,).

    ``thresholds`` are the starts of the bins, and the end of the last one unless it is infinity; ``far`` and ``tar``
    the shares of impostor and of genuine pairs below each, NaN if there are none.
    """

    def __init__(self, bins: Integers, genuine: Integers, impostor: Integers) -> None:
        starts = bin_starts(np.append(bins, bins[-1] + 1))
        self.thresholds = starts[~np.isnan(starts)]
        self.genuine_pairs, self.impostor_pairs = int(genuine.sum()), int(impostor.sum())
        self.tar, self.far = (_below(counts)[: len(self.thresholds)] for counts in (genuine, impostor))

    def operating(self, index: int) -> OperatingPoint:
        """One threshold and its rates."""
        return OperatingPoint(float(self.thresholds[index]), float(self.far[index]), float(self.tar[index]))

    def measured(self, index: int) -> MeasuredRates:
        """The rates at one threshold with the numbers of pairs behind them."""
        return MeasuredRates(float(self.far[index]), float(self.tar[index]), self.genuine_pairs, self.impostor_pairs)

    def largest_within(self, far: float) -> int | None:
        """Index of the largest threshold that accepts no more impostor pairs; None if that is less than one pair."""
        if not self.impostor_pairs or far < 1 / self.impostor_pairs:
            return None
        return int(np.searchsorted(self.far, far, side="right")) - 1

    def eer_index(self) -> int:
        """Index of the threshold where FAR and FRR = 1 - TAR differ least."""
        return int(np.argmin(np.abs(self.far - (1 - self.tar))))

    def curve_indices(self, most: int) -> Integers:
        """Indices of at most so many thresholds for a curve: evenly spread in FAR, in log FAR and in TAR."""
        count = len(self.thresholds)
        if count <= most:
            return np.arange(count)
        share = np.linspace(0, 1, most // 3)
        log_share = np.geomspace(1 / self.impostor_pairs, 1, most // 3)
        found = [np.searchsorted(self.far, share), np.searchsorted(self.far, log_share)]
        found.append(np.searchsorted(self.tar, share))
        return np.unique(np.minimum(np.concatenate(found), count - 1))


def equal_width(bins: Integers, *counts: Integers) -> tuple[Floats, list[Floats]]:
    """Histograms with 200 bins of one width for drawing, from bins (U,) that hold pairs and counts (U,) in them.

    The edges (201,) go from the least finite distance to the one that 99.99 % of all are below; then, of each kind, the
    share of its pairs in each bin, shape (200,). Pairs are spread evenly over the bin they come from.
    """
    largest = float(np.finfo(np.float32).max)
    starts, ends = bin_starts(bins), np.minimum(bin_starts(bins + 1), largest)
    finite = np.isfinite(starts)
    if not finite.any():
        return np.linspace(0, 1, _DRAWN_BINS + 1), [np.zeros(_DRAWN_BINS) for _ in counts]
    starts, ends = starts[finite], ends[finite]
    everything = np.cumsum(np.sum(counts, axis=0)[finite])
    last = np.searchsorted(everything, _DRAWN_SHARE * everything[-1])
    edges = np.linspace(starts[0], ends[last], _DRAWN_BINS + 1)
    places = np.stack([starts, ends], axis=1).ravel()
    index = np.flatnonzero(finite)
    around = np.stack([index, index + 1], axis=1)
    below = [_below(kind)[around].ravel() for kind in counts]
    return edges, [np.diff(np.interp(edges, places, each)) for each in below]


def _below(counts: npt.NDArray[Any]) -> Floats:
    """Share of all that come before each of N bins and after the last one, shape (N + 1,); NaN without any."""
    with np.errstate(invalid="ignore"):
        return np.append(0, np.cumsum(counts)) / counts.sum()
