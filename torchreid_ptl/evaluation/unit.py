"""Descriptors of unit length, made when they are needed, and rankings of one set of images by several models."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .arrays import NAMED_IN_ERRORS, slices
from .distances import Features, Rows, as_float32
from .labels import Labels
from .ranking import evaluate_ranking
from .result import RankingResult

DIMENSIONS = ("error", "truncate", "pad")
"""What to do where two models give descriptors of different dimensions."""

# Rows are read and checked in parts of this many bytes.
_PART_BYTES = 16 * 2**20

AllLabels = tuple[Labels, Labels, Labels, Labels]


class NormalizedRows:
    r"""Descriptors (N, D) as x / \|x\| in float32, a slice at a time; only their lengths are kept.

    Args:
        name: what they are, for errors: ``'old gallery'``.
        features: shape (N, D); also a memory map or anything else with a shape and slices.
        device: where slices are wanted.
        dim: dimension to compare in: the first ones are taken, or zeros added, before they are normalised.

    Attributes:
        shape: (N, dim).

    Raises:
        ValueError: no matrix, nothing in it, or rows that have no direction or are not finite (names them).

    Example:
        >>> rows = NormalizedRows("query", np.array([[3.0, 4.0], [0.0, 2.0]]))
        >>> rows[1:2].tolist(), rows.shape
        ([[0.0, 1.0]], (2, 2))
    """

    def __init__(
        self, name: str, features: Features, device: torch.device | str | None = None, dim: int | None = None
    ) -> None:
        self._name, self._device = name, torch.device(device or "cpu")
        # a memory map stays one: nothing is read before it is asked for
        self._features = features if isinstance(features, Rows) else np.asarray(features)
        given = shape_of(name, self._features)
        self.shape = (given[0], given[1] if dim is None else dim)
        self._lengths = self._measure()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows, shape (n, dim)."""
        return self._read(rows) / self._lengths[rows, None].to(self._device)

    def resized(self, dim: int) -> "NormalizedRows":
        """The same descriptors in another dimension, normalised there; nothing is read again where it is the same."""
        return self if dim == self.shape[1] else NormalizedRows(self._name, self._features, self._device, dim)

    def _read(self, rows: slice) -> Tensor:
        part = as_float32(self._features[rows], self._device)[:, : self.shape[1]]
        missing = self.shape[1] - part.shape[1]
        return functional.pad(part, (0, missing)) if missing else part

    def _measure(self) -> Tensor:
        """Lengths (N,), which must lie in the range of float32."""
        lengths = torch.empty(len(self), dtype=torch.float64)
        for place in slices(slice(0, len(self)), max(1, _PART_BYTES // (8 * self.shape[1]))):
            lengths[place] = self._read(place).double().norm(dim=1).cpu()
        limits = torch.finfo(torch.float32)
        self._refuse(lengths <= limits.tiny, "are zero and have no direction")
        self._refuse(~(lengths <= limits.max), "hold NaN, infinite or, for float32, too large values")
        return lengths.float()

    def _refuse(self, wrong: Tensor, words: str) -> None:
        bad = torch.nonzero(wrong).flatten().tolist()
        if bad:
            named = ", ".join(map(str, bad[:NAMED_IN_ERRORS])) + (", ..." if len(bad) > NAMED_IN_ERRORS else "")
            where = f" in the {self.shape[1]} dimensions compared" if self.shape[1] < self._features.shape[1] else ""
            raise ValueError(f"{len(bad)} of {len(self)} {self._name} rows {words}{where}: {named}")


def normalized_sides(
    name: str,
    query: Features,
    gallery: Features,
    device: torch.device | str | None = None,
    dim: int | None = None,
) -> tuple[NormalizedRows, NormalizedRows]:
    """Queries and gallery of a model as :class:`NormalizedRows`."""
    return NormalizedRows(f"{name} query", query, device, dim), NormalizedRows(f"{name} gallery", gallery, device, dim)


def device_of(gallery: Features, device: torch.device | str | None) -> torch.device | str | None:
    """Where to compute: where somebody says, or where the gallery is."""
    return gallery.device if device is None and isinstance(gallery, Tensor) else device


def shape_of(name: str, features: Features) -> tuple[int, int]:
    """Images and dimensions of descriptors.

    Raises:
        ValueError: they are no matrix, or there are none.
    """
    shape = tuple(np.shape(features) if not isinstance(features, Rows) else features.shape)
    if len(shape) != 2:
        raise ValueError(f"{name} descriptors must be a matrix (images, dimensions), got shape {shape}")
    if not all(shape):
        raise ValueError(f"{name} is empty: got descriptors of shape {shape}")
    return int(shape[0]), int(shape[1])


def common_dimension(new: int, old: int, rule: str, names: tuple[str, str] = ("new", "old")) -> int:
    """The dimension in which descriptors of two models are compared.

    Args:
        new: dimension of one model.
        old: of the other.
        rule: 'error', 'truncate' (the first dimensions of the longer ones) or 'pad' (zeros behind the shorter ones).
        names: of the models, for errors.

    Raises:
        ValueError: an unknown rule, or different dimensions under 'error'.

    Example:
        >>> common_dimension(512, 256, "truncate"), common_dimension(512, 256, "pad")
        (256, 512)
    """
    if rule not in DIMENSIONS:
        raise ValueError(f"unknown dimensions {rule!r}; allowed: {', '.join(DIMENSIONS)}")
    if new != old and rule == "error":
        raise ValueError(
            f"{names[0]} descriptors have {new} dimensions and {names[1]} ones {old}: there is no distance between "
            f"them. dimensions='truncate' compares the first {min(new, old)} of both, dimensions='pad' adds zeros to "
            "the shorter ones; both mean something only for models trained that way"
        )
    return max(new, old) if rule == "pad" else min(new, old)


def dimension_of(name: str, query: Features, gallery: Features) -> int:
    """The dimension of one model's descriptors.

    Raises:
        ValueError: queries and gallery differ in it.
    """
    dims = shape_of(f"{name} query", query)[1], shape_of(f"{name} gallery", gallery)[1]
    if dims[0] != dims[1]:
        raise ValueError(f"{name} descriptors must have one dimension, got {dims[0]} (query) and {dims[1]} (gallery)")
    return dims[0]


def require_same_images(sides: dict[str, tuple[Features, Features]]) -> None:
    """Makes sure all models described as many queries and gallery images.

    Args:
        sides: query and gallery descriptors by the name of the model.

    Raises:
        ValueError: they did not.
    """
    counts = {
        name: (shape_of(f"{name} query", query)[0], shape_of(f"{name} gallery", gallery)[0])
        for name, (query, gallery) in sides.items()
    }
    first = next(iter(counts))
    for name, found in counts.items():
        if found != counts[first]:
            raise ValueError(
                f"all models must describe the same images: {first} has {counts[first][0]} queries and "
                f"{counts[first][1]} gallery images, {name} has {found[0]} and {found[1]}"
            )


class Rankings:
    """Ranks one gallery after the other with the same labels and settings, and tells how far it is in all of them.

    Args:
        labels: identities of queries and gallery, cameras of queries and gallery.
        count: rankings to come.
        progress: called with the number of queries ranked so far and in all.
        **options: of :func:`evaluate_ranking`.
    """

    def __init__(
        self, labels: AllLabels, count: int, progress: Callable[[int, int], None] | None, **options: Any
    ) -> None:
        self._labels, self._count, self._progress, self._options = labels, count, progress, options
        self._done = 0

    def __call__(self, query: Features, gallery: Features) -> RankingResult:
        """Ranks one gallery."""
        result = evaluate_ranking(query, gallery, *self._labels, **self._options, progress=self._tell)
        self._done += 1
        return result

    def _tell(self, done: int, queries: int) -> None:
        if self._progress is not None:
            self._progress(self._done * queries + done, self._count * queries)


def is_right(result: RankingResult) -> npt.NDArray[np.bool_]:
    """Whether the nearest image of each query is a match, shape (Q,)."""
    return result.first_hit == 1
