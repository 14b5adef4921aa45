"""Jaccard distances among the images of one set, as a sparse graph of those that are near."""

import numpy as np
from scipy import sparse

from .all_pairs import FeaturePairs
from .arrays import Progress
from .distances import Features
from .reciprocal import Overlaps
from .rerank import check_neighbours, reciprocal_codes


def jaccard_graph(
    features: Features,
    eps: float,
    k1: int = 30,
    k2: int = 6,
    *,
    metric: str = "cosine",
    memory_mb: float = 512,
    progress: Progress | None = None,
) -> sparse.csr_array:
    """Which images have most of their k-reciprocal neighbours in common, and how far they are from having all.

    The Jaccard distance J of :func:`~torchreid_ptl.evaluation.rerank` (Zhong et al., CVPR 2017) [paper] among images of
    one set. Without a common neighbour it is 1, so below 1 few pairs are left; only these are kept [ours].

    Args:
        features: shape (N, D), any real dtype; computed in float32 on their device.
        eps: pairs up to this distance are kept, above 0 and below 1.
        k1: neighbours of an image, itself not counted; as many as there are if it is more.
        k2: neighbours whose codes are averaged, the image itself counted; 1 for none.
        metric: by which neighbours are found: 'cosine' or 'euclidean'.
        memory_mb: MiB for one block of rows against all N images; the codes take some 16 N k1 k2 bytes more, and
            the graph 8 bytes for each pair it keeps.
        progress: called with (done, total) images after each block of the one pass over all pairs.

    Returns:
        (N, N) in float32, symmetric. A stored 0 is a distance; what is not stored is farther than ``eps``. The diagonal
        is stored.

    Raises:
        ValueError: settings out of range, or features that are no finite matrix of two rows or more.

    Example:
        >>> graph = jaccard_graph(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), eps=0.5, k1=1, k2=1)
        >>> [graph.indices[start:end].tolist() for start, end in zip(graph.indptr, graph.indptr[1:])]
        [[0, 1], [0, 1], [2, 3], [2, 3]]
    """
    if not 0 < eps < 1:
        raise ValueError(f"eps must be above 0 and below 1, the distance of images with nothing in common; got {eps}")
    check_neighbours(k1, k2)
    codes, _ = reciprocal_codes(FeaturePairs.among(features, metric), k1, k2, memory_mb, progress)
    codes.sort_indices()  # both directions of a pair add up in the same order: the graph is symmetric to the last bit
    overlaps = Overlaps(codes, codes)
    rows = []
    for image in range(codes.shape[0]):
        distances = overlaps.jaccard(image)
        distances[image] = 0  # which it may not be where no image is a neighbour of its own neighbours
        near = np.flatnonzero(distances <= eps)
        rows.append((near.astype(np.int32), np.maximum(distances[near], 0)))  # rounding may leave one just below 0
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, distances = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return sparse.csr_array((distances, columns, ends), codes.shape)
