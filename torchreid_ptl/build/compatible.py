"""Turns a configuration into backward-compatible training: its losses and its objective."""

from typing import Any

from torch import nn
from yacs.config import CfgNode

from ..config.loss_settings import loss_from
from ..engines import CompatibleObjective, Objective, Preprocessing
from ..engines.compatible_objective import agreed_weights, require_classifier
from ..engines.old_gallery import compared_dim
from ..runtime.seeding import random_state_kept
from .old_model import OldSource


def build_compatible(
    config: CfgNode, base: Objective | None, model: nn.Module, datamanager: Any, source: OldSource, dim: int
) -> CompatibleObjective:
    """The objective of ``loss.name compatible``, checked against the new model before old features are computed.

    Args:
        config: the configuration.
        base: the new model's own objective; None for none.
        model: the new model.
        datamanager: of its images.
        source: where old features come from.
        dim: of the new model's descriptor.

    Raises:
        ValueError: dimensions differ without a rule, or a loss lacks what it needs.
    """
    compat = config.compat
    rule = compat.embedding if compat.embedding in ("truncate", "pad") else "error"
    common = compared_dim(dim, source.dim, rule)
    with random_state_kept():  # a criterion draws its weights; the rest goes as it would without
        supplied = {"dim": common, "num_classes": datamanager.num_train_pids, "seed": config.train.seed}
        built = {name: loss_from(name, compat[name], **supplied) for name in compat.losses}
    if base is not None and "mixbct" in built:
        print(
            f"mixbct beside compat.objective {compat.objective}: the model learns by both; MixBCT by itself is "
            "compat.objective none"
        )
    weights = agreed_weights(built, {name: compat[name].weight for name in built}, base)
    require_classifier(built, model, common)
    objective = CompatibleObjective(built, source.side(), weights, base, rule, source.model)
    objective.prepare(model, Preprocessing.of(datamanager))
    return objective
