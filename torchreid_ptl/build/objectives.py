"""Turns a configuration into what is minimised, and the model that goes with it."""

from typing import Any

from torch import nn
from yacs.config import CfgNode

from ..config.loading import ConfigError
from ..engines import (
    ClusterObjective,
    CompatibleObjective,
    FeatureObjective,
    MarginSoftmaxObjective,
    MGNObjective,
    Objective,
    Preprocessing,
    SoftmaxObjective,
    STDObjective,
    TripletObjective,
    descriptor_dim,
)
from ..runtime.seeding import random_state, set_random_state
from .compatible import build_compatible
from .distillation import build_distillation
from .networks import build_model
from .old_model import OldSource

_KINDS: dict[str, type[Objective]] = {
    "softmax": SoftmaxObjective,
    "mgn": MGNObjective,
    "triplet": TripletObjective,
    "margin_softmax": MarginSoftmaxObjective,
    "std": STDObjective,
    "compatible": CompatibleObjective,
    "cluster": ClusterObjective,
}


def model_loss(config: CfgNode) -> str:
    """What the objective of ``loss.name`` asks a model to be built for."""
    return _KINDS[config.loss.name].model_loss


def build_objective(config: CfgNode, model: nn.Module, datamanager: Any) -> Objective:
    """The objective ``loss.name`` stands for, but for ``compatible``, which :func:`model_and_objective` makes.

    Args:
        config: the configuration.
        model: what it will train.
        datamanager: its images.
    """
    if config.loss.name == "std":
        base = _plain_objective(config, config.std.objective, model, datamanager)
        return build_distillation(config, base, model, datamanager)
    return _plain_objective(config, config.loss.name, model, datamanager)


def _plain_objective(config: CfgNode, name: str, model: nn.Module, datamanager: Any) -> Objective:
    loss = config.loss
    if name == "softmax":
        return SoftmaxObjective(loss.softmax.label_smooth)
    if name == "mgn":
        return MGNObjective(loss.mgn.margin, loss.mgn.label_smooth)
    if name == "cluster":
        return ClusterObjective(**loss.cluster)
    if name == "margin_softmax":
        dim = descriptor_dim(model, Preprocessing.of(datamanager))
        return MarginSoftmaxObjective(
            datamanager.num_train_pids, dim, loss.margin_softmax.scale, loss.margin_softmax.margin
        )
    triplet = loss.triplet
    return TripletObjective(triplet.margin, triplet.weight_t, triplet.weight_x, loss.softmax.label_smooth)


def model_and_objective(config: CfgNode, datamanager: Any) -> tuple[nn.Module, Objective]:
    """The model, and what it minimises.

    A new model gets an embedding head when its dimension is not the old model's and ``compat.embedding`` is match.

    Args:
        config: the configuration.
        datamanager: its images.
    """
    compatible = config.loss.name == "compatible"
    clustered = (config.compat.objective if compatible else config.loss.name) == "cluster"
    num_classes = 1 if clustered else datamanager.num_train_pids  # clusters need no classifier
    born = random_state()
    model = build_model(config, num_classes, model_loss(config))
    if not compatible:
        return model, build_objective(config, model, datamanager)
    if config.test.evaluate:  # a test asks for no losses
        return model, FeatureObjective(None)
    source = OldSource(config, datamanager)
    dim = descriptor_dim(model, Preprocessing.of(datamanager))
    if config.compat.embedding == "match" and dim != source.dim:
        config, dim = _with_head(config, dim, source.dim), source.dim
        set_random_state(born)  # it begins as one that was asked for with model.embedding
        model = build_model(config, num_classes, model_loss(config))
    name = config.compat.objective
    base = None if name == "none" else _plain_objective(config, name, model, datamanager)
    return model, build_compatible(config, base, model, datamanager, source, dim)


def _with_head(config: CfgNode, dim: int, wanted: int) -> CfgNode:
    if config.model.embedding:
        raise ConfigError(
            f"model.embedding is {dim} and old descriptors have {wanted} dimensions. Set model.embedding to 0, which "
            "goes by the old model (compat.embedding match), or choose compat.embedding truncate or pad"
        )
    print(f"Old descriptors have {wanted} dimensions and the model's {dim}: it gets an embedding head")
    config = config.clone()
    config.defrost()
    config.model.embedding = wanted
    return config
