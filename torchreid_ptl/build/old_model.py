"""Turns a configuration into the old side of a training: the old model, or a file of its features."""

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
from ..engines import OldGallery, OldModel, Preprocessing, build_bank
from .networks import device_of, read_weights, style_of, trained_network

BANK = "old_features.npy"


class OldSource:
    """Where old features come from: what is known of them before they are computed, which is long work.

    Args:
        config: the configuration.
        datamanager: of the training.

    Attributes:
        model: the old model; None when only its features are left.
        classes: (C,) the old classifier's row for each training identity; None where nobody wants it or can know it.
        dim: of the old descriptors.

    Raises:
        ConfigError: weights that do not fill the old model, or an old classifier that is asked for and not known.
        BankError: a bank or file of something else.
    """

    def __init__(self, config: CfgNode, datamanager: Any) -> None:
        self._config, self._datamanager, compat = config, datamanager, config.compat
        self.model: OldModel | None = None
        self._source: OldModel | OldFeatures
        if compat.features:
            names = training_names(datamanager, root_of(datamanager))
            self._source = OldFeatures.of_file(compat.features, names)
            print(f"Old features: {len(self._source)} of {compat.features}")
        else:
            self._source = self.model = build_old_model(config, Preprocessing.of(datamanager))
            if compat.independent:
                build_independent(config, datamanager)  # it is needed after the training, and would fail then
        self.classes = self._classes(compat, datamanager)
        self.dim = self._source.dim

    def side(self) -> OldGallery:
        """The old side of the training images; old features are computed, or opened where they are.

        Raises:
            BankError: a bank of something else.
            ValueError: a descriptor is not finite; names the image.
        """
        config, compat = self._config, self._config.compat
        path = Path(compat.bank) if compat.bank else Path(config.data.save_dir) / BANK
        bank, classifier = self._source, None
        if isinstance(bank, OldModel):
            classifier = bank.classifier if self.classes is not None else None
            bank = build_bank(bank, self._datamanager, path, keep=bool(compat.bank))
        return OldGallery(bank, self._datamanager, classifier, self.classes, device_of(config))

    def _classes(self, compat: CfgNode, datamanager: Any) -> Tensor | None:
        """(C,) the old classifier's row for each training identity; None where nobody wants it or can know it."""
        if "bct" not in compat.losses or compat.bct.prototypes == "means" or compat.objective == "cluster":
            return None
        unknown = ""
        path = Path(compat.old_images or Path(compat.old_weights).parent.parent / NAME)
        if self.model is None or self.model.classifier is None:
            unknown = "the old model has no linear classifier on its descriptor here"
        elif not path.is_file() and not compat.old_images:
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
        if self._config.compat.bct.prototypes == "auto" and (rows < 0).any():
            print("bct: class means stand for all identities; beside them the old classifier's rows mislead")
        return rows


def build_old_model(config: CfgNode, given: Preprocessing) -> OldModel:
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
    old = OldModel(network, wants, device_of(config), channels_last=config.train.channels_last)
    old.classifier = _classifier(weights.state, old.dim)
    return old


def build_independent(config: CfgNode, datamanager: Any) -> OldModel:
    """``model.name`` with ``compat.independent``, frozen, which sees images as the new model does.

    Args:
        config: the configuration.
        datamanager: of the training.

    Raises:
        ConfigError: the weights do not fill it.
    """
    style, keys = Preprocessing.of(datamanager), ("model.name", "compat.independent")
    weights, size = read_weights(config.compat.independent), (style.height, style.width)
    network = trained_network("independent model", config.model.name, weights, keys, use_gpu=config.use_gpu, size=size)
    return OldModel(network, style, device_of(config), channels_last=config.train.channels_last)


def _classifier(state: Mapping[str, Tensor], dim: int) -> Tensor | None:
    """Weights (C_old, dim) of a linear classifier on the descriptor, if a state dict has one."""
    weights = state.get("classifier.weight")
    return weights if weights is not None and weights.dim() == 2 and weights.shape[1] == dim else None
