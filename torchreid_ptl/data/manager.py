"""The host's data manager behind checks, a reader of its own and an order that is the same on every machine."""

from collections.abc import Sequence
from typing import Any

import torchreid
from torch.utils.data import DataLoader, Sampler

from .. import host
from .names import check_use
from .preflight import DOCS, check_folders, check_identities
from .reading import ReadingDataset, collate


class ImageDataManager(torchreid.data.ImageDataManager):
    """``torchreid.data.ImageDataManager`` with the same arguments, plus two.

    Folders are checked before anything is loaded and never created; images are sorted, because the host takes them
    in the order of the file system and seeded runs differ between machines; an unreadable image is named or counted;
    a batch that cannot be filled is an error instead of an epoch without batches.

    Args:
        on_bad_image: ``'error'`` or ``'skip'``.
        on_no_match: queries without a match: ``'skip'`` says which, ``'error'`` refuses them.
        **kwargs: the host's arguments.

    Raises:
        FileNotFoundError: a data set is missing or empty.
        ValueError: an unknown data set, a target with training images only, no query that can be found, or fewer images
            or identities than a batch needs.
    """

    def __init__(self, on_bad_image: str = "error", on_no_match: str = "skip", **kwargs: Any) -> None:
        sources = _names(kwargs.get("sources"))
        targets = sources if kwargs.get("targets") is None else _names(kwargs["targets"])  # as the host does
        check_use(sources, targets, kwargs.get("combineall", False))
        self.root = kwargs.get("root", "")
        check_folders(self.root, [*sources, *targets])
        if kwargs.get("k_tfm", 1) != 1:
            raise ValueError(f"data.k_tfm is {kwargs['k_tfm']}; engines take one view of an image: k_tfm 1")
        self.train_loader: DataLoader
        try:  # the sampler asked for is built below, over the sorted images
            super().__init__(**{**kwargs, "train_sampler": "RandomSampler"})
        except IndexError as error:  # the host looks at the first image of an empty list
            raise ValueError(f"A split of {sorted({*sources, *targets})} has no images: its lists are empty") from error
        except (
            AssertionError,
            AttributeError,
            RuntimeError,
        ) as error:  # the host's ways to say that files are not there
            raise FileNotFoundError(
                f"torchreid could not load {sorted({*sources, *targets})} below {kwargs.get('root', '')!r}: {error}. "
                f"Lay the folders out as in {DOCS}"
            ) from error
        self.on_bad_image = on_bad_image
        self._rebuild_train_loader(kwargs)
        for name, sides in self.test_dataset.items():
            check_identities(name, sides["query"], sides["gallery"], on_no_match)
            for side in sides:
                self._rebuild_test_loader(name, side)

    def _rebuild_train_loader(self, kwargs: dict[str, Any]) -> None:
        loader = self.train_loader
        dataset: Any = loader.dataset
        dataset.train = dataset.data = _cameras_apart(_sorted_and_relabelled(dataset.train))
        self._num_train_cams = len({camid for _, _, camid, _ in dataset.train})
        sampling = {
            "batch_size": kwargs.get("batch_size_train", 32),
            "num_instances": kwargs.get("num_instances", 4),
            "num_cams": kwargs.get("num_cams", 1),
            "num_datasets": kwargs.get("num_datasets", 1),
        }
        sampler = kwargs.get("train_sampler", "RandomSampler")
        self._check_batch(len(dataset.train), sampler, sampling)
        self.train_loader = DataLoader(
            ReadingDataset(dataset, self.on_bad_image),
            sampler=_build_sampler(dataset.train, sampler, sampling),
            batch_size=sampling["batch_size"],
            num_workers=loader.num_workers,
            pin_memory=self.use_gpu,
            drop_last=True,
            collate_fn=collate,
        )

    def _rebuild_test_loader(self, name: str, side: str) -> None:
        loader = self.test_loader[name][side]
        loader.dataset.data.sort()
        self.test_loader[name][side] = DataLoader(
            ReadingDataset(loader.dataset, self.on_bad_image),
            batch_size=loader.batch_size,
            num_workers=loader.num_workers,
            pin_memory=self.use_gpu,
            collate_fn=collate,
        )

    def _check_batch(self, images: int, sampler: str, sampling: dict[str, int]) -> None:
        size, instances = sampling["batch_size"], sampling["num_instances"]
        if images < size:
            raise ValueError(
                f"train.batch_size is {size} and the training set has {images} images: not one batch could be filled. "
                f"Choose at most {images}."
            )
        if sampler != "RandomIdentitySampler":
            return
        if size % instances or size < 2 * instances:
            raise ValueError(
                f"train.batch_size is {size} and sampler.num_instances {instances}: a batch of RandomIdentitySampler "
                f"holds whole groups of {instances} images, two identities at least. Choose {2 * instances}, "
                f"{3 * instances}, ..."
            )
        if size // instances > self.num_train_pids:
            raise ValueError(
                f"A batch of {size} with {instances} images each needs {size // instances} identities; the "
                f"training set has {self.num_train_pids}. Lower train.batch_size or raise sampler.num_instances."
            )


def _build_sampler(train: list[tuple[Any, ...]], name: str, sampling: dict[str, int]) -> Sampler:
    try:
        return host.build_train_sampler(train, name, **sampling)
    except (AssertionError, ValueError) as error:  # the host says nothing more
        raise ValueError(
            f"{name} cannot make batches with {sampling}: train.batch_size must divide by sampler.num_cams "
            "(RandomDomainSampler) or sampler.num_datasets (RandomDatasetSampler), and there must be as many of these"
        ) from error


def _names(value: str | Sequence[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _sorted_and_relabelled(train: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Images by data set and path; identities numbered in that order, so that labels do not depend on the machine."""
    ordered = sorted(train, key=lambda item: (item[3], item[0]))
    labels: dict[int, int] = {}
    return [(path, labels.setdefault(pid, len(labels)), camid, dsetid) for path, pid, camid, dsetid in ordered]


def _cameras_apart(train: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Numbers cameras anew where two data sets share a number: the host takes the number of cameras for the next one.

    A set whose training images come from cameras 0 and 2 alone would share camera 2 with the set that is added to it.
    """
    cameras = sorted({(dsetid, camid) for _, _, camid, dsetid in train})
    if len({camid for _, camid in cameras}) == len(cameras):
        return train
    number = {camera: index for index, camera in enumerate(cameras)}
    return [(path, pid, number[dsetid, camid], dsetid) for path, pid, camid, dsetid in train]
