"""Builds the old model of a training, or reads its features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from yacs.config import CfgNode

from ..config.loading import ConfigError
from ..data.in_order import root_of, training_images, training_names
from ..data.old_features import OldFeatures
from ..data.training_list import NAME, matching_classes, read_training_list, training_list
from ..engines import OldModel, Preprocessing
from ..runtime.device import device_of
from .networks import read_weights, style_of, trained_network

BANK = "old_features.npy"


def build_old(config: CfgNode, datamanager: Any) -> OldModel | OldFeatures:
    """The old model, or its features of ``compat.features``.

    Args:
        config: the configuration.
        datamanager: of the training.

    Raises:
        ConfigError: weights that lack some of the old model's.
        BankError: a file of something else.
    """
    path = config.compat.features
    if path:
        found = OldFeatures.of_file(path, training_names(datamanager, root_of(datamanager)))
        print(f"Old features: {len(found)} of {path}")
        return found
    old = build_old_model(config, Preprocessing.of(datamanager))
    if config.compat.independent:
        build_independent(config, datamanager)  # it is needed after the training, and would fail then
    return old


def old_classes(config: CfgNode, datamanager: Any, old: OldModel | OldFeatures) -> Tensor | None:
    """(C,) the old classifier's row for each training identity; None where no loss uses it or it cannot be known.

    Raises:
        ConfigError: it is not known and ``compat.bct.prototypes`` is classifier, or the list is another model's.
    """
    compat = config.compat
    if "bct" not in compat.losses or compat.bct.prototypes == "means" or compat.objective == "cluster":
        return None
    unknown = ""
    classifier: Any = getattr(old, "classifier", None)
    path = Path(compat.old_images or Path(compat.old_weights).parent.parent / NAME)
    if classifier is None:
        unknown = "the old model has no linear classifier on its descriptor here"
    elif not path.is_file() and not compat.old_images:
        unknown = f"the list of the old training images is not at {path} (compat.old_images)"
    if unknown and compat.bct.prototypes == "classifier":
        raise ConfigError(f"compat.bct.prototypes is classifier, and {unknown}; give it, or choose auto or means")
    if unknown:
        print(f"bct: class means replace the old classifier, for {unknown}")
        return None
    rows = _matched(path, len(classifier), datamanager)
    if compat.bct.prototypes == "auto" and (rows < 0).any():
        print("bct: class means for all identities, because the old classifier does not know some of them")
    return torch.from_numpy(rows)


def _matched(path: Path, known: int, datamanager: Any) -> npt.NDArray[np.int64]:
    old = read_training_list(path)
    rows = matching_classes(old, training_list(training_images(datamanager), root_of(datamanager)))
    if max(old.labels) >= known:
        raise ConfigError(
            f"{path} counts {max(old.labels) + 1} identities and the old classifier {known}: it is not the list of "
            "the old model's training images. Name that one with compat.old_images"
        )
    print(f"bct: {int((rows >= 0).sum())} of {len(rows)} identities have a class of the old classifier")
    return rows


def build_old_model(config: CfgNode, given: Preprocessing) -> OldModel:
    """``compat.old`` with ``compat.old_weights``, frozen.

    Args:
        config: the configuration.
        given: the preprocessing of the new model.

    Raises:
        ConfigError: the weights lack some of its entries.
    """
    compat = config.compat
    weights = read_weights(compat.old_weights)
    size = compat.old_height, compat.old_width
    trained = weights.config.get("data", {})
    wants = style_of(size, compat.old_norm_mean, compat.old_norm_std, trained, given)
    keys, size = ("compat.old", "compat.old_weights"), (wants.height, wants.width)
    network = trained_network("old model", compat.old, weights, keys, use_gpu=config.use_gpu, size=size)
    old = OldModel(network, wants, device_of(config.use_gpu), channels_last=config.train.channels_last)
    old.classifier = _classifier(weights.state, old.dim)
    return old


def build_independent(config: CfgNode, datamanager: Any) -> OldModel:
    """``model.name`` with ``compat.independent``, frozen, with the preprocessing of the new model.

    Args:
        config: the configuration.
        datamanager: of the training.

    Raises:
        ConfigError: the weights lack some of its entries.
    """
    style, keys = Preprocessing.of(datamanager), ("model.name", "compat.independent")
    weights, size = read_weights(config.compat.independent), (style.height, style.width)
    network = trained_network("independent model", config.model.name, weights, keys, use_gpu=config.use_gpu, size=size)
    return OldModel(network, style, device_of(config.use_gpu), channels_last=config.train.channels_last)


def _classifier(state: Mapping[str, Tensor], dim: int) -> Tensor | None:
    """Weights (C_old, dim) of a linear classifier on the descriptor, if a state dict has one."""
    weights = state.get("classifier.weight")
    return weights if weights is not None and weights.dim() == 2 and weights.shape[1] == dim else None
