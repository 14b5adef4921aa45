"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) in bounded memory: no matrix of all pairs is ever held."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from .all_pairs import AllPairs, FeaturePairs, Matrix, squared_block
from .arrays import Floats32, Integers32, Progress
from .distances import Distances, Features
from .reciprocal import Overlaps, average, encode, expanded_sets

# A distance, and another one if a block does not use the buffer it is given.
_BYTES_PER_PAIR = 8
# More rows at once make the product no faster.
_MOST_ROWS = 1024


def rerank(
    query: Features | None,
    gallery: Features | None,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    metric: str = "euclidean",
    memory_mb: float = 512,
    distances: tuple[Matrix, Matrix, Matrix] | None = None,
    progress: Progress | None = None,
) -> "RerankedDistances":
    """Re-ranks a gallery by the neighbours that each query and each gallery image have in common.

    Zhong et al., CVPR 2017 [paper]. Equal to torchreid's ``re_ranking`` [code], which squares d a second time, divides
    by the farthest image and holds several N x N matrices; equal distances keep the order of the images [ours].

    With all N = Q + G images i, j, R* the expanded k-reciprocal sets of ``k1`` neighbours::

        o(i, j) = d(j, i)^2 / max_k d(k, i)^2           V(i, j) = exp(-o(i, j)) for j in R*(i), else 0; rows sum to 1
        V'(i) = mean of V over the k2 nearest of i      J(q, g) = 1 - s / (2 - s), s = sum_j min(V'(q, j), V'(g, j))
        final(q, g) = (1 - lambda_value) J(q, g) + lambda_value o(q, g)

    If d is 0 everywhere, o is 0, where torchreid returns NaN [ours].

    Args:
        query: descriptors, shape (Q, D), any real dtype; computed in float32 on the device of the gallery.
        gallery: descriptors, shape (G, D). What is not yet a float32 tensor or array is copied into one.
        k1: neighbours of an image, itself not counted; as many as there are if it is more.
        k2: neighbours whose codes are averaged, the image itself counted; 1 for none.
        lambda_value: share of the original distance, 0 to 1.
        metric: 'euclidean' (squared) or 'cosine' (1 - cos).
        memory_mb: MiB for one block of rows against all N images; the codes take some 8 N k1 k2 bytes more.
        distances: instead of descriptors, which may then be None: query-gallery (Q, G), query-query (Q, Q) and
            gallery-gallery (G, G). Of :class:`Distances` objects, the last two must be symmetric.
        progress: called with (done, total) images after each block of the one pass over all pairs.

    Raises:
        ValueError: settings out of range, input that does not fit together, is not finite or overflows when squared,
            or a budget below one row.

    Example:
        >>> query, gallery = np.array([[0.0]]), np.array([[-1.1], [1.0], [1.2], [1.3]])
        >>> reranked = rerank(query, gallery, k1=2, k2=1)
        >>> print(np.asarray(reranked).round(2))  # 1.0 was nearer, but its own two nearest are 1.2 and 1.3
        [[0.32 0.81 0.92 1.  ]]
    """
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be between 0 and 1, got {lambda_value}")
    check_neighbours(k1, k2)
    everyone = _read(query, gallery, metric, distances)
    codes, farthest = reciprocal_codes(everyone, k1, k2, memory_mb, progress)
    overlaps = Overlaps(codes[: everyone.queries], codes[everyone.queries :])
    return RerankedDistances(everyone.between, farthest, overlaps, lambda_value)


def reciprocal_codes(
    everyone: AllPairs, k1: int, k2: int, memory_mb: float, progress: Progress | None = None
) -> tuple[sparse.csr_array, Tensor]:
    """The codes V' (N, N) of :func:`rerank`, and the largest squared distance of each image to any, (N,)."""
    rows = rows_per_block(everyone.total, memory_mb)
    neighbours = _scan(everyone, max(k1 + 1, k2), rows, progress)
    sets = expanded_sets(neighbours.images, k1)
    original = _at_places(sets, neighbours, everyone, rows)
    return average(encode(sets, original), neighbours.images, k2), neighbours.farthest


class RerankedDistances(Distances):
    """Distances after re-ranking, (Q, G), of which blocks are made when they are asked for; see :func:`rerank`."""

    def __init__(self, original: Distances, farthest: Tensor, overlaps: Overlaps, lambda_value: float) -> None:
        self.shape, self.device = original.shape, original.device
        self._original, self._farthest, self._overlaps = original, farthest, overlaps
        self._lambda = lambda_value

    @torch.no_grad()
    def block(self, rows: slice, columns: slice, out: Tensor | None = None) -> Tensor:
        """Final distances of a few queries; their Jaccard distances are counted anew with each call."""
        block = squared_block(self._original, rows, out, columns)
        block.div_(self._farthest[rows, None]).mul_(self._lambda)
        for place, query in enumerate(range(rows.start, rows.stop)):
            jaccard = self._overlaps.jaccard(query)[columns] * np.float32(1 - self._lambda)
            block[place].add_(torch.from_numpy(jaccard).to(self.device))
        return block


