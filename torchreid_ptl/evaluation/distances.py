"""Distances from queries to a gallery, made block by block; the complete matrix is never held."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from .arrays import Floats32, name_some, slices

METRICS = ("euclidean", "cosine")

# The sum |q|^2 + |g|^2 + 2 |q| |g| must stay finite in float32.
_LARGEST_NORM = math.sqrt(torch.finfo(torch.float32).max) / 2
# Below it squares lose digits: the smallest float32 of full precision is 1.2e-38.
_SHORTEST_NORM = 1e-17
# |mean|^2 over the mean squared distance from the mean, at which distances have errors of about 1e-3.
_FARTHEST = 1e4
# Rows that must be read, converted or normalised are so in parts of this many bytes, which the allocator reuses.
_PART_BYTES = 16 * 2**20
_CHECKED_ROWS = 256


@runtime_checkable
class Rows(Protocol):
    """Descriptors that are read when they are needed: a memory map, an HDF5 data set, several files in a row."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(self, rows: slice, /) -> Any: ...


Features: TypeAlias = Tensor | npt.NDArray[Any] | Rows


class Distances(ABC):
    """A matrix of distances (queries, gallery) of which blocks are made when they are asked for.

    Attributes:
        shape: number of queries and of gallery images.
        device: where blocks are.
    """

    shape: tuple[int, int]
    device: torch.device

    @abstractmethod
    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """Some rows and columns, in float32.

        Args:
            rows: queries; both ends given.
            columns: gallery images; both ends given.
            out: a buffer of at least as many float32 values that may be used instead of new memory.

        Returns:
            Distances (rows, columns); only to be read, since they may be a view of the caller's own.
        """

    def __len__(self) -> int:
        return self.shape[0]

    def dense(self) -> Floats32:
        """The complete matrix; four bytes for each pair."""
        return self.block(slice(0, self.shape[0]), slice(0, self.shape[1])).cpu().numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.dense() if dtype is None else self.dense().astype(dtype)


class MatrixDistances(Distances):
    """Distances that are given as a matrix.

    Args:
        matrix: shape (Q, G), without NaN.
        device: where to rank.
    """

    def __init__(self, matrix: Tensor | npt.NDArray[Any], device: torch.device | None = None) -> None:
        self._matrix = as_float32(matrix, device)
        if self._matrix.dim() != 2:
            raise ValueError(f"distances must be a matrix (queries, gallery), got shape {tuple(self._matrix.shape)}")
        suspects = self._matrix[torch.isnan(self._matrix.sum(dim=1))]  # a sum is NaN too for both infinities
        wrong = int(torch.isnan(suspects).any(dim=1).sum())
        if wrong:
            raise ValueError(f"distances hold NaN in {wrong} of {len(self._matrix)} rows")
        self.shape = (self._matrix.shape[0], self._matrix.shape[1])
        self.device = self._matrix.device

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """A view."""
        return self._matrix[rows, columns]


class FeatureDistances(Distances):
    """Distances between descriptors: squared Euclidean ones, or 1 - cosine, as torchreid computes them [code].

    Args:
        query: descriptors (Q, D) of any real dtype; computed in float32, whatever comes in.
        gallery: descriptors (G, D); may be anything with a shape and slices.
        metric: ``'euclidean'`` or ``'cosine'``.
        device: where to compute; the gallery's by default.

    Raises:
        ValueError: an unknown metric, an empty side, different dimensions, or rows that are not finite (names them).
    """

    def __init__(
        self, query: Features, gallery: Features, metric: str = "euclidean", device: torch.device | str | None = None
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}; allowed: {', '.join(METRICS)}")
        self.metric = metric
        self.device = device_of(gallery, device)
        sides = {"query": query, "gallery": gallery}
        self._query, self._gallery = (_Side(name, side, self.device) for name, side in sides.items())
        dims = self._query.dim, self._gallery.dim
        if dims[0] != dims[1]:
            raise ValueError(f"descriptors must have the same dimension, got {dims[0]} (query) and {dims[1]} (gallery)")
        self.shape = (len(self._query), len(self._gallery))
        self._squares = [side.check_finite() for side in (self._query, self._gallery)]
        remark = self._no_direction() if metric == "cosine" else self._rounded_away()
        if remark:
            warnings.warn(remark, stacklevel=2)

    def _no_direction(self) -> str:
        zeros = [int((squares == 0).sum()) for squares in self._squares]
        if not any(zeros):
            return ""
        return f"{zeros[0]} query and {zeros[1]} gallery rows are zero: they have no direction, and cosine distance 1"

    def _rounded_away(self) -> str:
        """What |q|^2 + |g|^2 - 2 q.g loses in float32, judged by the first rows of the gallery."""
        first = slice(0, min(_CHECKED_ROWS, len(self._gallery)))
        rows = torch.cat([part for _, part in self._gallery.parts(first)])
        longest = float(torch.linalg.vector_norm(rows.double(), dim=1).max())
        if 0 < longest < _SHORTEST_NORM:
            return (
                f"descriptors are at most {longest:.1e} long, and their squares are too small for float32: multiply "
                "all by the same number"
            )
        mean = rows.mean(dim=0)
        spread = float((rows - mean).square().sum(dim=1).mean())
        if float(mean.square().sum()) <= _FARTHEST * spread or spread == 0:
            return ""
        return (
            f"descriptors lie {math.sqrt(float(mean.square().sum()) / spread):.0f} times as far from 0 as from each "
            "other, and float32 rounds their distances: subtract the same vector from all, their mean for example"
        )

    @torch.no_grad()
    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """A product of a few rows of queries with the gallery, whose parts are converted as they come."""
        shape = rows.stop - rows.start, columns.stop - columns.start
        block = torch.empty(shape, device=self.device) if out is None else out[: math.prod(shape)].view(shape)
        # Autocast would turn the product into half precision.
        with torch.autocast(self.device.type, enabled=False):
            parts = [self._prepared(part) for _, part in self._query.parts(rows, at_once=True)]
            query = torch.cat(parts) if len(parts) > 1 else parts[0]
            for place, part in self._gallery.parts(columns, at_once=self.metric == "euclidean"):
                inner = block[:, place.start - columns.start : place.stop - columns.start]
                gallery = self._prepared(part)
                if self.metric == "cosine":
                    torch.mm(query, gallery.T, out=inner)
                    torch.sub(torch.ones((), device=self.device), inner, out=inner)
                else:
                    torch.add(self._squares[0][rows, None], self._squares[1][place], out=inner)
                    inner.addmm_(query, gallery.T, alpha=-2)
        return block

    def _prepared(self, features: Tensor) -> Tensor:
        return functional.normalize(features) if self.metric == "cosine" else features


