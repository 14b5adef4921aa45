"""Backward compatibility: what queries by a new model find in a gallery by an old one, before and after."""

from collections.abc import Sequence
from numbers import Real
from typing import TypeAlias

import torch

from .backfill import backfill_curve, check_fractions, rankings_between
from .compatibility_result import CompatibilityResult
from .compatibility_score import Score, update_gain
from .distances import Features
from .labels import Labels
from .ranking import Progress
from .result import RankingResult
from .unit import (
    NormalizedRows,
    Rankings,
    common_dimension,
    device_of,
    dimension_of,
    normalized_sides,
    require_same_images,
)

# Descriptors of queries and gallery, the result of their test, or its mAP and CMC-1.
Independent: TypeAlias = tuple[Features, Features] | RankingResult | Score | tuple[float, float]


def compatibility(
    new_query: Features,
    new_gallery: Features,
    old_query: Features,
    old_gallery: Features,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    *,
    independent: Independent | None = None,
    metric: str = "cosine",
    max_rank: int = 50,
    fractions: Sequence[float] = (0, 0.25, 0.5, 0.75, 1),
    seed: int = 0,
    dimensions: str = "error",
    on_no_match: str = "skip",
    memory_mb: float = 512,
    return_top: int = 0,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> CompatibilityResult:
    """Measures whether a new model can be put before a gallery that an old one encoded.

    Shen et al., CVPR 2020 (cross test, update gain) and Yan et al., CVPR 2021 (negative flips) [paper]. With M(q, g)
    the score of queries by the model q in a gallery by the model g, in mAP and in CMC-1::

        compatible   iff M(new, old) > M(old, old)
        update gain  = (M(new, old) - M(old, old)) / (M(ind, ind) - M(old, old))
        backfill     M(new, g_r), g_r the old gallery with a random part r of its images by the new model

    Descriptors are always L2-normalised here, both sides and whatever the caller has done to them: an old gallery is
    compared with rows of the new model, and neither may win by its length. Parts r are nested and drawn image by
    image; r = 0 is the cross test and r = 1 the self test. A flip is negative when the nearest image was right under
    M(old, old) and is wrong now. Where dimensions differ and a rule is declared, the old test is of whole old
    descriptors, and all others are in the dimension compared [ours].

    Args:
        new_query: descriptors by the new model, shape (Q, D), any real dtype.
        new_gallery: shape (G, D); also a memory map or anything else with a shape and slices, as all galleries.
        old_query: of the same images by the old model, shape (Q, D').
        old_gallery: shape (G, D').
        query_pids: identities, shape (Q,).
        gallery_pids: identities, shape (G,).
        query_camids: cameras, shape (Q,).
        gallery_camids: cameras, shape (G,).
        independent: for the update gain, a new model trained without regard to the old one: its (query, gallery)
            descriptors, the result of its test, or its (mAP, CMC-1).
        metric: 'cosine', or 'euclidean' of the unit vectors, which ranks alike.
        max_rank: length of the CMC, clipped to G.
        fractions: parts r, rising from 0 to 1.
        seed: of the order of re-encoding.
        dimensions: where D and D' differ: 'error', 'truncate' (the first dimensions of the longer ones) or 'pad' (zeros
            behind the shorter ones), before they are normalised.
        on_no_match: queries without a match count nowhere ('skip'), or are an error ('error').
        memory_mb: MiB for each ranking beside the input and the results.
        return_top: how many of the nearest gallery indices to keep per query in each result.
        device: where to compute; that of the new gallery, if it is a tensor, by default.
        progress: called with the number of queries ranked so far and in all.

    Raises:
        ValueError: the input does not fit together, a row is zero or not finite, dimensions differ without a rule,
            fractions do not rise from 0 to 1, or no query has a match.

    Example:
        >>> import numpy as np
        >>> old = np.array([[1.0, 0.2], [0.0, 1.0], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
        >>> new = np.eye(3)[:, :2] + 0.1, np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]])
        >>> labels = [0, 1, 2], [0, 1, 2], [0, 0, 0], [1, 1, 1]
        >>> result = compatibility(*new, *old, *labels, fractions=(0, 1))
        >>> result.compatible, result.cross_test.rank(1), result.backfill.points[0].positive.tolist()
        (False, 1.0, [])
    """
    parts = check_fractions(fractions)
    features, given = _read_independent(independent)
    sides = {"new": (new_query, new_gallery), "old": (old_query, old_gallery)}
    if features is not None:
        sides["independent"] = features
    require_same_images(sides)
    dims = dimension_of("new", *sides["new"]), dimension_of("old", *sides["old"])
    dim = common_dimension(*dims, dimensions)
    device = device_of(new_gallery, device)
    new, old = (normalized_sides(name, *sides[name], device, dim) for name in ("new", "old"))
    whole = old if dims[1] == dim else normalized_sides("old", *sides["old"], device)
    alone = None if features is None else normalized_sides("independent", *features, device)
    stranger = None if alone is None else _independent_vs_old(alone[0], whole[1], dimensions)
    rank = Rankings(
        (query_pids, gallery_pids, query_camids, gallery_camids),
        3 + (alone is not None) + (stranger is not None) + rankings_between(parts, len(new[1])),
        progress,
        metric=metric,
        max_rank=max_rank,
        on_no_match=on_no_match,
        memory_mb=memory_mb,
        return_top=return_top,
        device=device,
    )
    tests = rank(*whole), rank(new[0], old[1]), rank(*new)
    best = given if alone is None else Score.of(rank(*alone))
    cross = None if stranger is None else Score.of(rank(*stranger))
    gain = update_gain(Score.of(tests[1]), Score.of(tests[0]), best)
    curve = backfill_curve(lambda gallery: rank(new[0], gallery), (old[1], new[1]), tests, parts, seed)
    return CompatibilityResult(*tests, best, cross, gain, curve, (*dims, dim))


def _independent_vs_old(
    query: NormalizedRows, old_gallery: NormalizedRows, rule: str
) -> tuple[NormalizedRows, NormalizedRows] | None:
    """Queries by the independent model and the old gallery in one dimension; None where no rule makes them so."""
    dims = query.shape[1], old_gallery.shape[1]
    if dims[0] != dims[1] and rule == "error":
        return None
    dim = common_dimension(*dims, rule)
    return query.resized(dim), old_gallery.resized(dim)


def _read_independent(independent: Independent | None) -> tuple[tuple[Features, Features] | None, Score | None]:
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
