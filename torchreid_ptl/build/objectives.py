"""Builds the objective of a configuration and its model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from yacs.config import CfgNode

from ..config.loading import ConfigError
from ..config.loss_settings import loss_arguments
from ..engines import (
    ClusterObjective,
    CompatibleObjective,
    FeatureObjective,
    FrozenModel,
    MarginSoftmaxObjective,
    MGNObjective,
    Objective,
    Preprocessing,
    SoftmaxObjective,
    STDObjective,
    TripletObjective,
    descriptor_dim,
)
from ..runtime.device import device_of
from ..runtime.seeding import random_state_kept
from .networks import build_model, build_network, read_weights, style_of, trained_network
from .old_model import BANK, build_old, old_classes

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
    """The ``model_loss`` of the objective of ``loss.name``."""
    return _KINDS[config.loss.name].model_loss


def model_and_objective(config: CfgNode, datamanager: Any) -> tuple[nn.Module, Objective]:
    """The model and its objective.

    Args:
        config: the configuration.
        datamanager: its images.

    Raises:
        ValueError: an input of the objective is missing; checked before long work starts.
    """
    name, own = config.loss.name, config.loss.name
    if name in ("std", "compatible"):
        own = config.std.objective if name == "std" else config.compat.objective
    num_classes = 1 if own == "cluster" else datamanager.num_train_pids  # clusters need no classifier

    def build(wanted: CfgNode) -> tuple[nn.Module, Objective | None]:
        model = build_model(wanted, num_classes, model_loss(config))
        return model, None if own == "none" else _plain_objective(config, own, model, datamanager)

    if name in ("std", "compatible") and config.test.evaluate:  # a test needs no losses
        return build(config)[0], FeatureObjective(None)
    if name == "compatible":
        return _compatible(config, datamanager, build)
    model, base = build(config)
    assert base is not None
    return model, _distillation(config, datamanager, model, base) if name == "std" else base


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


def _distillation(config: CfgNode, datamanager: Any, student: nn.Module, base: Objective) -> STDObjective:
    """``std.teacher`` with ``std.teacher_weights`` teaches; the states of the random generators are kept."""
    std, given = config.std, Preprocessing.of(datamanager)
    weights = read_weights(std.teacher_weights)
    trained = weights.config.get("data", {})
    expects = style_of((std.height, std.width), std.norm_mean, std.norm_std, trained, given)
    keys, size = ("std.teacher", "std.teacher_weights"), (expects.height, expects.width)
    network = trained_network("teacher", std.teacher, weights, keys, use_gpu=config.use_gpu, size=size)
    return STDObjective.build(
        student,
        FrozenModel(network, expects, given, device_of(config.use_gpu), config.train.channels_last),
        datamanager,
        std["lambda"],
        base,
        None if std.projection == "none" else std.projection,
        cache=std.cache,
        precision=config.train.precision,
    )


def _compatible(
    config: CfgNode, datamanager: Any, build: Callable[[CfgNode], tuple[nn.Module, Objective | None]]
) -> tuple[nn.Module, CompatibleObjective]:
    compat = config.compat
    old = build_old(config, datamanager)
    classes = old_classes(config, datamanager, old)
    if compat.embedding == "match":
        config = _with_head(config, old.dim, Preprocessing.of(datamanager))
    model, base = build(config)
    if base is not None and "mixbct" in compat.losses:
        print(
            f"mixbct with compat.objective {compat.objective}: both are minimised; MixBCT by itself is "
            "compat.objective none"
        )
    return model, CompatibleObjective.build(
        model,
        datamanager,
        old,
        {name: loss_arguments(compat[name]) for name in compat.losses},
        weights={name: compat[name].weight for name in compat.losses},
        base=base,
        dimensions=compat.embedding if compat.embedding in ("truncate", "pad") else "error",
        bank=compat.bank or Path(config.data.save_dir) / BANK,
        keep_bank=bool(compat.bank),
        old_classes=classes,
        seed=config.train.seed,
    )


def _with_head(config: CfgNode, wanted: int, style: Preprocessing) -> CfgNode:
    """The configuration, with an embedding head of the old model's dimension where the model's is another."""
    dim = config.model.embedding or _plain_dimension(config, style)
    if dim == wanted:
        return config
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


def _plain_dimension(config: CfgNode, style: Preprocessing) -> int:
    """Of ``model.name`` without a head: built without memory, or with weights where its layers ask for values."""
    name, size = config.model.name, (style.height, style.width)
    with random_state_kept():
        try:
            with torch.device("meta"):
                return descriptor_dim(build_network(name, 1, "triplet", use_gpu=False, size=size), style)
        except NotImplementedError:
            return descriptor_dim(build_network(name, 1, "triplet", use_gpu=False, size=size), style)