class _Side:
    """Query or gallery: rows that are read in parts as float32."""

    def __init__(self, name: str, features: Features, device: torch.device) -> None:
        self._name, self._device = name, device
        if not isinstance(features, Rows):
            features = np.asarray(features)
        self.dim = shape_of(name, features)[1]
        if isinstance(features, np.ndarray):
            features = torch.from_numpy(features) if _is_plain(features) else as_float32(features)
        self._features = features
        self._ready = isinstance(features, Tensor) and features.dtype == torch.float32 and features.device == device

    def __len__(self) -> int:
        return self._features.shape[0]

    def parts(self, rows: slice, at_once: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """Places and float32 rows; `at_once` in one part, if they need no conversion."""
        step = max(1, _PART_BYTES // (4 * self.dim))
        if self._ready and at_once:
            step = rows.stop - rows.start
        for place in slices(rows, step):
            yield place, as_float32(self._features[place], self._device)

    def check_finite(self) -> Tensor:
        """Squared lengths (N,) of the rows, which must be finite."""
        squares = torch.empty(len(self), device=self._device)
        scratch = torch.empty(_CHECKED_ROWS, self.dim, device=self._device)
        for place, part in self.parts(slice(0, len(self))):
            for piece, out in zip(part.split(_CHECKED_ROWS), squares[place].split(_CHECKED_ROWS), strict=True):
                torch.sum(torch.square(piece, out=scratch[: len(piece)]), dim=1, out=out)
        bad = torch.nonzero(~(squares <= _LARGEST_NORM**2)).flatten().tolist()
        if bad:
            raise ValueError(
                f"{len(bad)} of {len(self)} {self._name} rows hold NaN, infinite or, for float32, too large values: "
                f"{name_some(bad)}"
            )
        return squares


def shape_of(name: str, features: Features | None) -> tuple[int, int]:
    """Images and dimensions of descriptors; a ValueError if they are no matrix, or there are none."""
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 2:
        raise ValueError(f"{name} descriptors must be a matrix (images, dimensions), got shape {shape}")
    if not all(shape):
        raise ValueError(f"{name} is empty: got descriptors of shape {shape}")
    return int(shape[0]), int(shape[1])


def device_of(rows: object, device: torch.device | str | None = None) -> torch.device:
    """The device asked for, else that of a tensor, else the CPU."""
    own = rows.device if isinstance(rows, Tensor | Distances) else "cpu"
    # 'cuda' becomes 'cuda:0', which is what tensors on it name
    return torch.empty(0, device=own if device is None else device).device


def as_float32(features: Tensor | npt.NDArray[Any], device: torch.device | None = None) -> Tensor:
    """A float32 tensor, sharing memory where that is possible."""
    if not isinstance(features, Tensor):
        # Too large a float64 becomes infinite here and is reported with its row.
        with np.errstate(over="ignore"):
            features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    return features.detach().to(device, torch.float32)


def _is_plain(array: npt.NDArray[Any]) -> bool:
    """Whether torch takes an array as it is."""
    known = (np.float16, np.float32, np.float64, np.int8, np.uint8, np.int16, np.int32, np.int64)
    return array.dtype in known and array.dtype.isnative and array.flags.writeable and min((0, *array.strides)) == 0
