"""What a comparison of versions leaves: results.json, matrices, scores of each query, pictures and report.html."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..config.loading import to_dict
from ..evaluation import VersionMatrix
from ..evaluation.version_matrix import FIGURES
from ..runs.versions import Version
from ..runtime.files import replace_file, safe_name
from .compatibility_page import Update, VersionComparison, backfill_of, matrices_of, matrix_page, update_page
from .files import provenance
from .target import path_of
from .visual import Report, save_backfill, save_report, save_version_matrix


def leave(
    targets: Sequence[VersionComparison],
    versions: Sequence[Version],
    config: CfgNode,
    folder: Path,
    seconds: float,
    settings: Mapping[str, Any],
) -> list[Path]:
    """Writes everything a comparison leaves.

    Args:
        targets: what was measured.
        versions: of what, with the independent model.
        config: the final configuration.
        folder: ``data.save_dir``.
        seconds: wall-clock time of the command.
        settings: of the comparison.

    Returns:
        The files, the results first.
    """
    facts = provenance(config, seconds)
    content = {
        "versions": {version.name: dict(version.origin) for version in versions},
        "targets": {measured.name: _scores(measured) for measured in targets},
        "bad_images": sorted(
            {path for v in versions for pair in v.sides.values() for s in pair for path in s.bad_images}
        ),
        "settings": dict(settings),
        "provenance": facts,
        "config": to_dict(config),
    }
    path = folder / "results.json"
    replace_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
    written = [path]
    for measured in targets:
        written += _write_matrix(measured, folder)
        for update in measured.updates:
            written += _write_update(measured, update, folder)
    origins = {v.name: ", ".join(f"{key} {value}" for key, value in v.origin.items()) for v in versions}
    return [*written, _write_report(targets, config, folder, {**origins, **settings, **facts})]


def as_csv(matrix: VersionMatrix) -> str:
    """A row for each figure and version's queries, a column for each gallery, in full precision; empty above.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.5, np.nan], [0.625, 0.75]])
        >>> print(as_csv(VersionMatrix(("a", "b"), scores, scores)).splitlines()[:3])
        ['figure,query,a,b', 'mAP,a,0.5,', 'mAP,b,0.625,0.75']
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["figure", "query", *matrix.names])
    for figure in FIGURES:
        writer.writerows([figure, name, *scores] for name, scores in matrix.rows(figure))
    return text.getvalue()


def _scores(measured: VersionComparison) -> dict[str, Any]:
    return {
        "queries": len(measured.query.pids),
        "gallery": len(measured.gallery.pids),
        "matrix": measured.matrix.as_dict(),
        "updates": [{"old": update.old, "new": update.new, **update.result.as_dict()} for update in measured.updates],
    }


def _write_matrix(measured: VersionComparison, folder: Path) -> list[Path]:
    stem = folder / f"matrix_{safe_name(measured.name)}"
    paths = [stem.with_name(f"{stem.name}{ending}") for ending in (".csv", ".md", ".png")]
    replace_file(paths[0], as_csv(measured.matrix).encode())
    replace_file(paths[1], measured.matrix.as_markdown().encode())
    save_version_matrix(paths[2], *matrices_of(measured.matrix)["mAP"], "mAP")
    return paths


def _write_update(measured: VersionComparison, update: Update, folder: Path) -> list[Path]:
    which = f"{safe_name(measured.name)}_{update.old}_{update.new}"
    paths = [folder / f"backfill_{which}.png", folder / f"queries_{which}.csv"]
    save_backfill(paths[0], *backfill_of(update.result))
    replace_file(paths[1], _queries(measured, update).encode("utf-8", "backslashreplace"))
    return paths


def _queries(measured: VersionComparison, update: Update) -> str:
    """A line for each query: rank of the first match by the old system and along the backfill; empty without match."""
    result, query = update.result, measured.query
    points = result.backfill.points
    columns = [result.old_test.first_hit, *(point.result.first_hit for point in points)]
    flipped = {int(index): "negative" for index in points[0].negative}
    flipped |= {int(index): "positive" for index in points[0].positive}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    ranks = ["first_hit_old", *(f"first_hit_{point.fraction:g}" for point in points)]
    writer.writerow(["query", "path", "pid", "camid", "flip", *ranks])
    for index, (pid, camid) in enumerate(zip(query.pids.tolist(), query.camids.tolist(), strict=True)):
        hits = [int(column[index]) or "" for column in columns]
        writer.writerow([index, path_of(query, index), pid, camid, flipped.get(index, ""), *hits])
    return text.getvalue()


def _write_report(
    targets: Sequence[VersionComparison], config: CfgNode, folder: Path, facts: Mapping[str, Any]
) -> Path:
    pages = []
    for measured in targets:
        pages.append(matrix_page(measured))
        pages += [update_page(measured, update, config.eval.rank_list_queries) for update in measured.updates]
    names = ", ".join(measured.name for measured in targets)
    settings = {**facts, **{f"eval.{key}": value for key, value in config.eval.items()}}
    path = folder / "report.html"
    title = f"Compatibility of {len(targets[0].matrix.names)} versions on {names}"
    said = {key: str(value) for key, value in settings.items()}
    save_report(path, Report(title, pages, said, overview=("Overview", "part")))
    return path
