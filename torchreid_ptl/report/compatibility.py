"""Results of a comparison of versions: results.json, matrices, scores of each query, pictures and report.html."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from yacs.config import CfgNode

from ..config.loading import flatten
from ..evaluation import CompatibilityResult, VersionComparison
from ..evaluation.comparison import Update
from ..evaluation.result import Score
from ..evaluation.version_matrix import FIGURES
from ..runtime.files import replace_file, safe_name
from ..runtime.tables import as_csv
from .files import provenance, write_json, write_page, write_queries
from .target import describe_query, has_images, matches_of, path_of
from .visual import Comparison, Report, TargetReport, draw_backfill, draw_version_matrix, render

SHOWN = 5
"""Images in a rank list."""
_BY_VERSION = ": queries by version, galleries by version"


def write_comparison(
    targets: Sequence[VersionComparison],
    origins: Mapping[str, Mapping[str, Any]],
    config: CfgNode,
    folder: Path,
    seconds: float,
    *,
    settings: Mapping[str, Any],
    bad_images: Iterable[str] = (),
) -> list[Path]:
    """Writes all results of a comparison of versions on each data set; returns the files, ``results.json`` last.

    ``origins`` says where the descriptors of each version, and of the independent model, come from; ``seconds`` is the
    wall-clock time; ``bad_images`` could not be read and were left out.
    """
    facts = provenance(config, seconds)
    content = {
        "versions": {name: dict(origin) for name, origin in origins.items()},
        "targets": {measured.name: _scores(measured) for measured in targets},
        "bad_images": sorted(set(bad_images)),
        "settings": dict(settings),
    }
    written: list[Path] = []
    pages = []
    for measured in targets:
        pages.append(_matrix_page(measured))
        written += _write_matrix(measured, folder, pages[-1])
        for update in measured.updates:
            pages.append(_update_page(measured, update, config.eval.rank_list_queries))
            written += _write_update(measured, update, folder, pages[-1])
    names = ", ".join(measured.name for measured in targets)
    title = f"Compatibility of {len(targets[0].matrix.names)} versions on {names}"
    sources = {name: ", ".join(f"{key} {value}" for key, value in flatten(origin)) for name, origin in origins.items()}
    report = Report(title, pages, overview=("Overview", "part"))
    written.append(write_page(folder, report, {**sources, **settings, **facts}, config))
    return [*written, write_json(folder, content, facts, config)]


def _scores(measured: VersionComparison) -> dict[str, Any]:
    return {
        "queries": len(measured.query),
        "gallery": len(measured.gallery),
        "matrix": measured.matrix.as_dict(),
        "updates": [{"old": update.old, "new": update.new, **update.result.as_dict()} for update in measured.updates],
    }


def _write_matrix(measured: VersionComparison, folder: Path, page: TargetReport) -> list[Path]:
    matrix, stem = measured.matrix, f"matrix_{safe_name(measured.name)}"
    paths = [folder / f"{stem}{ending}" for ending in (".csv", ".md", ".png")]
    rows = [[figure, name, *scores] for figure in FIGURES for name, scores in matrix.rows(figure)]
    replace_file(paths[0], as_csv([["figure", "query", *matrix.names], *rows]).encode())
    replace_file(paths[1], matrix.as_markdown().encode())
    replace_file(paths[2], dict(page.pictures)["mAP" + _BY_VERSION])
    return paths


def _write_update(measured: VersionComparison, update: Update, folder: Path, page: TargetReport) -> list[Path]:
    """The backfill curve, and the rank of the first match by the old system and along the backfill for each query."""
    which = f"{safe_name(measured.name)}_{update.old}_{update.new}"
    picture = folder / f"backfill_{which}.png"
    replace_file(picture, page.pictures[0][1])
    points = update.result.backfill.points
    flips = [""] * len(measured.query)
    for kind in ("negative", "positive"):
        for index in getattr(points[0], kind).tolist():
            flips[index] = kind
    ranks = {"old": update.result.old_test, **{f"{point.fraction:g}": point.result for point in points}}
    hits = {f"first_hit_{name}": [hit or "" for hit in test.first_hit.tolist()] for name, test in ranks.items()}
    return [picture, write_queries(folder / f"queries_{which}.csv", measured.query, {"flip": flips, **hits})]


def _matrix_page(measured: VersionComparison) -> TargetReport:
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
            (label + _BY_VERSION, render(draw_version_matrix(matrix.names, getattr(matrix, figure), label)))
            for figure, label in FIGURES.items()
        ],
        tables=[
            (label, header, [[name, *map(_percent, scores)] for name, scores in matrix.rows(figure)])
            for figure, label in FIGURES.items()
        ],
    )


def _update_page(measured: VersionComparison, update: Update, count: int) -> TargetReport:
    """One update: its compatibility, its gain, the backfill curve and `count` flipped queries of each kind."""
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
        pictures=[("While the gallery is re-encoded", _draw_backfill(result))],
        tables=[_backfill_table(update)],
        comparisons=_flipped(measured, update, count) if has_images(measured) else {},
    )


def _draw_backfill(result: CompatibilityResult) -> bytes:
    """The backfill curve, with the levels of other systems."""
    curve = result.backfill
    systems = {
        "old system": Score.of(result.old_test),
        "independent": result.independent,
        "independent, old gallery": result.independent_cross,
    }
    levels = {name: {"mAP": score.mAP, "CMC-1": score.cmc1} for name, score in systems.items() if score is not None}
    return render(draw_backfill(curve.fractions, {"mAP": curve.mAP, "CMC-1": curve.cmc1}, levels))


def _notes(measured: VersionComparison, update: Update) -> list[str]:
    result = update.result
    notes = [
        f"Compatible: queries by {update.new} find more in the gallery by {update.old} than those by {update.old}, in "
        f"mAP. By CMC-1: {'yes' if result.compatible_cmc1 else 'no'}."
    ]
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
        return [name, *map(_percent, score), *map(_percent, moved or (None, None))]

    rows = [line(f"old system: all by {update.old}", Score.of(result.old_test))]
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
        rows.append(line("independent: all by it", result.independent))
    if result.independent_cross is not None:
        rows.append(line(f"queries by independent, gallery by {update.old}", result.independent_cross))
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
