"""A new model and the gallery of an old one, on the test sets of an engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..evaluation import Descriptors, EvaluationOptions, VersionComparison, compare
from ..evaluation.backfill import FRACTIONS
from .frozen import Preprocessing
from .inference import long_progress
from .old import OldModel

Sides = Mapping[str, tuple[Descriptors, Descriptors]]
"""By data set, descriptors of the queries and of the gallery."""


def compare_engine(
    engine: Any,
    old: nn.Module | OldModel | Sides,
    independent: nn.Module | OldModel | Sides | None = None,
    *,
    options: EvaluationOptions,
    fractions: Sequence[float] = FRACTIONS,
    dimensions: str = "error",
) -> dict[str, VersionComparison]:
    """Compares an engine's model with an old one on each target; see :meth:`ImagePTLEngine.compare`."""
    if not engine.descriptors:
        engine.test(options=options)
    new = engine.descriptors
    sides = _describe(old, engine, options)
    others = None if independent is None else _describe(independent, engine, options)
    return {
        target: compare(
            {"old": sides[target], "new": new[target]},
            options,
            name=target,
            independent=None if others is None else others[target],
            fractions=fractions,
            dimensions=dimensions,
            progress=long_progress(len(new[target][0]) * len(new[target][1]), f"{target}: "),
        )
        for target in new
    }


def _describe(model: nn.Module | OldModel | Sides, engine: Any, options: EvaluationOptions) -> Sides:
    if isinstance(model, nn.Module):
        model = OldModel(model, Preprocessing.of(engine.datamanager), engine.device)
    if not isinstance(model, OldModel):
        return model
    policy, found = getattr(engine.datamanager, "on_bad_image", "error"), {}
    for target, loaders in engine.test_loader.items():
        sides = []
        for side in ("query", "gallery"):
            loader = loaders[side]
            loading = {"batch_size": loader.batch_size, "workers": loader.num_workers, "on_bad_image": policy}
            images = getattr(loader.dataset, "dataset", loader.dataset).data  # the host's has no reader around it
            sides.append(model.describe(images, f"{target} {side}", options, **loading))
        found[target] = (sides[0], sides[1])
    return found
