"""Descriptors of a set of images with the identity and the camera of each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from .arrays import Integers
from .distances import Features, Rows, shape_of

Labels: TypeAlias = Sequence[int] | torch.Tensor | npt.NDArray[Any]


@dataclass(frozen=True, eq=False, init=False)
class Descriptors:
    """Descriptors (N, D) of a set of images.

    Attributes:
        features: shape (N, D), any real dtype: a tensor, an array, lists, or anything with a shape and slices, such as
            a memory map. None where only given distances are evaluated.
        pids: identities, shape (N,); any sequence of integers is taken.
        camids: cameras, shape (N,); likewise.
        paths: files of the images; empty where they are unknown.
        bad_images: files that could not be read and were left out.

    Raises:
        ValueError: labels are no integers, or not one for each image.

    Example:
        >>> len(Descriptors([[0.0, 1.0], [1.0, 0.0]], pids=[7, 8], camids=[0, 1]))
        2
    """

    features: Features | None
    pids: Integers
    camids: Integers
    paths: Sequence[str]
    bad_images: tuple[str, ...]

    def __init__(
        self,
        features: Features | Sequence[Sequence[float]] | None,
        pids: Labels,
        camids: Labels,
        paths: Sequence[str] = (),
        bad_images: tuple[str, ...] = (),
    ) -> None:
        rows = features if features is None or isinstance(features, Rows) else np.asarray(features)
        shape = () if rows is None else tuple(rows.shape)
        images = int(shape[0]) if shape else len(pids)
        labels = {name: _read_labels(name, given, images) for name, given in (("pids", pids), ("camids", camids))}
        self.__dict__.update(features=rows, **labels, paths=paths, bad_images=bad_images)

    def __len__(self) -> int:
        return len(self.pids)


Pair: TypeAlias = tuple[Descriptors, Descriptors]
"""Queries and gallery."""

DIMENSIONS = ("error", "truncate", "pad")
"""Rules for two models whose descriptors differ in dimension."""


def _read_labels(name: str, labels: Labels, images: int) -> Integers:
    array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
    if array.shape != (images,):
        raise ValueError(f"{name} must hold one integer for each of {images} images, got shape {array.shape}")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return array.astype(np.int64)


def require_same_images(versions: Mapping[str, Pair]) -> None:
    """Makes sure that all models describe the same images: as many, of the same identities, cameras and files.

    Files are compared below the folder that those of a model have in common, so that they may have been moved, and only
    where both models name them. A ValueError names two models that differ, and the first difference.
    """
    (first, reference), *others = versions.items()
    for name, pair in others:
        for side, expected, found in zip(("query", "gallery"), reference, pair, strict=True):
            difference = _difference(expected, found)
            if difference:
                raise ValueError(
                    f"{name} has other {side} images than {first}: {difference}. All versions must describe the same "
                    "images in the same order"
                )


def _difference(expected: Descriptors, found: Descriptors) -> str:
    if len(found) != len(expected):
        return f"{len(found)} instead of {len(expected)}"
    columns: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
        "identity": (found.pids.tolist(), expected.pids.tolist()),
        "camera": (found.camids.tolist(), expected.camids.tolist()),
    }
    if found.paths and expected.paths and found.paths != expected.paths:
        columns["file"] = (_below_common_folder(found.paths), _below_common_folder(expected.paths))
    for name, (own, others) in columns.items():
        rows = [row for row, (one, other) in enumerate(zip(own, others, strict=True)) if one != other]
        if rows:
            first = rows[0]
            return f"{name} of {len(rows)} rows, of row {first} {own[first]!r} instead of {others[first]!r}"
    return ""


def _below_common_folder(paths: Sequence[str]) -> list[str]:
    folder = os.path.commonprefix([str(Path(path).parent) + os.sep for path in paths]).rpartition(os.sep)[0]
    return [str(Path(path))[len(folder) :].lstrip(os.sep) for path in paths]


def common_dimension(new: int, old: int, rule: str, names: tuple[str, str] = ("new", "old")) -> int:
    """The dimension in which descriptors of two models are compared, by a rule of ``DIMENSIONS``.

    'truncate' takes the first dimensions of the longer ones, 'pad' adds zeros behind the shorter ones. A ValueError
    says that the rule is unknown, or that dimensions differ under 'error'.

    Example:
        >>> common_dimension(512, 256, "truncate"), common_dimension(512, 256, "pad")
        (256, 512)
    """
    if rule not in DIMENSIONS:
        raise ValueError(f"unknown dimensions {rule!r}; allowed: {', '.join(DIMENSIONS)}")
    if new != old and rule == "error":
        raise ValueError(
            f"{names[0]} descriptors have {new} dimensions and {names[1]} ones {old}: there is no distance between "
            f"them. Of the rules for dimensions, truncate compares the first {min(new, old)} of both, and pad adds "
            "zeros to the shorter ones; both mean something only for models trained that way. In Python "
            "dimensions='truncate', on the command line --dimensions truncate"
        )
    return max(new, old) if rule == "pad" else min(new, old)


def check_dimensions(dims: Mapping[str, int], rule: str) -> None:
    """Makes sure that every version, in time order, can be compared with the one before it."""
    names = list(dims)
    for newer, older in zip(names[1:], names[:-1], strict=True):
        common_dimension(dims[newer], dims[older], rule, (newer, older))


def dimension_of(name: str, sides: Pair) -> int:
    """The dimension of one model's descriptors; a ValueError if queries and gallery differ in it."""
    dims = [
        shape_of(f"{name} {side}", each.features)[1] for side, each in zip(("query", "gallery"), sides, strict=True)
    ]
    if dims[0] != dims[1]:
        raise ValueError(f"{name} descriptors must have one dimension, got {dims[0]} (query) and {dims[1]} (gallery)")
    return dims[0]
