"""One tested data set: descriptors, ranking, verification, and the part of the report on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from yacs.config import CfgNode

from ..evaluation import Descriptors, EvaluationOptions, RankingResult, VerificationResult, VersionComparison, verify
from .visual import CHOICES, Match, QueryScore, RankRow, TargetReport, choose_queries, choose_worst
from .visual.curves import draw_cmc, render
from .visual.scores import draw_roc, draw_score_histogram

FILES = "features"
"""The target's name when descriptors come from files."""
_WORST = 20  # queries in the table of the report


@dataclass(frozen=True)
class TargetResult:
    """Results of the test on one data set.

    Attributes:
        name: of the data set.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        result: the ranking, with the nearest images of each query.
        verification: errors of a threshold; None if they cannot be measured.
        reason: why they cannot.
    """

    name: str
    query: Descriptors
    gallery: Descriptors
    result: RankingResult
    verification: VerificationResult | None
    reason: str = ""


def add_verification(
    name: str, query: Descriptors, gallery: Descriptors, result: RankingResult, config: CfgNode
) -> TargetResult:
    """Adds the verification to a ranking; a set of images that allows none is no error."""
    options = EvaluationOptions(metric=config.test.dist_metric, seed=config.train.seed, memory_mb=config.eval.memory_mb)
    try:
        verification = verify(query, gallery, options, far=config.eval.far)
    except ValueError as error:
        return TargetResult(name, query, gallery, result, None, str(error))
    return TargetResult(name, query, gallery, result, verification)


def has_images(found: TargetResult | VersionComparison) -> bool:
    """Whether the files of the images are known, so that they can be shown."""
    return bool(found.query.paths and found.gallery.paths)


def chosen_rows(tested: TargetResult, config: CfgNode, given: Sequence[int] = ()) -> tuple[str, list[RankRow]]:
    """Rank lists of the queries that ``eval.rank_lists`` chooses, or of those given; and in words which these are."""
    how = "given" if len(given) else config.eval.rank_lists
    chosen = choose_queries(
        tested.result, how, config.eval.rank_list_queries, seed=config.train.seed, given=np.asarray(given, dtype=int)
    )
    return CHOICES[how], [_row(tested, int(index)) for index in chosen]


def check_shown(shown: Sequence[int], queries: int, name: str) -> None:
    """Makes sure the queries to be shown are there, before anything is computed.

    Raises:
        ValueError: an index out of range.
    """
    beyond = [index for index in shown if not 0 <= index < queries]
    if beyond:
        raise ValueError(f"--show counts the {queries} queries of {name} from 0 to {queries - 1}; got {beyond}")


def path_of(side: Descriptors, index: int) -> str:
    """An image's file; its number where files are not known."""
    return side.paths[index] if side.paths else f"image {index}"


def camera_of(found: TargetResult | VersionComparison, side: Descriptors, index: int) -> int:
    """An image's camera as file names of data sets count it, from 1; that of files of features as it is there."""
    return int(side.camids[index]) + (found.name != FILES)


def describe_query(found: TargetResult | VersionComparison, index: int) -> str:
    """A query's number, identity and camera in words."""
    return f"query {index}: identity {found.query.pids[index]}, camera {camera_of(found, found.query, index)}"


def matches_of(found: TargetResult | VersionComparison, result: RankingResult, index: int) -> list[Match]:
    """The nearest images of a query."""
    assert result.top is not None
    assert result.top_distances is not None
    gallery, pid = found.gallery, found.query.pids[index]
    return [
        Match(path_of(gallery, g), bool(gallery.pids[g] == pid), distance, camera_of(found, gallery, g))
        for g, distance in zip(result.top[index].tolist(), result.top_distances[index].tolist(), strict=True)
        if g >= 0
    ]


def _row(tested: TargetResult, index: int) -> RankRow:
    score = 100 * tested.result.average_precision[index]
    caption = f"{describe_query(tested, index)}, AP {score:.1f} %"
    return RankRow(path_of(tested.query, index), caption, matches_of(tested, tested.result, index))


def settings_of_test(config: CfgNode) -> dict[str, Any]:
    """The settings that decide the scores."""
    keys = {f"test.{key}": config.test[key] for key in ("dist_metric", "normalize_feature", "rerank")}
    return {**keys, "cuhk03.use_metric_cuhk03": config.cuhk03.use_metric_cuhk03}


