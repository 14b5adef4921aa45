"""The old model, and its features of the training images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.in_order import loader_in_order, root_of, training_images, training_names
from ..data.old_features import BankError, OldFeatures, list_digest, names_of, require_place
from ..evaluation import Descriptors, EvaluationOptions
from ..runtime.lock import locked, require_unlocked
from ..runtime.seeding import random_state_kept
from .frozen import FrozenModel, Preprocessing
from .inference import extract


class OldModel(FrozenModel):
    """The model that encoded the gallery: frozen, with its own size and normalisation of images.

    Args:
        network: any model of the host or the plugin, with its weights; it is always in evaluation mode.
        expects: its preprocessing; 256 x 128 pixels with ImageNet's normalisation if None.
        device: of the network.
        classifier: (C_old, D) weights of its classifier, for the methods that use one.
        **options: further arguments of :class:`FrozenModel`.

    Raises:
        ValueError: the network gives no descriptor, or a classifier of another dimension.
    """

    def __init__(
        self,
        network: nn.Module,
        expects: Preprocessing | None = None,
        device: torch.device | str = "cpu",
        classifier: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(network, expects, expects, device, **options)
        if classifier is not None and (classifier.dim() != 2 or classifier.shape[1] != self.dim):
            raise ValueError(
                f"The old classifier has weights {tuple(classifier.shape)} and the old descriptor {self.dim} "
                f"dimensions; expected weights (C_old, {self.dim})"
            )
        self.classifier = classifier

    def describe(
        self, images: list[tuple[Any, ...]], label: str, options: EvaluationOptions | None = None, **loading: Any
    ) -> Descriptors:
        """Descriptors of images, read from their files as this model expects them, never augmented.

        Args:
            images: (path, identity, camera, ...) of each.
            label: shown with the progress.
            options: flip and precision; neither flipped nor in lower precision if None.
            **loading: ``batch_size``, ``workers`` and ``on_bad_image`` of :func:`loader_in_order`.

        Raises:
            ValueError: no image could be read, or a descriptor is not finite; names the images.
        """
        expects = self.expects
        loader = loader_in_order(images, expects.height, expects.width, expects.mean, expects.std, **loading)
        with random_state_kept(), torch.no_grad():  # a loader draws a seed; the training is not affected
            return extract(self, loader, label, self.device, options or EvaluationOptions())


def build_bank(old: OldModel, datamanager: Any, path: str | Path | None = None, keep: bool = True) -> OldFeatures:
    """Old features of the training images: from an existing file, else computed and saved.

    Args:
        old: the old model.
        datamanager: the host's or this package's.
        path: a .npy file to open, or to write; None keeps them in memory only.
        keep: a file of something else is an error; False replaces it.

    Raises:
        BankError: the file is damaged or no bank, or of another model, preprocessing or list of images; or the file of
            its names would replace one that is no bank's.
        InUseError: another process builds it.
        ValueError: a descriptor is not finite, or the training set lists an image twice; names the image.
    """
    images = training_images(datamanager)
    root = root_of(datamanager)
    names = training_names(datamanager, root)
    fingerprint = list_digest(names, old.fingerprint())

    def build() -> OldFeatures:
        found = old.describe(images, "old features", **_loading(datamanager))
        return OldFeatures(names_of(found.paths, root), torch.as_tensor(found.features), fingerprint)

    if path is None:
        return build()
    require_unlocked(Path(path), is_file=True)
    try:
        bank = OldFeatures.load(path, fingerprint, names)
        print(f"Old features: {len(bank)} of {path}")
        return bank
    except FileNotFoundError:
        pass
    except BankError as error:
        if keep:
            raise
        print(f"{path} is replaced: {error}")
    require_place(path)
    with locked(Path(path), is_file=True):
        build().save(path)
        bank = OldFeatures.load(path, fingerprint, names)
    print(f"Old features: {len(bank)} in {path}")
    return bank


def _loading(datamanager: Any) -> dict[str, Any]:
    loader = datamanager.train_loader
    return {"workers": loader.num_workers, "on_bad_image": getattr(datamanager, "on_bad_image", "error")}
