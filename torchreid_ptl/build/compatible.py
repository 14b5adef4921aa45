"""Turns a configuration into backward-compatible training: its losses and its objective."""

from typing import Any

from torch import nn
from yacs.config import CfgNode

from .. import losses
from ..engines import CompatibleObjective, Objective, Preprocessing
from ..engines.compatible_objective import agreed_weights, require_classifier
from ..engines.old_gallery import compared_dim
from ..losses import CompatibleLoss
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
        built = {name: build_loss(name, config, source, datamanager.num_train_pids, common) for name in compat.losses}
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


def build_loss(name: str, config: CfgNode, source: OldSource, num_classes: int, dim: int) -> CompatibleLoss:
    """The loss of a name in ``compat.losses``.

    Args:
        name: one of them.
        config: the configuration.
        source: where old features come from.
        num_classes: number of training identities.
        dim: in which features are compared.
    """
    own = config.compat[name]
    if name == "l2":
        return losses.FeatureL2Loss(own.t)
    if name == "bct":
        if own.prototypes == "classifier" or (own.prototypes == "auto" and source.classes is not None):
            return losses.BCTLoss("classifier", own.scale)
        return losses.BCTLoss("means", own.scale)
    if name in ("contrastive", "ract"):
        shared = config.compat.contrastive
        kind = losses.OldNewContrastiveLoss if name == "contrastive" else losses.RACTLoss
        return kind(shared.tau, shared.negatives or None)
    if name == "nccl":
        return losses.NCCLLoss(dim, own.queue, own.tau)
    if name == "unibct":
        return losses.UniBCTLoss(own["lambda"], own.tau, own.scale)
    if name == "lce":
        return losses.LCELoss(own.align)
    if name == "advbct":
        return losses.AdvBCTLoss(dim, 256, own.elasticity, own.reversal, own.boundary)
    if name == "mixbct":
        return losses.MixBCTLoss(
            num_classes, dim, None, own.ratio, own.scale, own.margin, config.train.seed, own.keep
        )  # fmt: skip
    return losses.RBCLLoss(
        own.gallery, own.tau, own.dgr, own.other_camera, own.neighbours, own.lift_limit, own.restore_from
    )  # fmt: skip