def target_page(tested: TargetResult, config: CfgNode, given: Sequence[int]) -> TargetReport:
    """One tested data set, with rank lists as :func:`chosen_rows` gives them."""
    result = tested.result
    ranks = [rank for rank in config.test.ranks if rank <= len(tested.gallery.pids)]
    how, rows = chosen_rows(tested, config, given) if has_images(tested) else ("", [])
    return TargetReport(
        name=tested.name,
        scores={
            "mAP": f"{result.mAP:.2%}",
            "mINP": f"{result.mINP:.2%}",
            **{f"rank-{rank}": f"{result.rank(rank):.2%}" for rank in ranks},
        },
        counts=_counts(tested),
        notes=_notes(tested, config),
        rank_heading=f"Queries and what was retrieved: {how}",
        rank_rows=rows,
        worst=_worst(tested),
        pictures=_pictures(tested),
        tables=[] if tested.verification is None else _tables(tested.verification),
    )


def _counts(tested: TargetResult) -> dict[str, int]:
    query, gallery = tested.query, tested.gallery
    return {
        "queries": len(query.pids),
        "gallery images": len(gallery.pids),
        "identities": len(np.unique(query.pids)),
        "cameras": len(np.unique(np.concatenate([query.camids, gallery.camids]))),
        "queries without match": len(tested.result.skipped),
    }


def _notes(tested: TargetResult, config: CfgNode) -> list[str]:
    notes = []
    if len(tested.result.skipped):
        notes.append("Queries without a match in another camera count in no score.")
    if tested.result.shots is not None:
        notes.append("Ranks are of CUHK03's single-gallery-shot protocol; mAP and mINP are of the whole gallery.")
    if config.test.rerank:
        notes.append(
            "Ranked after k-reciprocal re-ranking, whose distances depend on the gallery; thresholds are on the "
            "distances before it."
        )
    if not has_images(tested):
        notes.append("No rank lists are shown: the files of features do not name the images (paths).")
    if tested.reason:
        notes.append(f"No threshold: {tested.reason}")
    return notes


def _worst(tested: TargetResult) -> list[QueryScore]:
    query, result = tested.query, tested.result
    return [
        QueryScore(
            path_of(query, index),
            int(query.pids[index]),
            camera_of(tested, query, index),
            float(result.average_precision[index]),
            int(result.first_hit[index]),
        )
        for index in choose_worst(result, _WORST).tolist()
    ]


def _pictures(tested: TargetResult) -> list[tuple[str, bytes]]:
    """The CMC curve and, where a threshold was measured, the histogram of scores and the ROC curve."""
    pictures = [("Cumulative matching characteristic", draw_cmc({tested.name: tested.result.cmc}))]
    if found := tested.verification:
        bins = found.histogram_edges, found.genuine_histogram, found.impostor_histogram
        threshold = found.at_far.threshold if found.at_far else None
        points = [(point.far, point.tar) for point in found.tar_at_far.values() if point and point.far > 0]
        roc = draw_roc({tested.name: (found.roc_far, found.roc_tar)}, {tested.name: points}, eer=True)
        pictures += [
            ("Distances of pairs, and the threshold at FAR", draw_score_histogram(*bins, threshold, found.unit)),
            ("Receiver operating characteristic", roc),
        ]
    return [(caption, render(figure)) for caption, figure in pictures]


def _tables(found: VerificationResult) -> list[Any]:
    rows: list[list[object]] = []
    for far, point in found.tar_at_far.items():
        asked = f"{far:.4g}"
        if point is None:
            rows.append([asked, "too few pairs", "", ""])
        else:
            rows.append([asked, f"{point.far:.3g}", f"{point.tar:.2%}", f"{point.threshold:.6g}"])
    pairs = f"{found.genuine_pairs:,} genuine and {found.impostor_pairs:,} impostor pairs"
    caption = f"Same person if the {found.named_unit} is below a threshold: {pairs}; EER {found.eer:.2%}"
    tables: list[Any] = [(caption, ["FAR asked", "FAR reached", "TAR", "threshold"], rows)]
    if found.why_none:
        tables.append(("No threshold is recommended", ["because"], [[found.why_none]]))
    best = found.at_far
    if best is None:
        return tables
    halves = [("chosen on half of the identities", best.chosen), ("measured on the other half", best.reported)]
    lines = [
        [name, f"{half.far:.3g}", f"{half.tar:.2%}", half.genuine_pairs, half.impostor_pairs] for name, half in halves
    ]
    title = f"Threshold at FAR {best.asked:.4g}: {found.unit} {best.threshold:.6g}"
    return [*tables, (title, ["", "FAR", "TAR", "genuine pairs", "impostor pairs"], lines)]
