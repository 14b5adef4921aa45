"""Files of a comparison of versions: results.json, matrices, scores of each query, pictures and report.html."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..evaluation import VersionComparison
from ..evaluation.comparison import Update
from ..evaluation.version_matrix import FIGURES
from ..runtime.files import replace_file, safe_name
from ..runtime.tables import as_csv
from .compatibility_page import backfill_of, matrices_of, matrix_page, update_page
from .files import provenance, write_json, write_page, write_queries
from .visual import Report, draw_backfill, draw_version_matrix, save_figure


def write_comparison(
    targets: Sequence[VersionComparison],
    origins: Mapping[str, Mapping[str, str]],
    config: CfgNode,
    folder: Path,
    seconds: float,
    *,
    settings: Mapping[str, Any],
    bad_images: Iterable[str] = (),
) -> list[Path]:
    """Writes all results of a comparison of versions.

    Args:
        targets: the comparison on each data set.
        origins: where the descriptors of each version come from, by name; with the independent model.
        config: the final configuration.
        folder: ``data.save_dir``.
        seconds: wall-clock time of the comparison.
        settings: of the comparison.
        bad_images: images that could not be read and were left out.

    Returns:
        The files, the results first.
    """
    facts = provenance(config, seconds)
    content = {
        "versions": {name: dict(origin) for name, origin in origins.items()},
        "targets": {measured.name: _scores(measured) for measured in targets},
        "bad_images": sorted(set(bad_images)),
        "settings": dict(settings),
    }
    written = [write_json(folder, content, facts, config)]
    pages = []
    for measured in targets:
        written += _write_matrix(measured, folder)
        pages.append(matrix_page(measured))
        for update in measured.updates:
            written += _write_update(measured, update, folder)
            pages.append(update_page(measured, update, config.eval.rank_list_queries))
    names = ", ".join(measured.name for measured in targets)
    title = f"Compatibility of {len(targets[0].matrix.names)} versions on {names}"
    sources = {name: ", ".join(f"{key} {value}" for key, value in origin.items()) for name, origin in origins.items()}
    report = Report(title, pages, overview=("Overview", "part"))
    return [*written, write_page(folder, report, {**sources, **settings, **facts}, config)]


def _scores(measured: VersionComparison) -> dict[str, Any]:
    return {
        "queries": len(measured.query),
        "gallery": len(measured.gallery),
        "matrix": measured.matrix.as_dict(),
        "updates": [{"old": update.old, "new": update.new, **update.result.as_dict()} for update in measured.updates],
    }


def _write_matrix(measured: VersionComparison, folder: Path) -> list[Path]:
    matrix, stem = measured.matrix, f"matrix_{safe_name(measured.name)}"
    paths = [folder / f"{stem}{ending}" for ending in (".csv", ".md", ".png")]
    rows = [[figure, name, *scores] for figure in FIGURES for name, scores in matrix.rows(figure)]
    replace_file(paths[0], as_csv([["figure", "query", *matrix.names], *rows]).encode())
    replace_file(paths[1], matrix.as_markdown().encode())
    save_figure(paths[2], draw_version_matrix(*matrices_of(matrix)["mAP"], "mAP"))
    return paths


def _write_update(measured: VersionComparison, update: Update, folder: Path) -> list[Path]:
    """The backfill curve, and the rank of the first match by the old system and along the backfill for each query."""
    which = f"{safe_name(measured.name)}_{update.old}_{update.new}"
    picture = folder / f"backfill_{which}.png"
    save_figure(picture, draw_backfill(*backfill_of(update.result)))
    points = update.result.backfill.points
    flips = [""] * len(measured.query)
    for kind in ("negative", "positive"):
        for index in getattr(points[0], kind).tolist():
            flips[index] = kind
    ranks = {"old": update.result.old_test, **{f"{point.fraction:g}": point.result for point in points}}
    hits = {f"first_hit_{name}": [hit or "" for hit in test.first_hit.tolist()] for name, test in ranks.items()}
    return [picture, write_queries(folder / f"queries_{which}.csv", measured.query, {"flip": flips, **hits})]
