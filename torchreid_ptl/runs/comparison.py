"""After backward-compatible training: the comparison of the new model with the old one."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..build.old_model import build_independent
from ..engines import CompatibleObjective, ImagePTLEngine, OldModel
from ..evaluation import Descriptors, EvaluationOptions
from ..report.files import COMPARISON
from .versions import INDEPENDENT, Version, compare_and_write


def compare_with_old(engine: ImagePTLEngine, config: CfgNode, folder: Path) -> list[Path]:
    """Compares the new model with the old one on all targets of a compatible training, into ``comparison/``.

    Args:
        engine: after its last test.
        config: of the run.
        folder: of the run.

    Returns:
        The files; none after another training, or when only features of the old model are left.
    """
    objective = engine.objective
    if not isinstance(objective, CompatibleObjective) or not engine.descriptors:
        return []
    if objective.old_model is None:
        print("The old model is gone: compare with its features of queries and gallery by tools/compatibility.py")
        return []
    started, compat = time.monotonic(), config.compat
    versions = [
        Version(
            "old", {"model": compat.old, "weights": compat.old_weights}, _sides(objective.old_model, engine, config)
        ),
        Version("new", {"model": config.model.name, "weights": str(engine.last_checkpoint)}, dict(engine.descriptors)),
    ]
    if compat.independent:
        origin = {"model": config.model.name, "weights": compat.independent}
        independent = build_independent(config, engine.datamanager)
        versions.append(Version(INDEPENDENT, origin, _sides(independent, engine, config)))
    return compare_and_write(versions, config, folder / COMPARISON, objective.dimensions, started=started)


def _sides(model: OldModel, engine: ImagePTLEngine, config: CfgNode) -> dict[str, tuple[Descriptors, Descriptors]]:
    loading = {"batch_size": config.test.batch_size, "workers": config.data.workers}
    policy = config.data.on_bad_image
    options = EvaluationOptions.of(flip=config.eval.flip, precision=config.eval.precision)

    def described(loaders: Mapping[str, Any], target: str, side: str) -> Descriptors:
        images = loaders[side].dataset.dataset.data
        return model.describe(images, f"{target} {side}", options, on_bad_image=policy, **loading)

    return {
        target: (described(loaders, target, "query"), described(loaders, target, "gallery"))
        for target, loaders in engine.test_loader.items()
    }
