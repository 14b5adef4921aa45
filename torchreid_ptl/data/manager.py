"""The host's data manager behind checks, a reader of its own and an order that is the same on every machine."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torchreid
from torch.utils.data import DataLoader

from .. import host
from ..evaluation.arrays import Integers
from ..runtime.errors import ArgumentError
from .in_order import in_order
from .load_errors import explain_loading
from .names import check_use
from .preflight import check_folders, check_identities, check_images, check_items
from .reading import reading_loader
from .sampling import Sampling
from .splits import Splits


class ImageDataManager(torchreid.data.ImageDataManager):
    """``torchreid.data.ImageDataManager`` with the same arguments, plus three.

    Folders are checked before anything is loaded and never created; images are sorted, because the host takes them
    in the order of the file system and seeded runs differ between machines; an unreadable image is named or counted;
    a batch that cannot be filled is an error instead of an epoch without batches.

    Args:
        on_bad_image: ``'error'`` or ``'skip'``.
        on_no_match: queries without a match: ``'skip'`` says which, ``'error'`` refuses them.
        test_only: training images may be few or missing; they are not sampled, and no batch must be filled.
        **kwargs: the host's arguments.

    Attributes:
        splits: which split of the data sets that have several is used; see :class:`~.splits.Splits`.
        train_set: the host's data set of all training images, sorted, whatever :meth:`relabel` leaves in the loader.

    Raises:
        FileNotFoundError: a data set is missing or empty.
        ValueError: an unknown data set, a target with training images only, no query that can be found, or fewer images
            or identities than a batch needs.
    """

    def __init__(
        self, on_bad_image: str = "error", on_no_match: str = "skip", *, test_only: bool = False, **kwargs: Any
    ) -> None:
        sources = _names(kwargs.get("sources"))
        targets = sources if kwargs.get("targets") is None else _names(kwargs["targets"])  # as the host does
        check_use(sources, targets, kwargs.get("combineall", False))
        self.root = kwargs.get("root", "")
        distractors = kwargs.get("market1501_500k", False)
        for remark in check_folders(self.root, [*sources, *targets], not test_only, distractors):
            print(remark)
        if kwargs.get("k_tfm", 1) != 1:
            raise ArgumentError(f"{{k_tfm}} is {kwargs['k_tfm']}; engines take one view of an image: k_tfm 1")
        both = sorted({*sources} & {*targets})
        if kwargs.get("load_train_targets") and both:
            raise ArgumentError(f"{{load_train_targets}} needs {{targets}} that are no {{sources}}; both have {both}")
        self.train_loader: DataLoader
        self.train_loader_t: DataLoader | None
        # the samplers asked for are built below, over the sorted images
        plain = dict.fromkeys(("train_sampler", "train_sampler_t"), "SequentialSampler")
        splits = Splits(kwargs.get("split_id", 0))
        self.splits = splits.record
        with host.identities_apart(), host.folders_read(splits.of), _loading(self.root, test_only):
            super().__init__(**{**kwargs, **plain})
        self.on_bad_image = on_bad_image
        self._sampling = Sampling.of(kwargs)
        self.train_set: Any = self.train_loader.dataset
        check_items(" + ".join(sources), self.train_set.train)
        self.train_set.train = self.train_set.data = _cameras_apart(_sorted_and_relabelled(self.train_set.train))
        self._num_train_pids = max(1, len({pid for _, pid, _, _ in self.train_set.train}))
        self._num_train_cams = len({camid for _, _, camid, _ in self.train_set.train})
        if test_only:
            self.train_loader = self._reading_loader(self.train_set, kwargs.get("batch_size_train", 32), 0)
        else:
            self.train_loader = self._training_loader(self.train_set)
        if self.train_loader_t is not None:
            images: Any = self.train_loader_t.dataset
            check_items(" + ".join(targets), images.train)
            images.train = images.data = _cameras_apart(_sorted_and_relabelled(images.train))
            self.train_loader_t = self._training_loader(images, Sampling.of(kwargs, of_targets=True))
        for name, sides in self.test_dataset.items():
            check_items(name, (*sides["query"], *sides["gallery"]))
            check_identities(name, sides["query"], sides["gallery"], on_no_match)
            for side, loader in self.test_loader[name].items():
                loader.dataset.data.sort()
                sorted_loader = self._reading_loader(loader.dataset, loader.batch_size, loader.num_workers)
                self.test_loader[name][side] = sorted_loader

    def check_images(self) -> None:
        """Makes sure that training and test images can be read; see :func:`~.preflight.check_images`.

        Raises:
            BadImageError: an image cannot, or with ``on_bad_image='skip'`` all of a list.
        """
        lists = {"training images": self.train_set.data}
        if self.train_loader_t is not None:
            targets: Any = self.train_loader_t.dataset
            lists["training images of the targets"] = targets.dataset.data
        for name, sides in self.test_dataset.items():
            lists |= {f"{side} of {name!r}": images for side, images in sides.items()}
        check_images({name: [image[0] for image in images] for name, images in lists.items()}, self.on_bad_image)

    def relabel(self, labels: Integers) -> None:
        """From now on the training loader yields the images with a label alone, with it as their identity.

        Sampler, size of a batch and augmentation stay; the identities of the data sets are not seen in training, but
        :attr:`num_train_pids` is still their number. May be called again and again, each time for all images.

        Args:
            labels: shape (N,) for the N images of :attr:`train_set`, in its order: identities from 0, negative for an
                image to be left out.

        Raises:
            ValueError: another number of labels, labels that are no whole numbers, or too few images or identities
                left to fill a batch; the loader is as it was.
        """
        images = self.train_set.data
        labels = np.asarray(labels)
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"labels are {labels.dtype} of shape {labels.shape}; needed is a whole number for each of the "
                f"{len(images)} training images"
            )
        named = copy.copy(self.train_set)
        named.train = named.data = [
            (path, label, camid, dsetid)
            for (path, _, camid, dsetid), label in zip(images, labels.tolist(), strict=True)
            if label >= 0
        ]
        self.train_loader = self._training_loader(named)

    def train_in_order(self) -> DataLoader:
        """A loader over all training images with the test transform, in the order of :attr:`train_set`."""
        return in_order(self)

    def _training_loader(self, dataset: Any, sampling: Sampling | None = None) -> DataLoader:
        sampling = sampling or self._sampling
        sampler, workers = sampling.build(dataset.train), self.train_loader.num_workers
        return self._reading_loader(dataset, sampling.batch_size, workers, sampler=sampler, drop_last=True)

    def _reading_loader(self, dataset: Any, batch_size: int, workers: int, **settings: Any) -> DataLoader:
        return reading_loader(dataset, self.on_bad_image, batch_size, workers, pin_memory=self.use_gpu, **settings)


@contextmanager
def _loading(root: str, test_only: bool) -> Iterator[None]:
    try:
        with host.training_images_optional() if test_only else nullcontext():
            yield
    except Exception as error:
        explained = explain_loading(error, root)
        if explained is None:
            raise
        raise explained from error


def _names(value: str | Sequence[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _sorted_and_relabelled(train: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Images by data set and path; identities numbered in that order, so that labels do not depend on the machine.

    An identity is a number in a data set: the host adds the number of people of one set to the numbers of the next,
    which gives two people one number where those of the first have gaps.
    """
    ordered = sorted(train, key=lambda item: (item[3], item[0]))
    labels: dict[tuple[int, int], int] = {}
    return [
        (path, labels.setdefault((dsetid, pid), len(labels)), camid, dsetid) for path, pid, camid, dsetid in ordered
    ]


def _cameras_apart(train: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Numbers cameras anew where two data sets share a number: the host takes the number of cameras for the next one.

    A set whose training images come from cameras 0 and 2 alone would share camera 2 with the set that is added to it.
    """
    cameras = sorted({(dsetid, camid) for _, _, camid, dsetid in train})
    if len({camid for _, camid in cameras}) == len(cameras):
        return train
    number = {camera: index for index, camera in enumerate(cameras)}
    return [(path, pid, number[dsetid, camid], dsetid) for path, pid, camid, dsetid in train]
