"""Identities for images without labels: clusters of their features."""

from collections.abc import Callable

import numpy as np

from ..evaluation.arrays import Integers
from ..evaluation.distances import Features
from ..evaluation.jaccard import jaccard_graph
from ..runtime.errors import ArgumentError

OUTLIER = -1
"""The label of an image that belongs to no cluster."""


def pseudo_labels(
    features: Features,
    eps: float = 0.6,
    min_samples: int = 4,
    k1: int = 30,
    k2: int = 6,
    memory_mb: float = 512,
    progress: Callable[[int, int], object] | None = None,
) -> Integers:
    """Clusters images by their features: DBSCAN over k-reciprocal Jaccard distances.

    The recipe that methods of unsupervised re-ID share: neighbours by cosine, k1 30, k2 6, 4 images or more, eps 0.6 or
    a little less. Distances are those of re-ranking and no matrix of all pairs is held [ours]. Nothing is drawn at
    random; equal distances keep the order of the images.

    Args:
        features: shape (N, D); their lengths do not matter.
        eps: two images up to this Jaccard distance are neighbours, above 0 and below 1.
        min_samples: an image with as many neighbours, itself counted, is in the core of a cluster; 1 or more.
        k1: see :func:`~torchreid_ptl.evaluation.jaccard.jaccard_graph`, as ``k2`` and ``memory_mb``.
        k2: neighbours whose codes are averaged.
        memory_mb: MiB for one block of distances.
        progress: called with (done, total) images while neighbours are looked for, which takes longest.

    Returns:
        (N,): the cluster of each image, from 0 in the order in which they appear, or -1 for an outlier.

    Raises:
        ValueError: settings out of range, or features that are no finite matrix of two rows or more.

    Example:
        >>> angles = np.array([90, 0, 91, 1, 45])
        >>> features = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)
        >>> pseudo_labels(features, min_samples=2, k1=1, k2=1).tolist()
        [0, 1, 0, 1, -1]
    """
    from sklearn.cluster import DBSCAN  # takes a second to load, and few runs need it

    if min_samples < 1:
        raise ValueError(f"min_samples must be 1 or more, got {min_samples}")
    graph = jaccard_graph(features, eps, k1, k2, memory_mb=memory_mb, progress=progress)
    return _in_order(DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(graph))


def check_clusters(labels: Integers) -> None:
    """Makes sure that the labels of :func:`pseudo_labels` have clusters to tell apart.

    Raises:
        ValueError: there are no clusters, or one; says how many images lie where and what to change.
    """
    clusters, inside = len(np.unique(labels[labels >= 0])), int((labels >= 0).sum())
    if clusters > 1:
        return
    found = f"{len(labels)} images give {clusters} cluster{'s' * (clusters != 1)} and {len(labels) - inside} outliers"
    if 2 * inside < len(labels):
        remedy = "Raise {eps} or lower {min_samples}, so that more images find together"
    else:
        remedy = "Lower {eps} or raise {min_samples}, so that the cluster falls apart"
    raise ArgumentError(
        f"{found}; at least 2 clusters are needed to learn from. {remedy}; or begin from weights that tell people apart"
    )


def _in_order(labels: Integers) -> Integers:
    """Clusters numbered in the order in which they appear; outliers stay."""
    named = np.full(len(labels), OUTLIER, np.int64)
    inside = labels >= 0
    _, first, cluster = np.unique(labels[inside], return_index=True, return_inverse=True)
    named[inside] = np.argsort(np.argsort(first))[cluster]
    return named
