"""Training sets joined into one source: the PTL paper's Market-Duke, and ``joined:A+B`` for any image data sets."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torchreid

from .. import host
from ..runtime.errors import ArgumentError
from .known import hint_dataset

PREFIX = "joined:"


class JoinedTrainingSets(torchreid.data.ImageDataset):
    """The training images of several data sets, and nothing else of them: identities and cameras are kept apart.

    Images come in the order of :attr:`parts` and are the same as with the parts as sources of their own; the number of
    a part is the data set number (dsetid) of its images, so that RandomDatasetSampler tells parts from each other.

    Attributes:
        parts: registered names of the data sets, set by each subclass.
        train_only: there are no queries and no gallery.

    Args:
        root: folder that holds the parts.
        **kwargs: what the host's data manager gives to every data set; each part gets all of it.

    Raises:
        ValueError: images to test on are asked for.
    """

    parts: tuple[str, ...] = ()
    train_only = True

    def __init__(self, root: str = "", mode: str = "train", combineall: bool = False, **kwargs: Any) -> None:
        name = type(self).__name__
        if mode != "train":
            raise ArgumentError(no_target(name, self.parts))
        if combineall:
            raise ArgumentError(no_combineall(name))
        options = {**kwargs, "root": root, "mode": "train", "verbose": False}
        loaded = {part: host.image_datasets()[part](**options).train for part in self.parts}
        train = _kept_apart(loaded.values())
        show = kwargs.pop("verbose", True)
        # torchreid looks at the first query and gallery image, so it is lent some
        super().__init__(train, train[:1], train[:1], mode=mode, verbose=False, **kwargs)
        self.query: list[tuple[Any, ...]] = []
        self.gallery: list[tuple[Any, ...]] = []
        if show:
            print(_table(name, loaded, self))

    def __add__(self, other: Any) -> "JoinedTrainingSets":
        """Adds another data set's training images, as the host does, whose own sum needs a query."""
        offsets = (self.num_train_pids, self.num_train_cams, self.num_datasets)
        total = copy.copy(self)
        added = [(path, *(a + b for a, b in zip(rest, offsets, strict=True))) for path, *rest in other.train]
        total.train = total.data = [*self.train, *added]
        total.num_train_pids = total.get_num_pids(total.train)
        total.num_train_cams = total.get_num_cams(total.train)
        total.num_datasets = total.get_num_datasets(total.train)
        return total

    def __reduce__(self) -> tuple[Any, ...]:
        # subclasses are made on demand: a loading process that was not forked knows this class only
        return object.__new__, (JoinedTrainingSets,), self.__dict__


def make_joined(name: str, parts: Sequence[str]) -> type[JoinedTrainingSets]:
    """The data set class of a name, which joins the data sets registered as ``parts``."""
    facts = {"parts": tuple(parts), "__module__": __name__, "__doc__": f"The training sets of {' and '.join(parts)}."}
    return type(name, (JoinedTrainingSets,), facts)


MARKET_DUKE = make_joined("market_duke", ("market1501", "dukemtmcreid"))
"""Market-Duke [paper]: 29,458 images of 1,453 identities by 14 cameras."""


def ensure_joined(names: Iterable[str]) -> None:
    """Registers the data sets called ``joined:A+B[+C...]`` that are not registered yet; leaves other names alone.

    Raises:
        ValueError: a part is unknown, joined itself or named twice, or there is only one.
    """
    for name in names:
        if name.startswith(PREFIX) and name not in host.image_datasets():
            parts = name.removeprefix(PREFIX).split("+")
            _check_parts(name, parts)
            host.register_image_dataset(name, make_joined(name, parts))


def parts_of(name: str) -> tuple[str, ...]:
    """The data sets that are read for a registered name: its parts if it is joined, else itself."""
    dataset = host.image_datasets().get(name)
    return dataset.parts if isinstance(dataset, type) and issubclass(dataset, JoinedTrainingSets) else (name,)


def no_target(name: str, parts: Sequence[str]) -> str:
    """The message about a target with training images only, of which some parts may be tested on."""
    testable = [other for other in host.image_datasets() if not host.is_train_only(other)]
    own = [part for part in parts if part in testable]
    meant = f"one of its parts ({', '.join(own)}), or another one of" if own else "one of"
    others = ", ".join(other for other in testable if other not in own)
    return (
        f"{{targets}} names {name!r}, which has training images only: there is nobody to search for. Test (-t) on "
        f"{meant} {others}"
    )


def no_combineall(name: str) -> str:
    """The message about a joined set that is to hold query and gallery images too."""
    return (
        f"{{combineall}} True trains on query and gallery images too; {name!r} is made of training images alone, so "
        "that its parts can be tested on. Set {combineall} False, or name the parts as {sources}"
    )


def _check_parts(name: str, parts: Sequence[str]) -> None:
    known = [other for other in host.image_datasets() if parts_of(other) == (other,)]
    for part in parts:
        if part.startswith(PREFIX) or parts_of(part) != (part,):
            raise ValueError(
                f"{name!r} joins {part!r}, which is joined itself; name the data sets one by one: {PREFIX}A+B+C"
            )
        if part not in known:
            raise ValueError(f"{name!r} joins the unknown data set {part!r}: {hint_dataset(part, known)}")
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice:
        raise ValueError(f"{name!r} names {twice!r} twice: each of its people would be trained as two. Name it once")
    if len(parts) < 2:
        raise ValueError(f"{name!r} has one part; join two or more, as {PREFIX}A+B, or say {parts[0]!r} alone")


def _kept_apart(parts: Iterable[list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """All images; identities and cameras of a part are numbered without gaps, after those of the parts before it."""
    train: list[tuple[Any, ...]] = []
    pids = camids = 0
    for number, images in enumerate(parts):
        labels, cameras = _numbered(images, 1, pids), _numbered(images, 2, camids)
        train += [(path, labels[pid], cameras[camid], number) for path, pid, camid, *_ in images]
        pids, camids = pids + len(labels), camids + len(cameras)
    return train


def _numbered(images: list[tuple[Any, ...]], column: int, first: int) -> dict[int, int]:
    return {value: first + index for index, value in enumerate(sorted({image[column] for image in images}))}


def _table(name: str, loaded: dict[str, list[tuple[Any, ...]]], total: JoinedTrainingSets) -> str:
    rule = "  " + "-" * 60
    lines = [f"=> Loaded {name}", rule, "  train of                    | # ids | # images | # cameras", rule]
    for label, train in {**loaded, "all, kept apart": total.train}.items():
        ids, cameras = total.get_num_pids(train), total.get_num_cams(train)
        lines.append(f"  {label:27s} | {ids:5d} | {len(train):8d} | {cameras:9d}")
    return "\n".join([*lines, rule])
