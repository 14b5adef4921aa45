"""k-reciprocal neighbour sets and codes as sparse matrices (Zhong et al., CVPR 2017), on the CPU in O(N k)."""

from typing import Any

import numpy as np
from scipy import sparse

from .arrays import Floats32, Integers32

# Rows whose sets are expanded together; a row takes up to k1^2 / 2 counts.
_ROWS = 512


def expanded_sets(nearest: Integers32, k1: int) -> sparse.csr_array:
    """The expanded k-reciprocal sets R* of all images: Equation 5 of Zhong et al. [paper].

    With N(i, k) the k + 1 nearest of i, itself among them as a rule [code], and k1 / 2 rounded to even [code]::

        R(i, k) = {j in N(i, k) : i in N(j, k)}
        R*(i) = R(i, k1) + all R(j, k1 / 2) with j in R(i, k1) and |R(i, k1) & R(j, k1 / 2)| > 2/3 |R(j, k1 / 2)|

    From the k1 + 1 nearest or more, (N, m), near to far; the stored places of row i of (N, N), in order, are R*(i).

    Example:
        >>> nearest = np.array([[0, 1, 2], [1, 0, 2], [2, 3, 1], [3, 2, 1]], dtype=np.int32)
        >>> expanded_sets(nearest, k1=1).indices.tolist()  # {0, 1} twice, {2, 3} twice
        [0, 1, 0, 1, 2, 3, 2, 3]
    """
    wide, narrow = _reciprocal(nearest, k1 + 1), _reciprocal(nearest, round(k1 / 2) + 1)
    parts = [_expand(wide[start : start + _ROWS], narrow) for start in range(0, len(nearest), _ROWS)]
    return sparse.vstack(parts, format="csr")


def encode(sets: sparse.csr_array, distances: Floats32) -> sparse.csr_array:
    """Codes V[i, j] = exp(-d(i, j)) at the stored places of sets, else 0: Equation 7; each row sums to 1 [code]."""
    owners = np.repeat(np.arange(sets.shape[0]), np.diff(sets.indptr))
    weights = np.exp(-distances)
    weights /= np.bincount(owners, weights, sets.shape[0])[owners]
    return sparse.csr_array((weights.astype(np.float32, copy=False), sets.indices, sets.indptr), sets.shape)


def average(codes: sparse.csr_array, nearest: Integers32, k2: int) -> sparse.csr_array:
    """Local query expansion: every code becomes the mean of those of its k2 nearest, Equation 11; unchanged for 1."""
    if k2 == 1:
        return codes
    mean = _members(nearest, k2).astype(np.float32) @ codes
    mean.data /= np.float32(min(k2, nearest.shape[1]))
    return mean


class Overlaps:
    """How much of its code (Q, N) a query shares with each gallery image's (G, N), from the places both have."""

    def __init__(self, queries: sparse.csr_array, gallery: sparse.csr_array) -> None:
        self._queries = queries
        self._gallery = gallery.T.tocsr()

    def jaccard(self, query: int) -> Floats32:
        """Jaccard distances 1 - s / (2 - s), s = sum_j min(V[query, j], V[g, j]), shape (G,): Equation 10 [code]."""
        own = slice(*self._queries.indptr[query : query + 2])
        inverted = self._gallery[self._queries.indices[own]]
        smaller = np.minimum(inverted.data, np.repeat(self._queries.data[own], np.diff(inverted.indptr)))
        shared = np.bincount(inverted.indices, smaller, inverted.shape[1]).astype(np.float32)
        return 1 - shared / (2 - shared)


def _members(nearest: Integers32, count: int) -> sparse.csr_array:
    """Ones at the first neighbours of each row."""
    columns = np.sort(nearest[:, :count], axis=1)
    ends = np.arange(len(columns) + 1) * columns.shape[1]
    return sparse.csr_array((np.ones(columns.size, np.int32), columns.ravel(), ends), (len(columns),) * 2)


def _reciprocal(nearest: Integers32, count: int) -> sparse.csr_array:
    """Ones where both have the other among their first neighbours: symmetric."""
    members = _members(nearest, count)
    return members.multiply(members.T).tocsr()


def _expand(wide: sparse.csr_array, narrow: sparse.csr_array) -> Any:
    """Some rows of R*, from the same rows of R(., k1) and all of R(., k1 / 2)."""
    added = (wide @ narrow).multiply(wide).tocsr()
    sizes = np.diff(narrow.indptr)
    added.data = (3 * added.data > 2 * sizes[added.indices]).astype(np.int32)
    added.eliminate_zeros()
    expanded = (wide + added @ narrow).tocsr()
    expanded.sort_indices()
    return expanded
