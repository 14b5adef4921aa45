"""Features of images, computed once and looked up by path."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .. import host
from ..data.reading import collate
from ..evaluation import EvaluationOptions
from ..runtime.errors import ArgumentError
from ..runtime.precision import autocast
from ..runtime.seeding import random_state_kept
from .frozen import FrozenModel
from .inference import extract


class FeatureTable:
    """Features (N, D) in float32 on the CPU, with the paths of their images.

    Args:
        paths: as in the batches of the loader.
        features: (N, D), a row for each path.

    Raises:
        ValueError: as many paths as features are needed.
    """

    def __init__(self, paths: Sequence[str], features: Tensor) -> None:
        if len(paths) != len(features):
            raise ValueError(f"{len(paths)} paths and {len(features)} features; each path needs one row")
        self._row = {path: row for row, path in enumerate(paths)}
        self._features = features

    def __call__(self, paths: Sequence[str]) -> Tensor:
        """Features (N, D) of some images.

        Raises:
            KeyError: an image that is not in the table; names it.
        """
        missing = [path for path in paths if path not in self._row]
        if missing:
            raise KeyError(f"No features of {', '.join(missing[:3])} in the table of {len(self._row)} images")
        return self._features[[self._row[path] for path in paths]]


def tabulate(model: FrozenModel, datamanager: Any, label: str, precision: str = "float32") -> FeatureTable:
    """Runs a frozen model once over the training images, which must come without augmentation.

    Args:
        model: the frozen model.
        datamanager: the host's or this package's.
        label: shown with the progress.
        precision: of the forward pass, as in training.

    Raises:
        ValueError: the images are augmented, so that an image has no feature of its own; names the augmentations.
    """
    found = host.augmentations(datamanager)
    if found:
        raise ArgumentError(
            f"Features of training images can be computed once only without augmentation; got {', '.join(found)}. "
            "Set {transforms} [] or {cache} False"
        )
    loader = datamanager.train_loader
    in_order = DataLoader(
        loader.dataset, batch_size=loader.batch_size, num_workers=loader.num_workers, collate_fn=collate
    )

    def forward(images: Tensor) -> Tensor:
        with autocast(precision, model.device):
            return model(images)

    with random_state_kept():  # a loader draws a seed; the training is not affected
        rows = extract(forward, in_order, label, torch.device("cpu"), EvaluationOptions())
    return FeatureTable(rows.paths, torch.as_tensor(rows.features))
