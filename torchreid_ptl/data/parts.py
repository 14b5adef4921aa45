"""Parts of training sets, for the data settings of backward-compatible training: ``class30:X``, ``data30-rest:X``, ...

Of the identities of ``X``, ``class30`` holds 30 percent with all their images and ``class30-rest`` the others; of the
images of each identity, ``data30`` holds 30 percent and ``data30-rest`` the others. ``holdout30`` is for choosing
hyper-parameters: it trains on ``class30-rest`` and is tested on the training images of ``class30``.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torchreid

from .. import host
from ..runtime.errors import ArgumentError
from ..runtime.hints import nearest
from .joined import PREFIX, parts_of
from .known import hint_dataset

SEED = 2024
"""Every cut of every data set is made with it; another one gives other parts."""
FORMS = (
    f"classP:NAME, classP-rest:NAME, dataP:NAME, dataP-rest:NAME, holdoutP:NAME with P from 1 to 99, {PREFIX}NAME+NAME"
)
_NAME = re.compile(r"(class|data|holdout(?![0-9]+-rest))([1-9][0-9]?)(-rest)?:(.+)")

Image = tuple[Any, ...]
"""The host's tuple (path, pid, camid, dsetid)."""


@dataclass(frozen=True)
class Part:
    """What a name says.

    Attributes:
        kind: ``'class'`` cuts by identities, ``'data'`` the images of each identity; ``'holdout'`` cuts by identities,
            and the first part is the test of the other one.
        percent: the share of the first part, 1 to 99.
        rest: whether it is the other part; ``'holdout'`` has none.
        whole: registered name of the data set that is cut.
    """

    kind: str
    percent: int
    rest: bool
    whole: str

    def __str__(self) -> str:
        return f"{self.kind}{self.percent}{'-rest' if self.rest else ''}:{self.whole}"

    @property
    def trained(self) -> "Part":
        """The part, by identities or images, with its training images."""
        return Part("class", self.percent, True, self.whole) if self.kind == "holdout" else self

    @property
    def tested(self) -> "Part | None":
        """The part whose training images are its test; None when it is tested as the whole is."""
        return Part("class", self.percent, False, self.whole) if self.kind == "holdout" else None

    def shares_people(self, other: "Part") -> bool:
        """Whether an identity can be trained on in both; parts by identities lie along one order of them."""
        if self.whole != other.whole:
            return False
        one, another = self.trained, other.trained
        if one.kind == another.kind == "class" and one.rest != another.rest:
            first, rest = (another, one) if one.rest else (one, another)
            return first.percent > rest.percent
        return True


class PartOfTrainingSet(torchreid.data.ImageDataset):
    """A part of the training images of a data set; query and gallery are those of the whole.

    Those of a held part are :func:`held_out` of the training images instead; of the whole's own nothing is used.
    Identities are numbered without gaps, in the order of their first images; cameras and data set numbers (dsetid)
    are the whole's.

    Attributes:
        part: which one, set by each subclass.
        train_only: whether there is nothing to test on.

    Args:
        root: folder that holds the whole.
        **kwargs: what the host's data manager gives to every data set; the whole gets all of it.

    Raises:
        ValueError: the part has no images or nobody to search for, or query and gallery images are asked for beside it.
    """

    part: Part
    train_only = False

    def __init__(self, root: str = "", mode: str = "train", combineall: bool = False, **kwargs: Any) -> None:
        if combineall and mode == "train":
            raise ArgumentError(no_combineall(self.part))
        show = kwargs.pop("verbose", True)
        held = self.part.kind == "holdout"
        dataset = host.image_datasets()[self.part.whole]
        # the whole may be for training only
        whole: Any = dataset(root=root, mode="train" if held else mode, verbose=False, **kwargs)
        train = cut(whole.train, self.part)
        query, gallery = held_out(whole.train, self.part) if held else (whole.query, whole.gallery)
        # torchreid looks at the first query and gallery image, which a set for training may lack
        super().__init__(train, query or train[:1], gallery or train[:1], mode=mode, verbose=False, **kwargs)
        self.query, self.gallery = query, gallery
        if mode != "train" and not held:
            self.data = whole.data
        if show:
            self.show_summary()

    def __reduce__(self) -> tuple[Any, ...]:
        # subclasses are made on demand: a loading process that was not forked knows this class only
        return object.__new__, (PartOfTrainingSet,), self.__dict__


