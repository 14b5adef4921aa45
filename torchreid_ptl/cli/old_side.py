"""Turns a configuration into the old side of a training: the old model, or a file of its features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from yacs.config import CfgNode

from ..config import ConfigError
from ..data.bank import OldFeatureBank, names_of
from ..data.in_order import root_of, training_images
from ..data.training_list import NAME, matching_classes, read_training_list, training_list
from ..engines import InputStyle, OldModel, OldSide, build_bank
from .networks import read_weights, style_of, trained_network

BANK = "old_features.npy"


class OldSource:
    """Where old features come from, before the new model is built.

    Args:
        config: the configuration.
        datamanager: of the training.

    Attributes:
        model: the old model; None when only its features are left.
        side: the old side of the training images.

    Raises:
        ConfigError: weights that do not fill the old model, or an old classifier that is asked for and not known.
        BankError: a bank or file of something else.
    """

    def __init__(self, config: CfgNode, datamanager: Any) -> None:
        compat = config.compat
        self.model = None if compat.features else build_old_model(config, InputStyle.of(datamanager))
        classes = self._classes(compat, datamanager)
        classifier = self.model.classifier if self.model and classes is not None else None
        device = "cuda" if config.use_gpu and torch.cuda.is_available() else "cpu"
        bank = self._bank(config, datamanager)
        self.side = OldSide(bank, datamanager, classifier, classes, device, compat.rbcl.neighbours)

    def _bank(self, config: CfgNode, datamanager: Any) -> OldFeatureBank:
        compat = config.compat
        if self.model is None:
            names = names_of([image[0] for image in training_images(datamanager)], root_of(datamanager))
            bank = OldFeatureBank.of_file(compat.features, names)
            print(f"Old features: {len(bank)} of {compat.features}")
            return bank
        path = Path(compat.bank) if compat.bank else Path(config.data.save_dir) / BANK
        return build_bank(self.model, datamanager, path, keep=bool(compat.bank))

    def _classes(self, compat: CfgNode, datamanager: Any) -> Tensor | None:
        """(C,) the old classifier's row for each training identity; None where nobody wants it or can know it."""
        if "bct" not in compat.losses or compat.bct.prototypes == "means" or compat.objective == "cluster":
            return None
        unknown = ""
        path = Path(compat.old_images or Path(compat.old_weights).parent.parent / NAME)
        if self.model is None or self.model.classifier is None:
            unknown = "the old model has no linear classifier on its descriptor here"
        elif not path.is_file():
            unknown = f"the list of the old training images is not at {path} (compat.old_images)"
        if unknown and compat.bct.prototypes == "classifier":
            raise ConfigError(f"compat.bct.prototypes is classifier, and {unknown}; give it, or choose auto or means")
        if unknown:
            print(f"bct: class means stand for the old classifier, for {unknown}")
            return None
        return torch.from_numpy(self._matched(path, datamanager))

    def _matched(self, path: Path, datamanager: Any) -> npt.NDArray[np.int64]:
        old = read_training_list(path)
        rows = matching_classes(old, training_list(training_images(datamanager), root_of(datamanager)))
        known = 0 if self.model is None or self.model.classifier is None else len(self.model.classifier)
        if max(old.labels) >= known:
            raise ConfigError(
                f"{path} counts {max(old.labels) + 1} identities and the old classifier {known}: it is not the list of "
                "the old model's training images. Name that one with compat.old_images"
            )
        print(f"bct: {int((rows >= 0).sum())} of {len(rows)} identities have a class of the old classifier")
        return rows


def build_old_model(config: CfgNode, given: InputStyle) -> OldModel:
    """``compat.old`` with ``compat.old_weights``, frozen.

    Args:
        config: the configuration.
        given: how the new model gets its images.

    Raises:
        ConfigError: the weights do not fill it.
    """
    compat = config.compat
    weights = read_weights(compat.old_weights)
    size = compat.old_height, compat.old_width
    trained = weights.config.get("data", {})
    wants = style_of(size, compat.old_norm_mean, compat.old_norm_std, trained, given)
    keys, size = ("compat.old", "compat.old_weights"), (wants.height, wants.width)
    network = trained_network("old model", compat.old, weights, keys, use_gpu=config.use_gpu, size=size)
    device = torch.device("cuda" if config.use_gpu and torch.cuda.is_available() else "cpu")
    old = OldModel(network, wants, device, channels_last=config.train.channels_last)
    old.classifier = _classifier(weights.state, old.dim)
    return old


def _classifier(state: Mapping[str, Tensor], dim: int) -> Tensor | None:
    """Weights (C_old, dim) of a linear classifier on the descriptor, if a state dict has one."""
    weights = state.get("classifier.weight")
    return weights if weights is not None and weights.dim() == 2 and weights.shape[1] == dim else None
