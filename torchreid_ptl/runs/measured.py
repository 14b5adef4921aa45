"""Measures versions of a model against each other on one data set."""

from collections.abc import Sequence
from typing import Any

import torch
from yacs.config import CfgNode

from ..engines import progress_printer
from ..engines.inference import LONG_WORK
from ..evaluation import compatibility, version_matrix
from ..report.compatibility_page import SHOWN, Update, VersionComparison
from ..report.target import FILES
from .versions import INDEPENDENT, Version

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Parts of the gallery that are re-encoded, unless others are asked for."""


def measure(
    target: str, versions: Sequence[Version], config: CfgNode, rule: str, parts: tuple[float, ...] = FRACTIONS
) -> VersionComparison:
    """Compares versions in time order, and prints what was found.

    Args:
        target: the data set, or :data:`FILES`.
        versions: the oldest first; the one called :data:`INDEPENDENT` is measured by itself and
            before the old gallery.
        config: of the test.
        rule: what to do where dimensions differ.
        parts: of the gallery, re-encoded for the backfill curve.
    """
    sides = {version.name: version.sides[target] for version in versions}
    features = {name: (query.features, gallery.features) for name, (query, gallery) in sides.items()}
    alone = features.pop(INDEPENDENT, None)
    # the images are the same, but not every version needs to know their files
    query, gallery = max(sides.values(), key=lambda pair: bool(pair[0].paths and pair[1].paths))
    labels = (query.pids, gallery.pids, query.camids, gallery.camids)
    long = len(query.pids) * len(gallery.pids) > LONG_WORK
    options: dict[str, Any] = {
        "dimensions": rule,
        "on_no_match": config.eval.no_match,
        "memory_mb": config.eval.memory_mb,
        "device": torch.device("cuda" if config.use_gpu else "cpu"),
    }
    matrix = version_matrix(
        features, *labels, **options, progress=progress_printer(f"{target}: all pairs") if long else None
    )
    print(f"{target}\n{matrix}")
    updates, names = [], list(features)
    for old, new in zip(names[:-1], names[1:], strict=True):
        progress = progress_printer(f"{target}: {old} to {new}") if long else None
        options |= {"fractions": parts, "seed": config.train.seed, "return_top": SHOWN, "progress": progress}
        best = alone if new == names[-1] else None
        result = compatibility(*features[new], *features[old], *labels, independent=best, **options)
        updates.append(Update(old, new, result))
        print(f"{target}, {old} to {new}\n{result}")
    return VersionComparison(target, query, gallery, matrix, updates, first_camera=int(target != FILES))
