"""Backward compatibility: what queries by a new model find in a gallery by an old one, before and after."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import TypeAlias

import torch

from .arrays import Progress
from .backfill import FRACTIONS, backfill_curve, check_fractions
from .compatibility_result import CompatibilityResult, update_gain
from .descriptors import Pair, common_dimension, dimension_of, require_same_images
from .distances import device_of
from .normalized import NormalizedRows, normalized_sides, ranker
from .options import DEFAULTS, EvaluationOptions
from .result import RankingResult, Score

# Queries and gallery, the result of their test, or its mAP and CMC-1.
Independent: TypeAlias = Pair | RankingResult | Score | tuple[float, float]


def compatibility(
    new: Pair,
    old: Pair,
    options: EvaluationOptions = DEFAULTS,
    *,
    independent: Independent | None = None,
    fractions: Sequence[float] = FRACTIONS,
    dimensions: str = "error",
    progress: Progress | None = None,
) -> CompatibilityResult:
    """Measures whether a new model can be used with a gallery that an old one encoded.

    Shen et al., CVPR 2020 (cross test, update gain) and Yan et al., CVPR 2021 (negative flips) [paper]. With M(q, g)
    the score of queries by the model q in a gallery by the model g, in mAP and in CMC-1::

        compatible   iff M(new, old) > M(old, old)
        update gain  = (M(new, old) - M(old, old)) / (M(ind, ind) - M(old, old))
        backfill     M(new, g_r), g_r the old gallery with a random part r of its images by the new model

    Descriptors are always L2-normalised here: an old gallery is compared with rows of the new model, and neither may
    win by its length. Parts r are nested and drawn image by image; r = 0 is the cross test and r = 1 the self test. A
    flip is negative when the nearest image was right under M(old, old) and is wrong now. Where dimensions differ and a
    rule is declared, the old test is of complete old descriptors, and all others are in the dimension compared [ours].

    Args:
        new: queries and gallery by the new model; features may be read in slices.
        old: the same images by the old model.
        options: metric ('cosine' by default; 'euclidean' of unit vectors ranks alike), limits, seed of the order of
            re-encoding. Nothing is re-ranked.
        independent: for the update gain, a new model trained without regard to the old one: its queries and gallery,
            the result of its test, or its (mAP, CMC-1).
        fractions: parts r, rising from 0 to 1.
        dimensions: where those of the models differ: 'error', 'truncate' (the first dimensions of the longer ones) or
            'pad' (zeros behind the shorter ones), before they are normalised.
        progress: called with the number of queries ranked so far and in all.

    Raises:
        ValueError: the images differ, a row is zero or not finite, dimensions differ without a rule, fractions do not
            rise from 0 to 1, or no query has a match.

    Example:
        >>> from torchreid_ptl.evaluation import Descriptors
        >>> def described(query, gallery):
        ...     return Descriptors(query, [0, 1, 2], [0, 0, 0]), Descriptors(gallery, [0, 1, 2], [1, 1, 1])
        >>> old = described([[1.0, 0.2], [0.0, 1.0], [0.6, 0.8]], [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> new = described([[1.1, 0.1], [0.1, 1.1], [0.1, 0.1]], [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
        >>> result = compatibility(new, old, fractions=(0, 1))
        >>> result.compatible, result.cross_test.rank(1), result.backfill.points[0].positive.tolist()
        (False, 1.0, [])
    """
    parts = check_fractions(fractions)
    features, given = _read_independent(independent)
    sides = {"new": new, "old": old, **({"independent": features} if features else {})}
    require_same_images(sides)
    dims = dimension_of("new", new), dimension_of("old", old)
    dim = common_dimension(*dims, dimensions)
    device = device_of(new[1].features, options.device)
    new_rows, old_rows = normalized_sides("new", new, device, dim), normalized_sides("old", old, device, dim)
    complete = old_rows if dims[1] == dim else normalized_sides("old", old, device)
    extra = [] if features is None else _independent_tests(features, complete[1], dimensions, device)
    images = len(new_rows[1])
    count = 3 + len(extra) + sum(0 < round(part * images) < images for part in parts)
    rank = ranker(new, replace(options, device=device), count, progress)
    tests = rank(*complete), rank(new_rows[0], old_rows[1]), rank(*new_rows)
    best, independent_vs_old, *_ = *[Score.of(rank(*sides)) for sides in extra], None, None
    best = best or given
    gain = update_gain(Score.of(tests[1]), Score.of(tests[0]), best)
    galleries = old_rows[1], new_rows[1]
    curve = backfill_curve(lambda gallery: rank(new_rows[0], gallery), galleries, tests, parts, options.seed)
    return CompatibilityResult(*tests, best, independent_vs_old, gain, curve, (*dims, dim))


def _independent_tests(
    independent: Pair, old_gallery: NormalizedRows, rule: str, device: torch.device
) -> list[tuple[NormalizedRows, NormalizedRows]]:
    """Queries and gallery by the independent model; and its queries with the old gallery, where a dimension allows."""
    own = normalized_sides("independent", independent, device)
    dims = own[0].shape[1], old_gallery.shape[1]
    if dims[0] != dims[1] and rule == "error":
        return [own]
    dim = common_dimension(*dims, rule)
    return [own, (own[0].resized(dim), old_gallery.resized(dim))]


def _read_independent(independent: Independent | None) -> tuple[Pair | None, Score | None]:
    """Descriptors that are still to be ranked, or the score of the independent model's own test."""
    if independent is None:
        return None, None
    if isinstance(independent, RankingResult):
        return None, Score.of(independent)
    if not isinstance(independent, (tuple, list)) or len(independent) != 2:
        raise ValueError(
            "independent must be a pair of (query, gallery) descriptors, a RankingResult, or (mAP, CMC-1), got "
            f"{type(independent).__name__}"
        )
    first, second = independent
    if not isinstance(first, Real) or not isinstance(second, Real):
        return (first, second), None  # type: ignore[return-value]
    score = Score(float(first), float(second))
    if not all(0 <= value <= 1 for value in score):
        raise ValueError(f"the independent model's (mAP, CMC-1) must be shares of 0 to 1, got {tuple(score)}")
    return None, score
