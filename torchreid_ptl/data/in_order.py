"""Images one after the other, without augmentation, as a gallery holds them."""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from torch.utils.data import DataLoader
from torchvision import transforms

from ..runtime.errors import ArgumentError
from .old_features import names_of
from .reading import reading_loader


def training_images(datamanager: Any) -> list[tuple[Any, ...]]:
    """The training images (path, identity, camera, data set) of the host's data manager or this package's.

    They are those of the loader: with pseudo labels, the images that have one.
    """
    dataset = datamanager.train_loader.dataset
    return list(getattr(dataset, "dataset", dataset).data)


def training_names(datamanager: Any, root: str) -> list[str]:
    """Names of the training images, in their order: paths below the root of the data sets, :func:`root_of`.

    Raises:
        ValueError: an image is listed twice, for example because a data set is; names it.
    """
    names = names_of([image[0] for image in training_images(datamanager)], root)
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ArgumentError(
            f"The training set lists {twice} twice, and an image has one old feature; list each image once in "
            "the data sets of {sources}"
        )
    return names


def loader_in_order(
    images: Sequence[tuple[Any, ...]],
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    batch_size: int = 100,
    workers: int = 0,
    on_bad_image: str = "error",
) -> DataLoader:
    """A loader that gives each image (path, identity, camera, ...) once, in the order of the list.

    Images are resized to height and width in pixels and normalised by mean and standard deviation of each channel, of
    values in [0, 1]. ``workers`` processes load them; ``on_bad_image`` is ``'error'`` or ``'skip'``.
    """
    transform = transforms.Compose(
        [transforms.Resize((height, width)), transforms.ToTensor(), transforms.Normalize(list(mean), list(std))]
    )
    return reading_loader(_listed(images, transform), on_bad_image, batch_size, workers)


def root_of(datamanager: Any) -> str:
    """The folder that holds the data sets; the host's manager forgets it: then the images' common folder."""
    root = getattr(datamanager, "root", "")
    return root or os.path.commonpath([os.path.dirname(os.path.abspath(i[0])) for i in training_images(datamanager)])


def in_order(datamanager: Any) -> DataLoader:
    """A loader over all training images with the test transform, in the order of the training list.

    What a data manager's training loader leaves out after ``relabel`` is in it. Batches have the size of the test
    loaders'; an unreadable image is an error, or what this package's manager says.
    """
    batch_size = next(iter(datamanager.test_loader.values()))["query"].batch_size
    workers, policy = datamanager.train_loader.num_workers, getattr(datamanager, "on_bad_image", "error")
    images = _listed(all_training_images(datamanager).data, datamanager.transform_te)
    return reading_loader(images, policy, batch_size, workers, pin_memory=datamanager.use_gpu)


def all_training_images(datamanager: Any) -> Any:
    """The host's data set of all training images; its list ``data`` is in their order."""
    return getattr(datamanager, "train_set", datamanager.train_loader.dataset)


def _listed(images: Sequence[tuple[Any, ...]], transform: Any) -> SimpleNamespace:
    """What a data set of the host has of a list of images."""
    return SimpleNamespace(data=[(*image, 0)[:4] for image in images], transform=transform)
