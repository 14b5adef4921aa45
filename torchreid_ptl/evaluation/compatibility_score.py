"""The two figures compatibility is measured by, and what an update gains in them."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from .result import RankingResult


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


@dataclass(frozen=True)
class UpdateGain:
    """The part of a re-encoding's gain that an update has without it.

    Attributes:
        mAP: by mAP, 1 for all of it; NaN where the independent model gains nothing.
        cmc1: by CMC-1, likewise.
        why_none: why it cannot; empty if both can.
    """

    mAP: float
    cmc1: float
    why_none: str

    def as_dict(self) -> dict[str, Any]:
        """Plain Python numbers for JSON; None where there is no number."""
        return {**Score(self.mAP, self.cmc1).as_dict(), "why_none": self.why_none}


def update_gain(cross: Score, old: Score, independent: Score | None) -> UpdateGain:
    """What queries by the new model gain on the old gallery, of what an independent new model would gain in all.

    The update gain of the field [paper], with the cross test, the old test and the independent model's self test::

        gain = (M(new, old) - M(old, old)) / (M(ind, ind) - M(old, old))

    Example:
        >>> update_gain(Score(0.45, 0.6), Score(0.4, 0.6), Score(0.5, 0.6)).mAP.__round__(3)
        0.5
        >>> update_gain(Score(0.45, 0.6), Score(0.4, 0.6), Score(0.5, 0.6)).why_none
        "the independent model's CMC-1, 60.00%, is not above the old one's, 60.00%"
    """
    if independent is None:
        return UpdateGain(math.nan, math.nan, "no independent model was given")
    reasons = [
        f"the independent model's {label}, {best:.2%}, is not above the old one's, {base:.2%}"
        for label, best, base in zip(("mAP", "CMC-1"), independent, old, strict=True)
        if not best > base
    ]
    gains = [
        (now - base) / (best - base) if best > base else math.nan
        for now, base, best in zip(cross, old, independent, strict=True)
    ]
    return UpdateGain(gains[0], gains[1], "; ".join(reasons))
