"""What verification found, as numbers, as text and for drawing."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from .arrays import Floats
from .error_rates import MeasuredRates, OperatingPoint

LEAST_TAR = 0.5
"""Share of the genuine pairs that a threshold must accept to be recommended [ours]."""
_UNITS = {"euclidean": "squared Euclidean distance", "cosine": "1 - cosine", "given": "distance as given"}


@dataclass(frozen=True)
class ThresholdAtFar:
    """A threshold, chosen on one half of the identities and measured on the other.

    Attributes:
        threshold: two images show the same person if their distance is below it.
        asked: the false accept rate that it was chosen for.
        chosen: what it does to the half that it was chosen on.
        reported: what it does to the other half, which had no part in the choice.
    """

    threshold: float
    asked: float
    chosen: MeasuredRates
    reported: MeasuredRates


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """How well a threshold on the distance tells the same person from another; rates are shares between 0 and 1.

    Attributes:
        metric: 'euclidean' (thresholds are squared distances), 'cosine' (1 - cosine) or 'given'.
        genuine_pairs: pairs of one identity by different cameras.
        impostor_pairs: pairs of different identities.
        roc_thresholds: 2,000 thresholds at most, rising, shape (N,).
        roc_far: false accept rate at each, shape (N,).
        roc_tar: true accept rate at each, shape (N,).
        tar_at_far: for each false accept rate asked for, the largest threshold that keeps it; None where it is less
            than one impostor pair.
        eer: equal error rate, the mean of FAR and 1 - TAR where they differ least.
        eer_threshold: where that is.
        at_far: the threshold at the false accept rate asked for, or None.
        why_none: why there is none, or why it is not recommended; empty if it is.
        histogram_edges: 200 bins of one width, of all distances but the largest 0.01 %, shape (201,).
        genuine_histogram: share of the genuine pairs in each, shape (200,).
        impostor_histogram: share of the impostor pairs in each, shape (200,).
    """

    metric: str
    genuine_pairs: int
    impostor_pairs: int
    roc_thresholds: Floats
    roc_far: Floats
    roc_tar: Floats
    tar_at_far: dict[float, OperatingPoint | None]
    eer: float
    eer_threshold: float
    at_far: ThresholdAtFar | None
    why_none: str
    histogram_edges: Floats
    genuine_histogram: Floats
    impostor_histogram: Floats

    @property
    def unit(self) -> str:
        """What thresholds are measured in."""
        return _UNITS[self.metric]

    @property
    def named_unit(self) -> str:
        """The unit with the metric it belongs to."""
        return self.unit if self.metric == "given" else f"{self.unit} (metric {self.metric})"

    @property
    def recommended(self) -> ThresholdAtFar | None:
        """The threshold to use: ``at_far``, unless it rejects most genuine pairs."""
        return None if self.why_none else self.at_far

    def as_dict(self) -> dict[str, Any]:
        """Plain Python numbers for JSON, without the arrays."""
        return {
            "metric": self.metric,
            "unit": self.unit,
            "genuine_pairs": self.genuine_pairs,
            "impostor_pairs": self.impostor_pairs,
            "eer": self.eer,
            "eer_threshold": self.eer_threshold,
            "tar_at_far": {str(far): point and asdict(point) for far, point in self.tar_at_far.items()},
            "at_far": self.at_far and asdict(self.at_far),
            "recommended": self.recommended and asdict(self.recommended),
            "why_none": self.why_none,
        }

    def __str__(self) -> str:
        """A few lines in percent."""
        lines = [
            f"same person: {self.named_unit} below a threshold",
            f"{self.genuine_pairs} genuine and {self.impostor_pairs} impostor pairs",
            f"EER {self.eer:.2%} at {self.eer_threshold:.6g}",
        ]
        for far, point in self.tar_at_far.items():
            too_few = f"too few impostor pairs to measure it, {math.ceil(1 / far)} needed"
            found = f"TAR {point.tar:.2%} at {point.threshold:.6g}" if point else too_few
            lines.append(f"FAR {_percent(far)}: {found}")
        if self.at_far is not None:
            asked, chosen, reported = self.at_far.asked, self.at_far.chosen, self.at_far.reported
            lines += [
                f"threshold at FAR {_percent(asked)}: {self.unit} {self.at_far.threshold:.6g}, chosen on half of the "
                f"identities (TAR {chosen.tar:.2%} there);",
                f"on the other half FAR {_percent(reported.far)}, TAR {reported.tar:.2%} "
                f"of {reported.genuine_pairs} genuine and {reported.impostor_pairs} impostor pairs",
            ]
        return "\n".join([*lines, *([f"no threshold recommended: {self.why_none}"] if self.why_none else [])])


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
