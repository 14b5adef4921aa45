"""What a ranking is worth: average precision, CMC and INP."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .arrays import Booleans, Floats, Floats32, Integers


@dataclass(frozen=True, eq=False)
class RankingResult:
    """What one query set retrieves from one gallery; all scores are shares between 0 and 1.

    Attributes:
        mAP: mean of the average precision over the queries that have a match.
        mINP: mean of (number of matches / rank of the last match) over the same queries.
        cmc: share of these queries whose first match has rank 1, 2, ... or less, float32 as the host's, shape
            (min(max_rank, G),); with the single-gallery-shot protocol over all draws, at most as long as there are
            identities.
        average_precision: shape (Q,); NaN for a query without match.
        inverse_negative_penalty: INP of each query, shape (Q,); NaN likewise.
        first_hit: rank of the first match in the list without junk, counted from 1, shape (Q,); 0 without match.
        skipped: indices of the queries without match in another camera.
        shots: with the single-gallery-shot protocol, rank of the match in each draw, shape (Q, repeats); or None.
        top: gallery indices of the nearest images without junk, shape (Q, return_top), filled up with -1; or None.
        top_distances: their distances as ranked, shape (Q, return_top), NaN where there is none; or None.
    """

    mAP: float
    mINP: float
    cmc: Floats32
    average_precision: Floats
    inverse_negative_penalty: Floats
    first_hit: Integers
    skipped: Integers
    shots: Integers | None = None
    top: Integers | None = None
    top_distances: Floats | None = None

    def rank(self, k: int) -> float:
        """Share of the queries whose first match is among the first `k`; any `k` >= 1, also beyond the gallery."""
        if k < 1:
            raise ValueError(f"ranks count from 1, got {k}")
        ranks = self.first_hit if self.shots is None else self.shots
        return float(np.count_nonzero(ranks[self.first_hit > 0] <= k) / ranks[self.first_hit > 0].size)

    @property
    def top1_is_match(self) -> Booleans:
        """Whether the nearest image of each query is a match, shape (Q,)."""
        return self.first_hit == 1

    def as_dict(self, ranks: Sequence[int] = (1, 5, 10, 20)) -> dict[str, Any]:
        """Plain Python numbers for JSON, with the CMC at the given ranks."""
        return {
            "mAP": float(self.mAP),
            "mINP": float(self.mINP),
            "cmc": {str(k): self.rank(k) for k in ranks},
            "queries": len(self.first_hit),
            "skipped": len(self.skipped),
        }

    def summary(self, ranks: Sequence[int] = (1, 5, 10, 20)) -> str:
        """A few lines in percent, with the CMC at the given ranks."""
        cmc = "   ".join(f"rank-{k} {self.rank(k):.2%}" for k in ranks)
        without = f", {len(self.skipped)} of them skipped: no match in another camera" if len(self.skipped) else ""
        return f"mAP {self.mAP:.2%}   mINP {self.mINP:.2%}\n{cmc}\n{len(self.first_hit)} queries{without}"

    __str__ = summary


class Score(NamedTuple):
    """mAP and CMC-1 of a test, the share of the queries whose nearest image is a match; between 0 and 1."""

    mAP: float
    cmc1: float

    @classmethod
    def of(cls, result: RankingResult) -> "Score":
        """The two figures of a ranking."""
        return cls(result.mAP, result.rank(1))

    def as_dict(self) -> dict[str, float | None]:
        """Plain Python numbers for JSON; None where there is no number."""
        return {name: None if math.isnan(value) else float(value) for name, value in self._asdict().items()}

    def __str__(self) -> str:
        return f"mAP {self.mAP:.2%}   CMC-1 {self.cmc1:.2%}"


class Scores:
    """Collects the scores of all queries from the ranks of their matches."""

    def __init__(self, queries: int, gallery: int) -> None:
        self._gallery = gallery
        self.average_precision = np.full(queries, np.nan)
        self.inverse_negative_penalty = np.full(queries, np.nan)
        self.first_hit = np.zeros(queries, dtype=np.int64)

    def add(self, rows: slice, places: Integers, ranks: Integers, junk: Integers, list_: Floats) -> None:
        """Scores some queries from each match's query (N,), counted from the first, and its rank (N,), ordered by both.

        ``junk`` counts the junk of each query; ``list_``, G zeros to be worked with, holds zeros again at the end.
        """
        counts = np.bincount(places, minlength=len(junk))
        ends = np.cumsum(counts)
        ordinal = np.arange(1, len(ranks) + 1) - (ends - counts)[places]
        precision = ordinal / ranks
        lengths = (self._gallery - junk).tolist()
        for row in np.flatnonzero(counts).tolist():
            part = slice(ends[row] - counts[row], ends[row])
            # Summed like the host's array, zeros included, to be equal to the last bit.
            list_[ranks[part] - 1] = precision[part]
            self.average_precision[rows.start + row] = list_[: lengths[row]].sum() / counts[row]
            list_[ranks[part] - 1] = 0
        valid = np.flatnonzero(counts)
        self.first_hit[rows.start + valid] = ranks[(ends - counts)[valid]]
        self.inverse_negative_penalty[rows.start + valid] = counts[valid] / ranks[ends[valid] - 1]

    def result(self, max_rank: int, skipped: Integers, shots: Integers | None = None) -> RankingResult:
        """Means over the queries that have a match, and the CMC up to a rank."""
        valid = self.first_hit > 0
        ranks = self.first_hit[valid] if shots is None else shots[valid]
        hits = np.bincount(ranks.ravel(), minlength=max_rank + 1)[1 : max_rank + 1]
        return RankingResult(
            mAP=float(self.average_precision[valid].mean()),
            mINP=float(self.inverse_negative_penalty[valid].mean()),
            cmc=np.cumsum(hits).astype(np.float32) / np.float32(ranks.size),
            average_precision=self.average_precision,
            inverse_negative_penalty=self.inverse_negative_penalty,
            first_hit=self.first_hit,
            skipped=skipped,
            shots=shots,
        )
