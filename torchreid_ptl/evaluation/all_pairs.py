"""Distances among all images of queries and gallery, put together from the parts without holding them."""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from .arrays import Floats32, name_some, slices, take
from .distances import Distances, FeatureDistances, Features, MatrixDistances, Rows, as_float32, device_of

Matrix: TypeAlias = Distances | Tensor | npt.NDArray[Any]

# Pairs of one small product; they bound how many descriptors are gathered for it.
_PAIRS = 512


class AllPairs:
    """Distances (N, N) among Q queries and G gallery images, queries first, from matrices (Q, G), (Q, Q) and (G, G).

    Row i holds the distances of all images to i, as torchreid reads the matrices: their columns. :class:`Distances`
    objects of one set with itself are read by rows and must be symmetric. A ValueError names shapes or devices that do
    not fit together, or NaN.
    """

    def __init__(self, query_gallery: Matrix, query_query: Matrix, gallery_gallery: Matrix) -> None:
        device = device_of(gallery_gallery)
        between = _as_distances(query_gallery, device)
        within = [_as_distances(each, device, turned=True) for each in (query_query, gallery_gallery)]
        queries, images = between.shape
        if not (queries and images):
            raise ValueError(f"query-gallery distances are empty: got shape {between.shape}")
        expected = {"query-query": (queries, queries), "gallery-gallery": (images, images)}
        for (name, shape), each in zip(expected.items(), within, strict=True):
            if each.shape != shape:
                raise ValueError(
                    f"{name} distances must have shape {shape} for query-gallery distances of shape {between.shape}, "
                    f"got {each.shape}"
                )
        devices = {str(each.device) for each in (between, *within)}
        if len(devices) > 1:
            raise ValueError(f"distances must be on one device, got {', '.join(sorted(devices))}")
        self._connect(between, Transposed(between), within[0], within[1])

    def _connect(self, between: Distances, back: Distances, queries: Distances, images: Distances) -> None:
        self.between, self._back, self._within = between, back, (queries, images)
        self.queries, self.total = between.shape[0], sum(between.shape)

    def slices(self, rows: int) -> Iterator[slice]:
        """Blocks of rows, each of queries or of gallery images alone."""
        yield from slices(slice(0, self.queries), rows)
        yield from slices(slice(self.queries, self.total), rows)

    def row_parts(self, rows: slice) -> tuple[Distances, Distances, slice]:
        """For a block of rows: distances to queries, distances to gallery images, and which of their rows it is."""
        if rows.start < self.queries:
            return self._within[0], self.between, rows
        return self._back, self._within[1], slice(rows.start - self.queries, rows.stop - self.queries)

    @torch.no_grad()
    def squares(self, rows: slice, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """A block of squared distances to queries and to gallery images, both in the buffer."""
        first, second, inner = self.row_parts(rows)
        cut = (rows.stop - rows.start) * self.queries
        return squared_block(first, inner, buffer[:cut]), squared_block(second, inner, buffer[cut:])

    def stored(self, places: sparse.csr_array, rows: int) -> Floats32:
        """Distances at the stored places of a sparse (N, N) matrix in their order, from blocks of so many rows."""
        found = [np.empty(0, np.float32)]
        for part in self.slices(rows):
            first, second, inner = self.row_parts(part)
            owners, columns = _places(places, part)
            to_query = columns < self.queries
            values = np.empty(len(columns), np.float32)
            values[to_query] = _pick(first, inner, owners[to_query], columns[to_query])
            values[~to_query] = _pick(second, inner, owners[~to_query], columns[~to_query] - self.queries)
            found.append(values)
        return np.concatenate(found)


class FeaturePairs(AllPairs):
    """Distances (N, N) between descriptors (Q, D) and (G, D), as float32 on the gallery's device."""

    def __init__(self, query: Features, gallery: Features, metric: str) -> None:
        images = load_features(gallery)
        queries = load_features(query, images.device)
        self._sides, self._metric = (queries, images), metric
        self._connect(
            FeatureDistances(queries, images, metric),
            FeatureDistances(images, queries, metric),
            FeatureDistances(queries, queries, metric),
            FeatureDistances(images, images, metric),
        )

    @classmethod
    def among(cls, features: Features, metric: str) -> "FeaturePairs":
        """Distances among the rows of one set, which are checked; its halves, views, stand for queries and gallery."""
        images = load_features(features)
        if images.dim() != 2 or len(images) < 2 or not images.shape[1]:
            raise ValueError(f"features must be (images, dimensions) of two images or more, got {tuple(images.shape)}")
        bad = torch.nonzero(~torch.isfinite(images).all(dim=1)).flatten().tolist()
        if bad:
            raise ValueError(
                f"{len(bad)} of {len(images)} rows of features hold NaN or infinite values: {name_some(bad)}"
            )
        half = len(images) // 2
        return cls(images[:half], images[half:], metric)

    def stored(self, places: sparse.csr_array, rows: int) -> Floats32:
        """Distances at the stored places, from products of a few rows with the descriptors they need."""
        found = [np.empty(0, np.float32)]
        start = 0
        while start < self.total:
            enough = int(np.searchsorted(places.indptr, places.indptr[start] + _PAIRS, "right")) - 1
            part = slice(start, max(enough, start + 1))
            owners, columns = _places(places, part)
            # only rows with places: in between there may be any number without
            owning, outer = np.unique(owners, return_inverse=True)
            needed, inner = np.unique(columns, return_inverse=True)
            if len(needed):
                images = self._take(part.start + owning), self._take(needed)
                found.append(FeatureDistances(*images, self._metric).dense()[outer, inner])
            start = part.stop
        return np.concatenate(found)

    def _take(self, images: npt.NDArray[Any]) -> Tensor:
        """Descriptors of images in ascending order."""
        cut = np.searchsorted(images, self.queries)
        taken = self._sides[0].new_empty(len(images), self._sides[0].shape[1])
        for side, index, out in zip(
            self._sides, (images[:cut], images[cut:] - self.queries), (taken[:cut], taken[cut:]), strict=True
        ):
            torch.index_select(side, 0, torch.from_numpy(index).to(side.device), out=out)
        return taken


class Transposed(Distances):
    """Distances with rows and columns exchanged."""

    def __init__(self, original: Distances) -> None:
        self.shape, self.device = (original.shape[1], original.shape[0]), original.device
        self._original = original

    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """A view."""
        return self._original.block(columns, rows).T


def squared_block(distances: Distances, rows: slice, out: Tensor | None = None, columns: slice | None = None) -> Tensor:
    """Squares of some rows of distances, in ``out`` or in new memory but never in the caller's own."""
    columns = columns or slice(0, distances.shape[1])
    shape = rows.stop - rows.start, columns.stop - columns.start
    block = torch.empty(shape, device=distances.device) if out is None else out[: math.prod(shape)].view(shape)
    given = distances.block(rows, columns, block.view(-1))
    return torch.mul(given, given, out=block)


def _as_distances(matrix: Matrix, device: torch.device, turned: bool = False) -> Distances:
    if isinstance(matrix, Distances):
        return matrix
    tensor = as_float32(matrix, device)
    return MatrixDistances(tensor.T if turned and tensor.dim() == 2 else tensor)


def load_features(features: Features, device: torch.device | None = None) -> Tensor:
    """All descriptors as a float32 tensor."""
    if not isinstance(features, Rows):
        features = np.asarray(features)
    if not isinstance(features, Tensor | np.ndarray):
        features = features[slice(0, features.shape[0])]
    return as_float32(features, device)


def _places(places: sparse.csr_array, rows: slice) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Row, counted from the first, and column of the stored places of some rows."""
    ends = places.indptr[rows.start : rows.stop + 1]
    return np.repeat(np.arange(len(ends) - 1), np.diff(ends)), places.indices[ends[0] : ends[-1]]


def _pick(distances: Distances, rows: slice, owners: npt.NDArray[Any], columns: npt.NDArray[Any]) -> Floats32:
    return take(distances.block(rows, slice(0, distances.shape[1])), owners, columns)
