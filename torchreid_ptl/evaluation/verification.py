"""Same person or not: a threshold on the distance of two images, and its errors."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .arrays import Booleans, Integers, inside, slices
from .blocks import Plan, make_plan
from .descriptors import Descriptors
from .distances import Distances, FeatureDistances
from .error_rates import ErrorRates, equal_width
from .float_histogram import FloatHistogram
from .labels import PairLabels
from .options import DEFAULTS, EvaluationOptions
from .ranking import GivenDistances, as_distances
from .verification_result import LEAST_TAR, ThresholdAtFar, VerificationResult

_ROC_POINTS = 2000
_LEAST_IDENTITIES = 4
# Pairs of which those of one identity are listed at once; 40 bytes each, should it be all of them.
_LISTED_PAIRS = 2**20
# Groups of pairs: first half of the queries' identities or second (+ 1), first half of the gallery's or second (+ 2).
_GROUPS, _FIRST, _SECOND = 4, 0, 3


def verify(
    query: Descriptors,
    gallery: Descriptors,
    options: EvaluationOptions = DEFAULTS,
    *,
    far: float = 1e-3,
    fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4),
    distances: GivenDistances | None = None,
) -> VerificationResult:
    """Decides for each query and gallery image whether they show one person, and counts the errors.

    TAR at a FAR as Klare et al., CVPR 2015 (IJB-A), pairs as Zheng et al., ICCV 2015 (Market-1501) [paper]. A
    threshold that is measured on identities it was not chosen on is [ours].

    Genuine pairs show one identity by two cameras, impostor pairs two identities; one identity by one camera is junk.
    With all pairs at a distance below t taken for one person::

        FAR(t) = share of impostor pairs < t        TAR(t) = share of genuine pairs < t        FRR = 1 - TAR

    For the threshold at `far` the identities are shuffled and halved, those with genuine pairs and those without
    apart. It is the largest one with FAR <= `far` over the pairs inside the first half; reported is what it does to
    the pairs inside the second half. It is recommended if it accepts half of the genuine pairs there, or more [ours].
    All other figures are of all pairs.

    Pairs are not kept, but counted in fine bins. Thresholds are therefore starts of bins, about 2**-11 of their value
    apart; the rates at them are exact.

    Args:
        query: Q images.
        gallery: G images.
        options: metric, seed of the shuffled identities, device, and MiB for blocks of distances, to which the counts
            add up to about 150. Distances are those before re-ranking.
        far: false accept rate for which a threshold is chosen.
        fars: false accept rates at which the true accept rate is reported.
        distances: shape (Q, G), to decide by instead of those of the descriptors.

    Raises:
        ValueError: the input does not fit together or is not finite, a rate is not between 0 and 1, or there are no
            genuine or no impostor pairs.

    Example:
        >>> people, cameras = np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
        >>> images = Descriptors(np.stack([people, cameras / 2], axis=1), people, cameras)
        >>> print(verify(images, images, far=0.05, fars=[0.05, 0.001]))
        same person: squared Euclidean distance (metric euclidean) below a threshold
        16 genuine and 224 impostor pairs
        EER 0.00% at 1
        FAR 5%: TAR 100.00% at 1
        FAR 0.1%: too few impostor pairs to measure it, 1000 needed
        threshold at FAR 5%: squared Euclidean distance 1, chosen on half of the identities (TAR 100.00% there);
        on the other half FAR 0%, TAR 100.00% of 8 genuine and 48 impostor pairs
    """
    for rate in (far, *fars):
        if not 0 < rate < 1:
            raise ValueError(f"a false accept rate must lie between 0 and 1, got {rate}; give 0.001 for 0.1%")
    matrix = as_distances(query, gallery, options, distances)
    labels = PairLabels(query, gallery)
    _check_pairs(labels)
    plan = make_plan(matrix.shape, options.memory_mb, matrix.device)
    bins, genuine, impostor = _count(matrix, labels, halve_identities(labels, options.seed), plan)
    at_far, why_none = _choose(bins, genuine, impostor, far, len(_matched(labels)))
    rates = ErrorRates(bins, genuine.sum(1), impostor.sum(1))
    equal, drawn = rates.eer_index(), rates.curve_indices(_ROC_POINTS)
    at = {float(each): rates.largest_within(each) for each in fars}
    edges, (genuine_shares, impostor_shares) = equal_width(bins, genuine.sum(1), impostor.sum(1))
    return VerificationResult(
        metric=matrix.metric if isinstance(matrix, FeatureDistances) else "given",
        genuine_pairs=rates.genuine_pairs,
        impostor_pairs=rates.impostor_pairs,
        roc_thresholds=rates.thresholds[drawn],
        roc_far=rates.far[drawn],
        roc_tar=rates.tar[drawn],
        tar_at_far={each: None if index is None else rates.operating(index) for each, index in at.items()},
        eer=float(rates.far[equal] + 1 - rates.tar[equal]) / 2,
        eer_threshold=float(rates.thresholds[equal]),
        at_far=at_far,
        why_none=why_none,
        histogram_edges=edges,
        genuine_histogram=genuine_shares,
        impostor_histogram=impostor_shares,
    )


def halve_identities(labels: PairLabels, seed: int) -> tuple[Booleans, Booleans]:
    """Whether the identity of each query (Q,) and gallery image (G,) is in the second half of a random split.

    Identities with genuine pairs and those without are halved apart.
    """
    matched = _matched(labels)
    others = np.setdiff1d(np.union1d(labels.query_pids, labels.gallery_pids), matched)
    shuffle = np.random.default_rng(seed).permutation
    second = np.concatenate([shuffle(kind)[(len(kind) + 1) // 2 :] for kind in (matched, others)])
    return np.isin(labels.query_pids, second), np.isin(labels.gallery_pids, second)


def _matched(labels: PairLabels) -> Integers:
    """The identities that have genuine pairs."""
    return np.unique(np.delete(labels.query_pids, labels.without_match()))


def _check_pairs(labels: PairLabels) -> None:
    everyone = np.arange(len(labels.query_pids))
    if not len(_matched(labels)):
        raise ValueError(
            f"no genuine pair: none of the {len(everyone)} queries has a match in another camera: "
            f"{labels.explain(everyone)}; check the labels"
        )
    identities = np.union1d(labels.query_pids, labels.gallery_pids)
    if len(identities) == 1:
        raise ValueError(f"no impostor pair: all images are of identity {identities[0]}; give at least two identities")


@torch.no_grad()
def _count(
    distances: Distances, labels: PairLabels, second: tuple[Booleans, ...], plan: Plan
) -> tuple[Integers, Integers, Integers]:
    """The bins (U,) that hold pairs, and the genuine and impostor pairs in them by group, shape (U, 4) each."""
    genuine, impostor = FloatHistogram(_GROUPS), FloatHistogram(_GROUPS)
    buffer = plan.buffer(distances.device)
    of_query, of_gallery = (
        torch.from_numpy(side.astype(np.int32) * step).to(distances.device)
        for side, step in zip(second, (1, 2), strict=True)
    )
    for rows in plan.row_blocks():
        for tile in plan.tiles():
            block = distances.block(rows, tile, buffer)
            impostor.add(block, of_query[rows], of_gallery[tile])
            for values, groups, matches in _same_identity(block, labels, rows, tile, (of_query, of_gallery)):
                impostor.add(values, groups, sign=-1)
                genuine.add(values[matches], groups[matches])
    used = np.flatnonzero((genuine.counts + impostor.counts).any(axis=1))
    return used, genuine.counts[used], impostor.counts[used]


def _same_identity(
    block: Tensor, labels: PairLabels, rows: slice, tile: slice, groups: tuple[Tensor, Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of pairs of one identity, of a few rows at a time: distances (P, 1), groups (P,), whether they match (P,)."""
    for part in slices(rows, max(1, _LISTED_PAIRS // len(labels.gallery_pids))):
        owners, columns, junk = labels.same_identity(part)
        within = inside(columns, tile)
        found = owners[within] + part.start, columns[within], ~junk[within]
        queries, images, matches = (torch.from_numpy(each).to(block.device) for each in found)
        values = block[queries - rows.start, images - tile.start]
        yield values[:, None], groups[0][queries] + groups[1][images], matches


def _choose(
    bins: Integers, genuine: Integers, impostor: Integers, far: float, identities: int
) -> tuple[ThresholdAtFar | None, str]:
    """A threshold chosen on the first half and measured on the second, or None; and why it is not recommended."""
    if identities < _LEAST_IDENTITIES:
        return None, f"halves need {_LEAST_IDENTITIES} identities with a match in another camera, got {identities}"
    first, second = (ErrorRates(bins, genuine[:, group], impostor[:, group]) for group in (_FIRST, _SECOND))
    if not (first.impostor_pairs and second.impostor_pairs):
        return None, "one half of the identities has no impostor pair"
    index = first.largest_within(far)
    if index is None:
        return None, (
            f"a false accept rate of {far:g} is less than one of the {first.impostor_pairs} impostor pairs that it "
            "would be chosen on; ask for a larger one"
        )
    threshold = float(first.thresholds[index])
    found = ThresholdAtFar(threshold, float(far), first.measured(index), second.measured(index))
    tar = found.reported.tar
    if tar >= LEAST_TAR:
        return found, ""
    return found, (
        f"the one at FAR {far:g} accepts {tar:.2%} of the genuine pairs that it was not chosen on, less than "
        f"{LEAST_TAR:.0%}; ask for a larger rate, or use a better model"
    )
