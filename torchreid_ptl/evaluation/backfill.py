"""A gallery that is re-encoded piece by piece: what it gives on the way, and which queries change sides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import Booleans, Floats, Integers
from .distances import Rows
from .result import RankingResult, Score

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the gallery that are re-encoded by default."""


class MixedRows:
    """A gallery (G, D) with some images by the new model, the others by the old one; slices are tensors."""

    def __init__(self, old: Rows, new: Rows, refreshed: Booleans) -> None:
        if tuple(old.shape) != tuple(new.shape) or refreshed.shape != (old.shape[0],):
            raise ValueError(
                f"both galleries and the choice must fit together, got {tuple(old.shape)} (old), {tuple(new.shape)} "
                f"(new) and {refreshed.shape}"
            )
        self._old, self._new, self._refreshed = old, new, refreshed
        self.shape = (int(old.shape[0]), int(old.shape[1]))

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows; of a gallery of which none of them is taken, nothing is read."""
        chosen = self._refreshed[rows]
        if not chosen.any():
            return self._old[rows]
        if chosen.all():
            return self._new[rows]
        new = self._new[rows]
        return torch.where(torch.from_numpy(chosen)[:, None].to(new.device), new, self._old[rows])


def refresh_order(images: int, seed: int) -> Integers:
    """The place of each image in the order of re-encoding, shape (G,), drawn at random.

    With it the parts are nested: the images with a place below n are those of every smaller n, and more [paper].

    Example:
        >>> place = refresh_order(4, seed=0)
        >>> sorted(place.tolist())
        [0, 1, 2, 3]
    """
    place = np.empty(images, dtype=np.int64)
    place[np.random.default_rng(seed).permutation(images)] = np.arange(images)
    return place


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Parts of the gallery to re-encode; a ValueError if they do not rise from 0 to 1."""
    given = tuple(float(fraction) for fraction in fractions)
    rising = all(first < second for first, second in zip(given[:-1], given[1:], strict=True))
    if len(given) < 2 or not rising or given[0] != 0 or given[-1] != 1:
        raise ValueError(f"fractions must rise from 0 (the cross test) to 1 (the self test), got {list(given)}")
    return given


@dataclass(frozen=True, eq=False)
class BackfillPoint:
    """What queries by the new model find when a part of the gallery is re-encoded.

    Attributes:
        fraction: the part asked for, 0 to 1.
        refreshed: number of images re-encoded.
        result: of the ranking.
        negative: indices of the queries whose nearest image was right under the old system and is wrong now.
        positive: indices of the queries whose nearest image was wrong and is right now.
    """

    fraction: float
    refreshed: int
    result: RankingResult
    negative: Integers
    positive: Integers

    @property
    def negative_flips(self) -> float:
        """Negative flips as a share of the queries with a match."""
        return len(self.negative) / self._queries

    @property
    def positive_flips(self) -> float:
        """Positive flips as a share of the queries with a match."""
        return len(self.positive) / self._queries

    @property
    def _queries(self) -> int:
        return int(np.count_nonzero(self.result.first_hit))

    def as_dict(self) -> dict[str, Any]:
        """Plain Python numbers for JSON."""
        return {
            "fraction": self.fraction,
            "refreshed": self.refreshed,
            **Score.of(self.result).as_dict(),
            "negative_flips": self.negative_flips,
            "positive_flips": self.positive_flips,
        }


def flips(old: RankingResult, now: RankingResult) -> tuple[Integers, Integers]:
    """Queries with a match whose nearest image changed from right to wrong (negative), and from wrong to right."""
    counted = now.first_hit > 0
    before, after = old.top1_is_match, now.top1_is_match
    return np.flatnonzero(counted & before & ~after), np.flatnonzero(counted & ~before & after)


@dataclass(frozen=True, eq=False)
class BackfillCurve:
    """Scores while the gallery is re-encoded, by rising fractions from 0, the cross test, to 1, the self test."""

    points: tuple[BackfillPoint, ...]

    @property
    def fractions(self) -> Floats:
        """Parts of the gallery, shape (N,)."""
        return np.array([point.fraction for point in self.points])

    @property
    def mAP(self) -> Floats:  # noqa: N802 - the field's name
        """Mean average precision at each, shape (N,)."""
        return np.array([point.result.mAP for point in self.points])

    @property
    def cmc1(self) -> Floats:
        """CMC-1 at each, shape (N,)."""
        return np.array([point.result.rank(1) for point in self.points])

    @property
    def area(self) -> Score:
        """Area under both curves, by trapezoids over the fraction, between 0 and 1."""
        widths = np.diff(self.fractions)
        return Score(*(float((widths * (y[1:] + y[:-1]) / 2).sum()) for y in (self.mAP, self.cmc1)))


def backfill_curve(
    rank: Callable[[Rows], RankingResult],
    sides: tuple[Rows, Rows],
    tests: tuple[RankingResult, RankingResult, RankingResult],
    fractions: tuple[float, ...],
    seed: int,
) -> BackfillCurve:
    """Ranks the galleries between the old one and the new one, re-encoded in an order drawn with the seed.

    ``rank`` ranks a gallery by queries of the new model; ``sides`` are it (G, D) by the old and the new model, of unit
    length, and ``tests`` the results of the old system, of the cross and of the self test, which are the curve's ends.
    """
    old_test, cross, self_test = tests
    images = sides[0].shape[0]
    place = refresh_order(images, seed)
    ends = {0: cross, images: self_test}
    points = []
    for fraction in fractions:
        count = round(fraction * images)
        result = ends[count] if count in ends else rank(MixedRows(*sides, place < count))
        points.append(BackfillPoint(fraction, count, result, *flips(old_test, result)))
    return BackfillCurve(tuple(points))
