"""A new model before the gallery of an old one, on the test sets of an engine."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..evaluation import Descriptors, EvaluationOptions, VersionComparison, compare
from ..evaluation.backfill import FRACTIONS
from .frozen import Preprocessing
from .inference import progress_of
from .old import OldModel

Sides = Mapping[str, tuple[Descriptors, Descriptors]]


def describe_targets(
    model: OldModel, test_loader: Mapping[str, Any], options: EvaluationOptions, on_bad_image: str = "error"
) -> dict[str, tuple[Descriptors, Descriptors]]:
    """Descriptors of queries and gallery of each target by another model, which reads the images its own way."""
    found = {}
    for target, loaders in test_loader.items():
        sides = []
        for side in ("query", "gallery"):
            loader = loaders[side]
            loading = {"batch_size": loader.batch_size, "workers": loader.num_workers, "on_bad_image": on_bad_image}
            sides.append(model.describe(loader.dataset.dataset.data, f"{target} {side}", options, **loading))
        found[target] = (sides[0], sides[1])
    return found


def compare_engine(
    engine: Any,
    old: nn.Module | OldModel | Sides,
    independent: nn.Module | OldModel | Sides | None = None,
    *,
    options: EvaluationOptions | None = None,
    fractions: Sequence[float] = FRACTIONS,
    dimensions: str = "error",
) -> dict[str, VersionComparison]:
    """Compares an engine's model with an old one on each target; see :meth:`ImagePTLEngine.compare`."""
    options = options or engine.options
    if not engine.descriptors:
        engine.test(options=options)
    others = {"old": _sides(old, engine, options)}
    alone = None if independent is None else _sides(independent, engine, options)
    return {
        target: compare(
            {"old": others["old"][target], "new": engine.descriptors[target]},
            options,
            name=target,
            independent=None if alone is None else alone[target],
            fractions=fractions,
            dimensions=dimensions,
            progress=progress_of(target, engine.descriptors[target]),
        )
        for target in engine.descriptors
    }


def _sides(model: nn.Module | OldModel | Sides, engine: Any, options: EvaluationOptions) -> Sides:
    if isinstance(model, nn.Module):
        model = OldModel(model, Preprocessing.of(engine.datamanager), engine.device)
    if isinstance(model, OldModel):
        policy = getattr(engine.datamanager, "on_bad_image", "error")
        return describe_targets(model, engine.test_loader, options, policy)
    return model