def check_neighbours(k1: int, k2: int) -> None:
    """Makes sure that both numbers of neighbours are 1 or more."""
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def _read(
    query: Features | None, gallery: Features | None, metric: str, distances: tuple[Matrix, Matrix, Matrix] | None
) -> AllPairs:
    if distances is None:
        if query is None or gallery is None:
            raise ValueError("query and gallery must both be descriptors where no distances are given, got None")
        return FeaturePairs(query, gallery, metric)
    if len(distances) != 3:
        raise ValueError(f"distances must be three: query-gallery, query-query, gallery-gallery; got {len(distances)}")
    return AllPairs(*distances)


def rows_per_block(total: int, memory_mb: float) -> int:
    """Rows against all images that MiB hold; a ValueError says the least that holds one."""
    row = total * _BYTES_PER_PAIR
    rows = int(memory_mb * 2**20) // row
    if rows < 1:
        raise ValueError(
            f"memory_mb={memory_mb} does not hold the distances of one image to {total}; "
            f"the least that works is {math.ceil(row / 2**20)}"
        )
    return min(rows, _MOST_ROWS, total)


class _Neighbours(NamedTuple):
    """Nearest images (N, m) of each by o and then by index, their o, and the largest squared distance of each, (N,)."""

    images: Integers32
    distances: Floats32
    farthest: Tensor


@torch.no_grad()
def _scan(everyone: AllPairs, count: int, rows: int, progress: Progress | None) -> _Neighbours:
    """One pass over all pairs, for that many neighbours."""
    total, count = everyone.total, min(count, everyone.total)
    buffer = torch.empty(rows * total, device=everyone.between.device)
    images, distances = np.empty((total, count), np.int32), np.empty((total, count), np.float32)
    farthest = torch.empty(total, device=buffer.device)
    for part in everyone.slices(rows):
        sides = everyone.squares(part, buffer)
        farthest[part] = _farthest(sides, part)
        near, columns = zip(*(_nearest(side.div_(farthest[part, None]), count) for side in sides), strict=True)
        values, order = torch.cat(near, dim=1).sort(dim=1, stable=True)
        nearest = torch.cat([columns[0], columns[1] + everyone.queries], dim=1).gather(1, order)
        images[part], distances[part] = nearest[:, :count].cpu().numpy(), values[:, :count].cpu().numpy()
        if progress is not None:
            progress(part.stop, total)
    return _Neighbours(images, distances, farthest)


def _at_places(sets: sparse.csr_array, neighbours: _Neighbours, everyone: AllPairs, rows: int) -> Floats32:
    """The o of the stored places in their order: most are among the nearest, the others are made anew."""
    total = everyone.total
    owners = np.repeat(np.arange(total), np.diff(sets.indptr))
    places = owners * total + sets.indices
    known = (np.arange(total)[:, None] * total + neighbours.images).ravel()
    at = np.searchsorted(places, known)
    stored = np.append(places, -1)[at] == known
    found = np.full(len(places), np.nan, np.float32)
    found[at[stored]] = neighbours.distances.ravel()[stored]
    missing = np.isnan(found)
    rest = sparse.csr_array((missing, sets.indices, sets.indptr), sets.shape, copy=True)
    rest.eliminate_zeros()
    found[missing] = np.square(everyone.stored(rest, rows)) / neighbours.farthest.cpu().numpy()[owners[missing]]
    return found


def _farthest(sides: tuple[Tensor, Tensor], rows: slice) -> Tensor:
    """The largest of each row, to divide by."""
    largest = torch.maximum(*(side.amax(dim=1) for side in sides))
    if not torch.isfinite(largest).all():
        raise ValueError(
            f"squared distances overflow float32 among images {rows.start} to {rows.stop - 1} (queries first); "
            "distances must be below 1.8e19: scale the descriptors down"
        )
    return largest.masked_fill_(largest == 0, 1)


def _nearest(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the smallest entries of each row, by value and then by column."""
    count = min(count, block.shape[1])
    values, columns = torch.topk(block, min(count + 1, block.shape[1]), largest=False)
    # Which of several equal values topk takes at the border is not defined.
    unclear = torch.nonzero((values[:, count:] == values[:, count - 1, None]).any(dim=1)).flatten()
    values, columns = values[:, :count], columns[:, :count]
    for row in unclear:
        below = columns[row][values[row] < values[row, -1]]
        equal = torch.nonzero(block[row] == values[row, -1]).flatten()
        columns[row] = torch.cat([below, equal])[:count]
    columns, order = columns.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, stable=True)
    return values, columns.gather(1, order)
