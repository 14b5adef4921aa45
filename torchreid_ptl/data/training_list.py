"""The list of images a model was trained on, and which classes of two such lists are the same person."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import ArgumentError, MissingFileError
from ..runtime.files import replace_file
from ..runtime.tables import as_csv

NAME = "training_images.csv"
"""The file that a run leaves in ``data.save_dir``."""
COLUMNS = ("path", "label", "camera")
_NUMBER = re.compile("-?[0-9]{1,9}")


@dataclass(frozen=True)
class TrainingList:
    """Images, the class each was trained as, and the camera it is from.

    Attributes:
        paths: relative to ``data.root``, with forward slashes; length N.
        labels: class numbers from 0 on, without gaps; length N.
        cameras: length N.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    cameras: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return max(self.labels) + 1

    def as_csv(self) -> str:
        """The text of the file."""
        return as_csv([COLUMNS, *zip(self.paths, self.labels, self.cameras, strict=True)], "\n")


def training_list(train: Sequence[tuple[Any, ...]], root: str = "") -> TrainingList:
    """The list of images, the host's tuples (path, label, camid, dsetid), with paths below a root."""
    base = os.path.abspath(os.path.expanduser(root))
    paths, labels, cameras, *_ = zip(*train, strict=True)
    return TrainingList(tuple(_below(path, base) for path in paths), tuple(map(int, labels)), tuple(map(int, cameras)))


def write_training_list(path: str | Path, images: TrainingList) -> None:
    """Writes a list; the file appears complete or not at all."""
    replace_file(Path(path), _encoded(images))


def keep_training_list(path: Path, images: TrainingList, begun: bool) -> None:
    """Writes the list of a run, or compares it with the one that the run began with.

    Raises:
        ValueError: a training goes on (``begun``) and the list that is there differs; the file stays as it is.
    """
    if begun and path.is_file():
        before, now = path.read_bytes(), _encoded(images)
        if before == now:
            return
        lines = [text.decode("utf-8", "replace").splitlines() for text in (before, now)]
        first = next((i for i, (a, b) in enumerate(zip_longest(*lines)) if a != b), len(lines[0]))
        then, today = (repr(text[first]) if first < len(text) else "nothing more" for text in lines)
        raise ArgumentError(
            f"The training images, or their classes, are not those that the run began with: line {first + 1} of {path} "
            f"is {then} and would now be {today}. Restore images and settings, or begin a new run in another "
            "{save_dir}"
        )
    write_training_list(path, images)


def read_training_list(path: str | Path) -> TrainingList:
    """Reads a list; columns other than the three are ignored.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a column is missing, a label or a camera is no number, a class has no image, or an image is listed
            as two classes; says in which line.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"No list of training images {path}: a run that trains leaves {NAME} in {{save_dir}}")
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            rows = list(_rows(csv.reader(file), path))
        except csv.Error as error:
            raise ValueError(f"{path} is no CSV file: {error}") from error
    if not rows:
        raise ValueError(f"{path} lists no images; a run that trains leaves a whole one")
    _check_classes(rows, path)
    return TrainingList(*zip(*[row[1:] for row in rows], strict=True))


def matching_classes(old: TrainingList, new: TrainingList) -> npt.NDArray[np.int64]:
    """For each class of a new list, the class of the same person in an old one.

    A person is known by images that both lists hold; two lists without a common image, such as those of data30 and
    data30-rest, have no common class for this function, even where they show the same people.

    Args:
        old: C_old classes.
        new: C_new classes.

    Returns:
        Old classes, shape (C_new,); -1 where no image of the new class is in the old list.

    Raises:
        ValueError: images of one new class belong to two old ones.
    """
    label_of = dict(zip(old.paths, old.labels, strict=True))
    found = np.full(new.num_classes, -1, dtype=np.int64)
    witness: dict[int, str] = {}
    for path, label in zip(new.paths, new.labels, strict=True):
        known = label_of.get(path)
        if known is None:
            continue
        if found[label] not in (-1, known):
            raise ValueError(
                f"Class {label} of the new list is two classes of the old one: {witness[label]} is of class "
                f"{found[label]} there and {path} of class {known}. Give lists of the same data set, with the same "
                "identities"
            )
        found[label] = known
        witness.setdefault(label, path)
    return found


def _encoded(images: TrainingList) -> bytes:
    return images.as_csv().encode("utf-8", "surrogateescape")


def _below(path: str, base: str) -> str:
    full = os.path.abspath(path)
    try:
        relative = os.path.relpath(full, base)
    except ValueError:  # another drive
        relative = full
    return relative.replace(os.sep, "/")


def _rows(reader: Any, path: Path) -> Iterator[tuple[int, str, int, int]]:
    """Yields line number, path, label and camera."""
    header: list[str] = next(reader, [])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ValueError(f"{path} has no column {', '.join(missing)}; its first line is to name {', '.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    for row in filter(None, reader):  # blank lines are no images
        where = f"Line {reader.line_num} of {path}"
        if len(row) != len(header):
            raise ValueError(f"{where} has {len(row)} fields and the first line {len(header)}")
        image, label, camera = (row[place] for place in places)
        if not image:
            raise ValueError(f"{where} names no image")
        if not _NUMBER.fullmatch(label) or int(label) < 0:
            raise ValueError(f"{where}: the label is {label!r}; classes are whole numbers from 0 on")
        if not _NUMBER.fullmatch(camera):
            raise ValueError(f"{where}: the camera is {camera!r}; expected a whole number")
        yield reader.line_num, image, int(label), int(camera)


def _check_classes(rows: Sequence[tuple[int, str, int, int]], path: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for line, image, label, _ in rows:
        before, known = seen.setdefault(image, (line, label))
        if known != label:
            raise ValueError(
                f"Line {line} of {path}: {image} is of class {label}, and of class {known} in line {before}; an image "
                "is of one class"
            )
    labels = {label for _, _, label, _ in rows}
    gap = next(number for number in range(len(labels) + 1) if number not in labels)
    if gap < len(labels):
        raise ValueError(f"{path} has no image of class {gap}, but of class {max(labels)}; classes are without gaps")
