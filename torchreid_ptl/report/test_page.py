"""The part of the report of a run on one data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from yacs.config import CfgNode

from ..evaluation import VerificationResult
from .target import TargetResult, camera_of, chosen_rows, has_images, path_of
from .visual import QueryScore, TargetReport, choose_worst, draw_cmc, draw_roc, draw_score_histogram, render

_WORST = 20


def settings_of_test(config: CfgNode) -> dict[str, Any]:
    """The settings that decide the scores."""
    keys = {f"test.{key}": config.test[key] for key in ("dist_metric", "normalize_feature", "rerank")}
    return {**keys, "cuhk03.use_metric_cuhk03": config.cuhk03.use_metric_cuhk03}


def test_page(tested: TargetResult, config: CfgNode, given: Sequence[int]) -> TargetReport:
    """One tested data set.

    Args:
        tested: its results.
        config: of the test.
        given: queries to show instead of those that ``eval.rank_lists`` chooses.
    """
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
    pictures = [("Cumulative matching characteristic", render(draw_cmc({tested.name: tested.result.cmc})))]
    found = tested.verification
    if found is None:
        return pictures
    histogram = draw_score_histogram(**histogram_of(found))
    roc = draw_roc(*roc_of(tested.name, found), eer=True)
    return [
        *pictures,
        ("Distances of pairs, and the recommended threshold", render(histogram)),
        ("Receiver operating characteristic", render(roc)),
    ]


def histogram_of(found: VerificationResult) -> dict[str, Any]:
    """What the histogram of scores is drawn from."""
    return {
        "edges": found.histogram_edges,
        "genuine": found.genuine_histogram,
        "impostor": found.impostor_histogram,
        "threshold": found.recommended and found.recommended.threshold,
        "unit": found.unit,
    }


def roc_of(name: str, found: VerificationResult) -> tuple[Any, Any]:
    """What the ROC curve is drawn from: the curve, and the points asked for."""
    points = [(point.far, point.tar) for point in found.tar_at_far.values() if point and point.far > 0]
    return {name: (found.roc_far, found.roc_tar)}, {name: points}


def _tables(found: VerificationResult) -> list[Any]:
    rows: list[list[object]] = []
    for far, point in found.tar_at_far.items():
        asked = f"{far:.4g}"
        if point is None:
            rows.append([asked, "too few pairs", "", ""])
        else:
            rows.append([asked, f"{point.far:.3g}", f"{point.tar:.2%}", f"{point.threshold:.6g}"])
    pairs = f"{found.genuine_pairs:,} genuine and {found.impostor_pairs:,} impostor pairs"
    caption = f"Same person if the {found.unit} is below a threshold: {pairs}; EER {found.eer:.2%}"
    tables: list[Any] = [(caption, ["FAR asked", "FAR reached", "TAR", "threshold"], rows)]
    best = found.recommended
    if best is None:
        return [*tables, ("Recommended threshold", ["none, because"], [[found.why_none]])]
    halves = [("chosen on half of the identities", best.chosen), ("measured on the other half", best.reported)]
    lines = [
        [name, f"{half.far:.3g}", f"{half.tar:.2%}", half.genuine_pairs, half.impostor_pairs] for name, half in halves
    ]
    title = f"Recommended threshold {best.threshold:.6g}, for FAR {best.asked:.4g}"
    return [*tables, (title, ["", "FAR", "TAR", "genuine pairs", "impostor pairs"], lines)]
