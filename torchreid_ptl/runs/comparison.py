"""Comparisons of versions of a model after backward-compatible training, and their files."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize
from yacs.config import CfgNode

from ..build.old_model import build_independent
from ..build.training import test_options
from ..config.recorded import used
from ..engines import CompatibleObjective, ImagePTLEngine
from ..evaluation import Descriptors, EvaluationOptions, RankingResult, VersionComparison, rank
from ..evaluation.backfill import FRACTIONS
from ..report.compatibility import SHOWN, write_comparison
from ..report.files import COMPARISON, begin, run_outputs
from ..runtime.device import device_of

INDEPENDENT = "independent"
"""The name of the model that was trained without the others."""


def comparison_options(config: CfgNode) -> EvaluationOptions:
    """The options of a comparison: always by the cosine of the descriptors."""
    return EvaluationOptions(
        flip=config.eval.flip,
        precision=config.eval.precision,
        no_match=config.eval.no_match,
        memory_mb=config.eval.memory_mb,
        seed=config.train.seed,
        return_top=SHOWN,
        device=device_of(config.use_gpu),
    )


def own_scores(
    name: str, config: CfgNode, sides: Mapping[str, tuple[Descriptors, Descriptors]]
) -> dict[str, dict[str, Any]]:
    """Scores of a version by its own metric, as it has when it is evaluated alone; printed.

    Args:
        name: of the version.
        config: of its test.
        sides: by data set, its descriptors of queries and gallery, not L2-normalised.
    """
    options = EvaluationOptions.of(**test_options(config), device=device_of(config.use_gpu))
    found = {}
    for target, pair in sides.items():
        query, gallery = (
            replace(side, features=normalize(torch.as_tensor(side.features))) if options.normalize else side
            for side in pair
        )
        result = rank(query, gallery, replace(options, return_top=0))
        found[target] = as_alone(name, target, config, result)
    return found


def as_alone(name: str, target: str, config: CfgNode, result: RankingResult) -> dict[str, Any]:
    """The scores of a version by its own metric, beside those by cosine of the comparison; printed."""
    test = config.test
    metric = f"{test.dist_metric}{', L2-normalised' if test.normalize_feature else ''}{', re-ranked' * test.rerank}"
    print(
        f"{name} alone on {target}, by its own metric ({metric}): mAP {result.mAP:.2%}, CMC-1 {result.rank(1):.2%}. "
        "The comparison is by cosine"
    )
    return {"metric": metric, "mAP": result.mAP, "cmc1": result.rank(1)}


def write_all(
    found: Mapping[str, VersionComparison],
    origins: Mapping[str, Mapping[str, Any]],
    config: CfgNode,
    folder: Path,
    dimensions: str,
    *,
    started: float,
    fractions: Sequence[float] = FRACTIONS,
    bad_images: Iterable[str] = (),
    inputs: Sequence[str] = (),
) -> list[Path]:
    """Prints comparisons and writes them.

    Args:
        found: by data set.
        origins: where the descriptors of each version come from, by name.
        config: of the test.
        folder: of the files; those of an earlier comparison are archived.
        dimensions: the rule where dimensions differ.
        started: when the work began, by ``time.monotonic()``.
        fractions: parts of the gallery that were re-encoded.
        bad_images: that could not be read.
        inputs: files that were read and stay in place.

    Returns:
        The files.
    """
    for comparison in found.values():
        print(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    begin(folder, config, run_outputs(folder, inputs))
    seconds, settings = time.monotonic() - started, {"dimensions": dimensions, "fractions": list(fractions)}
    return write_comparison(
        list(found.values()), origins, config, folder, seconds, settings=settings, bad_images=bad_images
    )


def compare_after_training(engine: ImagePTLEngine, config: CfgNode, folder: Path) -> list[Path]:
    """Compares the new model with the old one on all targets of a compatible training, into ``comparison/``.

    Args:
        engine: after its last test.
        config: of the run.
        folder: of the run.

    Returns:
        The files; none after another training, or without the old model.
    """
    objective = engine.objective
    if not isinstance(objective, CompatibleObjective) or not engine.descriptors:
        return []
    if objective.old_model is None:
        print("No old model to compare with: give its features of queries and gallery to torchreid_ptl compatibility")
        return []
    started, compat, name = time.monotonic(), config.compat, config.model.name
    alone = {target: as_alone("new", target, config, result) for target, result in engine.results.items()}
    origins: dict[str, dict[str, Any]] = {
        "old": {"model": compat.old, "weights": compat.old_weights},
        "new": {"model": name, "weights": str(engine.last_checkpoint), "settings": used(config), "alone": alone},
    }
    independent = None
    if compat.independent:
        origins[INDEPENDENT] = {"model": name, "weights": compat.independent}
        independent = build_independent(config, engine.datamanager)
    options, rule = comparison_options(config), objective.dimensions
    found = engine.compare(objective.old_model, independent, options=options, dimensions=rule)
    return write_all(
        found, origins, config, folder / COMPARISON, rule, started=started, bad_images=set(engine.bad_images)
    )