def cut(train: Sequence[Image], part: Part) -> list[Image]:
    """The images of a part, in their order, with identities numbered anew.

    Which they are depends on the images' paths below their common folder, on which of them show one person, and on
    :data:`SEED`; it does not depend on the folder, the order of the images, the numbers of identities or the machine.
    One order of the identities, and one of the images of each, serves all percentages: a part is within each larger
    one of its kind.

    * ``class``: of n identities, n P / 100 are in the first part, rounded to the nearest number, halves up.
    * ``data``: likewise of the n images of each identity, but at least one, and at most n - 1, so that an identity
      with two images or more is in both parts. An only image is in the first part.
    * ``holdout``: the other part by identities, and neither part is empty.

    An image that is listed twice counts once and is in one part. The list ``train`` is not empty.

    Raises:
        ValueError: it would have no identity or no image.
    """
    paths = _below_their_folder([image[0] for image in train])
    images_of: dict[Any, set[str]] = {}
    for path, image in zip(paths, train, strict=True):
        images_of.setdefault(image[1], set()).add(path)
    # two identities may share their first image
    people = sorted(images_of, key=lambda pid: sorted(images_of[pid]))
    first = _first_images(images_of, part) if part.kind == "data" else _first_people(people, images_of, part)
    rest = part.trained.rest
    kept = [image for path, image in zip(paths, train, strict=True) if ((image[1], path) in first) != rest]
    left = {image[1] for image in kept}
    labels = {pid: label for label, pid in enumerate(pid for pid in people if pid in left)}
    return [(path, labels[pid], *others) for path, pid, *others in kept]


def held_out(train: Sequence[Image], part: Part) -> tuple[list[Image], list[Image]]:
    """Query and gallery of a held part, made of training images of people whom it does not train on.

    The gallery has all their images, the query the first image, by its path below the common folder, by each camera of
    everybody whom two cameras saw. Queries are in the gallery too: an evaluation leaves out images of the query's
    person by the query's camera. The list ``train`` is not empty.

    Raises:
        ValueError: no person was seen by two cameras.
    """
    assert part.tested is not None
    # an image that is listed twice counts once
    gallery = list(dict.fromkeys(cut(train, part.tested)))
    first: dict[tuple[Any, Any], Image] = {}
    for _, image in sorted(zip(_below_their_folder([image[0] for image in gallery]), gallery, strict=True)):
        first.setdefault((image[1], image[2]), image)
    seen_by = Counter(pid for pid, _ in first)
    query = [image for (pid, _), image in first.items() if seen_by[pid] > 1]
    if not query:
        raise ValueError(
            f"'{part}' would have no query: two cameras saw none of the {len(seen_by)} people of {part.tested}. Choose "
            f"a larger percentage than {part.percent}; or train on {part.trained} and test on another data set"
        )
    return query, gallery


def ensure_parts(names: Iterable[str]) -> None:
    """Registers the parts among names that are not registered yet; leaves names without a colon and joined ones alone.

    Raises:
        ValueError: a name like that of a part, which is none; or one of an unknown data set, of a joined one, or of a
            part. Gives the nearest valid name.
    """
    for name in names:
        if ":" in name and not name.startswith(PREFIX) and name not in host.image_datasets():
            part = read_part(name)
            if not part:
                raise ValueError(f"{name!r} names no data set: did you mean {_mended(name)!r}? Allowed: {FORMS}")
            _check_whole(part)
            train_only = part.kind != "holdout" and host.is_train_only(part.whole)
            said = f"A part of the training set of {part.whole}."
            facts = {"part": part, "train_only": train_only, "__module__": __name__, "__doc__": said}
            host.register_image_dataset(name, type(name, (PartOfTrainingSet,), facts))


def read_part(name: str) -> Part | None:
    """What a name says, registered or not; None when it is not like that of a part."""
    found = _NAME.fullmatch(name)
    return Part(found[1], int(found[2]), bool(found[3]), found[4]) if found else None


def part_of(name: str) -> Part | None:
    """Which part a registered name stands for; None when it is no part."""
    dataset = host.image_datasets().get(name)
    return dataset.part if isinstance(dataset, type) and issubclass(dataset, PartOfTrainingSet) else None


def whole_of(name: str) -> str:
    """The data set that a registered part is cut from; any other name is its own."""
    part = part_of(name)
    return part.whole if part else name


def test_of(name: str) -> str:
    """The data set with the query and gallery of a registered name: a held part is its own, other parts' the whole."""
    part = part_of(name)
    return part.whole if part and not part.tested else name


