"""The parts of the report of a comparison of versions."""

import math
from typing import Any

import numpy as np

from ..evaluation import CompatibilityResult, VersionComparison, VersionMatrix
from ..evaluation.comparison import Update
from ..evaluation.result import Score
from ..evaluation.version_matrix import FIGURES
from .target import describe_query, has_images, matches_of, path_of
from .visual import Comparison, TargetReport, draw_backfill, draw_version_matrix, render

SHOWN = 5
"""Images in a rank list."""


def matrix_page(measured: VersionComparison) -> TargetReport:
    """All versions on a data set: heat maps and tables."""
    matrix = measured.matrix
    mean, share = matrix.AM, matrix.AC
    header = ["queries \\ gallery", *matrix.names]
    return TargetReport(
        name=f"{measured.name}: {len(matrix.names)} versions",
        scores={
            "AC, mAP": f"{share.mAP:.1%}",
            "AM, mAP": f"{mean.mAP:.2%}",
            "AC, CMC-1": f"{share.cmc1:.1%}",
            "AM, CMC-1": f"{mean.cmc1:.2%}",
        },
        counts={"queries": len(measured.query.pids), "gallery images": len(measured.gallery.pids)},
        notes=[
            "AC: share of the pairs of versions in which queries by the newer one find at least as much in the older "
            "one's gallery as its own queries do. AM: mean of all scores on and below the diagonal."
        ],
        pictures=[
            (f"{label}: queries by version, galleries by version", render(draw_version_matrix(*drawn, label)))
            for label, drawn in matrices_of(matrix).items()
        ],
        tables=[
            (label, header, [[name, *map(_percent, scores)] for name, scores in matrix.rows(figure)])
            for figure, label in FIGURES.items()
        ],
    )


def update_page(measured: VersionComparison, update: Update, count: int) -> TargetReport:
    """One update: its compatibility, its gain, the backfill curve and the flipped queries.

    Args:
        measured: what was measured.
        update: which one of it.
        count: flipped queries of each kind to show.
    """
    result = update.result
    gain = result.update_gain
    return TargetReport(
        name=f"{measured.name}: {update.old} to {update.new}",
        scores={
            "compatible": "yes" if result.compatible else "no",
            "old test, mAP": f"{result.old_test.mAP:.2%}",
            "cross test, mAP": f"{result.cross_test.mAP:.2%}",
            "self test, mAP": f"{result.self_test.mAP:.2%}",
            "update gain, mAP": "\u2013" if math.isnan(gain.mAP) else f"{gain.mAP:.3f}",
            "area under backfill, mAP": f"{result.backfill.area.mAP:.2%}",
        },
        notes=_notes(measured, update),
        pictures=[("While the gallery is re-encoded", render(draw_backfill(*backfill_of(result))))],
        tables=[_backfill_table(update)],
        comparisons=_flipped(measured, update, count) if has_images(measured) else {},
    )


def matrices_of(matrix: VersionMatrix) -> dict[str, tuple[tuple[str, ...], Any]]:
    """What heat maps are drawn from, by the name of the score."""
    return {label: (matrix.names, getattr(matrix, figure)) for figure, label in FIGURES.items()}


def backfill_of(result: CompatibilityResult) -> tuple[Any, dict[str, Any], dict[str, dict[str, float]]]:
    """What the backfill curve is drawn from: fractions, curves, and the levels of other systems."""
    curve = result.backfill
    systems = {
        "old system": Score.of(result.old_test),
        "independent": result.independent,
        "independent, old gallery": result.independent_cross,
    }
    levels = {name: {"mAP": score.mAP, "CMC-1": score.cmc1} for name, score in systems.items() if score is not None}
    return curve.fractions, {"mAP": curve.mAP, "CMC-1": curve.cmc1}, levels


def _notes(measured: VersionComparison, update: Update) -> list[str]:
    result, notes = update.result, []
    by_cmc1 = "yes" if result.compatible_cmc1 else "no"
    notes.append(
        f"Compatible: queries by {update.new} find more in the gallery by {update.old} than those by {update.old}, in "
        f"mAP. By CMC-1: {by_cmc1}."
    )
    if result.update_gain.why_none:
        notes.append(f"No update gain: {result.update_gain.why_none}.")
    new, old, compared = result.dimensions
    if new != old:
        notes.append(
            f"{update.new} has {new} dimensions and {update.old} {old}; but for the old test, all is compared in "
            f"{compared}."
        )
    if len(result.cross_test.skipped):
        notes.append(f"{len(result.cross_test.skipped)} queries without a match in another camera count in no score.")
    if not has_images(measured):
        notes.append("No flipped queries are shown: the files of features do not name the images (paths).")
    return notes


def _backfill_table(update: Update) -> Any:
    result = update.result

    def line(name: str, score: Score, *moved: float) -> list[str | None]:
        return [name, *(f"{share:.2%}" for share in score), *(f"{share:.2%}" for share in moved)]

    rows: list[list[str | None]] = [[*line(f"old system: all by {update.old}", Score.of(result.old_test)), None, None]]
    rows += [
        line(
            f"queries by {update.new}, {point.fraction:.0%} of the gallery too",
            Score.of(point.result),
            point.negative_flips,
            point.positive_flips,
        )
        for point in result.backfill.points
    ]
    if result.independent is not None:
        rows.append([*line("independent: all by it", result.independent), None, None])
    if result.independent_cross is not None:
        rows.append([*line(f"queries by independent, gallery by {update.old}", result.independent_cross), None, None])
    area = result.backfill.area
    caption = f"Backfill: area under the curve {area.mAP:.2%} (mAP), {area.cmc1:.2%} (CMC-1)"
    return caption, ["system", "mAP", "CMC-1", "negative flips", "positive flips"], rows


def _flipped(measured: VersionComparison, update: Update, count: int) -> dict[str, list[Comparison]]:
    """Queries that change sides on the old gallery, those whose average precision changes most first."""
    result = update.result
    point = result.backfill.points[0]
    change = result.cross_test.average_precision - result.old_test.average_precision
    kinds = {
        f"Negative flips: right with {update.old}, wrong with queries by {update.new}": (point.negative, change),
        f"Positive flips: wrong with {update.old}, right with queries by {update.new}": (point.positive, -change),
    }
    return {
        f"{heading} ({len(found)} of {len(change)} queries)": [
            _comparison(measured, update, index)
            for index in found[np.argsort(order[found], kind="stable")[:count]].tolist()
        ]
        for heading, (found, order) in kinds.items()
    }


def _comparison(measured: VersionComparison, update: Update, index: int) -> Comparison:
    result = update.result
    scores = [100 * test.average_precision[index] for test in (result.old_test, result.cross_test)]
    caption = f"{describe_query(measured, index)}, AP {scores[0]:.1f} to {scores[1]:.1f} %"
    lists = {
        f"queries and gallery by {update.old}": matches_of(measured, result.old_test, index),
        f"queries by {update.new}, gallery by {update.old}": matches_of(measured, result.cross_test, index),
    }
    return Comparison(path_of(measured.query, index), caption, lists)


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.2%}"
