"""What an update of the model does to a gallery that stays, as numbers and as text."""

import math
from dataclasses import dataclass
from typing import Any

from .backfill import BackfillCurve
from .result import RankingResult, Score


@dataclass(frozen=True)
class UpdateGain:
    """The part of a re-encoding's gain that an update has without it, 1 for all of it, by mAP and by CMC-1.

    NaN where the independent model gains nothing; ``why_none`` says why, and is empty if both are numbers.
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
    gains, reasons = [], []
    for label, now, base, best in zip(("mAP", "CMC-1"), cross, old, independent, strict=True):
        gains.append((now - base) / (best - base) if best > base else math.nan)
        if not best > base:
            reasons.append(f"the independent model's {label}, {best:.2%}, is not above the old one's, {base:.2%}")
    return UpdateGain(gains[0], gains[1], "; ".join(reasons))


@dataclass(frozen=True, eq=False)
class CompatibilityResult:
    """How a new model works with the gallery of an old one.

    Attributes:
        old_test: M(old, old): queries and gallery by the old model, the system before the update.
        cross_test: M(new, old): queries by the new model, the gallery as it is.
        self_test: M(new, new): the complete gallery re-encoded.
        independent: M(ind, ind) of a new model trained without regard to the old one; None if it was not given.
        independent_cross: M(ind, old), what its queries find in the old gallery; None if its descriptors were not given
            or have another dimension and no rule is declared.
        update_gain: what the cross test gains of what the independent model would.
        backfill: from the cross test to the self test, with the flipped queries.
        dimensions: of the new model, of the old model, and in which their descriptors are compared.
    """

    old_test: RankingResult
    cross_test: RankingResult
    self_test: RankingResult
    independent: Score | None
    independent_cross: Score | None
    update_gain: UpdateGain
    backfill: BackfillCurve
    dimensions: tuple[int, int, int]

    @property
    def compatible(self) -> bool:
        """Whether M(new, old) > M(old, old) in mAP: the update pays before anything is re-encoded."""
        return self.cross_test.mAP > self.old_test.mAP

    @property
    def compatible_cmc1(self) -> bool:
        """The same by CMC-1."""
        return self.cross_test.rank(1) > self.old_test.rank(1)

    def as_dict(self) -> dict[str, Any]:
        """Plain Python numbers for JSON."""
        tests = {"old_test": self.old_test, "cross_test": self.cross_test, "self_test": self.self_test}
        return {
            "compatible": self.compatible,
            "compatible_cmc1": self.compatible_cmc1,
            **{name: Score.of(result).as_dict() for name, result in tests.items()},
            "independent": self.independent and self.independent.as_dict(),
            "independent_cross": self.independent_cross and self.independent_cross.as_dict(),
            "update_gain": self.update_gain.as_dict(),
            "backfill_area": self.backfill.area.as_dict(),
            "backfill": [point.as_dict() for point in self.backfill.points],
            "dimensions": dict(zip(("new", "old", "compared"), self.dimensions, strict=True)),
        }

    def __str__(self) -> str:
        """A few lines in percent."""
        gain = self.update_gain
        independent = {"self test": self.independent, "in the old gallery": self.independent_cross}
        lines = [
            f"compatible: {_yes(self.compatible)} by mAP, {_yes(self.compatible_cmc1)} by CMC-1",
            f"old test   {Score.of(self.old_test)}",
            f"cross test {Score.of(self.cross_test)}",
            f"self test  {Score.of(self.self_test)}",
            *(f"independent, {name}   {score}" for name, score in independent.items() if score is not None),
            f"update gain {gain.mAP:.3f} (mAP), {gain.cmc1:.3f} (CMC-1){f': {gain.why_none}' * bool(gain.why_none)}",
            f"backfill: area under the curve {self.backfill.area}",
        ]
        for point in self.backfill.points:
            scores = Score.of(point.result)
            moved = f"negative flips {point.negative_flips:.2%}   positive {point.positive_flips:.2%}"
            lines.append(f"  {point.fraction:4.0%}  {scores}   {moved}")
        return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