def no_combineall(part: Part) -> str:
    """The message about a part that is to hold query and gallery images too."""
    tested = f"the training images of {part.tested}" if part.tested else f"all of {part.whole}"
    return (
        f"{{combineall}} True trains on query and gallery images too; '{part}' is a part of the training images, "
        f"tested on {tested}. Set {{combineall}} False"
    )


def _check_whole(part: Part) -> None:
    inside = part.whole.removeprefix(PREFIX).split("+") if part.whole.startswith(PREFIX) else parts_of(part.whole)
    if part.whole not in inside:
        share = str(part).partition(":")[0]
        each = "+".join(f"{share}:{name}" for name in inside)
        raise ValueError(f"'{part}' cuts {part.whole!r}, which is joined; cut what it joins: {PREFIX}{each}")
    known = _wholes()
    if part_of(part.whole) or _NAME.fullmatch(part.whole):
        raise ValueError(f"'{part}' cuts {part.whole!r}, which is a part itself; cut a whole data set, in one step")
    if part.whole not in known:
        meant = f"did you mean {_mended(str(part))!r}? " if nearest(part.whole, known) else ""
        said = f"{meant}Allowed: {', '.join(known)}"
        if part.whole in host.video_datasets():
            said = hint_dataset(part.whole, known)
        raise ValueError(f"'{part}' cuts the unknown data set {part.whole!r}: {said}")


def _wholes() -> list[str]:
    return [name for name in host.image_datasets() if parts_of(name) == (name,) and not part_of(name)]


def _mended(name: str) -> str:
    """The valid name nearest to a wrong one."""
    head, _, whole = name.partition(":")
    digits = re.search("[0-9]+", head)
    percent = min(max(int(digits[0]), 1), 99) if digits else 30
    heads = [f"{kind}{percent}{rest}" for kind in ("class", "data") for rest in ("", "-rest")]
    close = nearest(head.lower(), [*heads, PREFIX[:-1]]) or heads[0]
    word = re.split("[^a-z]", head.lower())[0]
    if nearest(word, ("class", "data", "holdout", PREFIX[:-1])) == "holdout":  # which has no rest
        close = f"holdout{percent}"
    if close == PREFIX[:-1]:
        return f"{PREFIX}{whole}"
    known = _wholes()
    return f"{close}:{whole if whole in known else nearest(whole, known) or 'NAME'}"


def _first_people(people: Sequence[Any], images_of: dict[Any, set[str]], part: Part) -> set[tuple[Any, str]]:
    """Pairs of identity and path in the first of two parts by identities."""
    total = len(people)
    count = _rounded(total, part.percent)
    held = part.kind == "holdout"
    if count == (total if part.trained.rest else 0) or (held and not count):
        least, most = -(-50 // total), (100 * total - 51) // total
        bound = f"at least {least}" if not count else f"at most {most}"
        lacks = f" to {'train' if count else 'test'} on" if held else ""
        raise ValueError(
            f"'{part}' would have no identity{lacks}: {part.percent} percent of {total} are {count}, rounded. "
            f"Choose {'a data set with more identities' if held and least > most else bound}"
        )
    ordered = _drawn(people, lambda pid: min(images_of[pid]))
    return {(pid, path) for pid in ordered[:count] for path in images_of[pid]}


def _first_images(images_of: dict[Any, set[str]], part: Part) -> set[tuple[Any, str]]:
    """Pairs of identity and path in the first of two parts by images."""
    if part.rest and all(len(paths) == 1 for paths in images_of.values()):
        raise ValueError(
            f"'{part}' would have no image: every identity of {part.whole} has one training image, which is in "
            f"data{part.percent}:{part.whole}. Cut by identities: class{part.percent}-rest:{part.whole}"
        )
    first = set()
    for pid, paths in images_of.items():
        count = min(_rounded(len(paths), part.percent), len(paths) - 1)
        first |= {(pid, path) for path in _drawn(sorted(paths), str)[: max(count, 1)]}
    return first


def _rounded(total: int, percent: int) -> int:
    return (total * percent + 50) // 100


def _drawn(items: Sequence[Any], path_of: Callable[[Any], str]) -> list[Any]:
    """Items in an order drawn with the seed; by a hash, because generators may change with their library."""

    def place(item: Any) -> bytes:
        return hashlib.sha256(f"{SEED} {path_of(item)}".encode("utf-8", "surrogateescape")).digest()

    return sorted(items, key=place)


def _below_their_folder(paths: Sequence[str]) -> list[str]:
    """Paths relative to the folder that holds all images, with forward slashes."""
    full = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in full])
    return [os.path.relpath(path, folder).replace(os.sep, "/") for path in full]
