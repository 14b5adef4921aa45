"""The training images as they are: all of them, in their order, without augmentation."""

import copy
from typing import Any

from torch.utils.data import DataLoader

from .reading import ReadingDataset, collate


def in_order(datamanager: Any) -> DataLoader:
    """A loader over all training images with the test transform, in the order of the training list.

    What a data manager's training loader leaves out after ``relabel`` is in it.

    Args:
        datamanager: the host's or this package's.

    Returns:
        Batches of the test loaders' size; of this package's manager, an unreadable image is treated as it says.
    """
    dataset = copy.copy(all_training_images(datamanager))
    dataset.transform = datamanager.transform_te
    sides = next(iter(datamanager.test_loader.values()))
    return DataLoader(
        ReadingDataset(dataset, getattr(datamanager, "on_bad_image", "error")),
        batch_size=sides["query"].batch_size,
        num_workers=datamanager.train_loader.num_workers,
        pin_memory=datamanager.use_gpu,
        collate_fn=collate,
    )


def all_training_images(datamanager: Any) -> Any:
    """The host's data set of all training images; its list ``data`` is in their order."""
    return getattr(datamanager, "train_set", datamanager.train_loader.dataset)
