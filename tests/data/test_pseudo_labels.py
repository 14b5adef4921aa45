"""Clusters in the place of identities."""

import doctest
import warnings
from collections import deque

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from torchreid_ptl.data import pseudo_labels as module
from torchreid_ptl.data.pseudo_labels import check_clusters, pseudo_labels
from torchreid_ptl.evaluation.jaccard import jaccard_graph


def people(seed, identities=9, images=12, spread=0.15):
    """Images in random order of identities that lie apart, some of them twice, and their identities."""
    rng = np.random.default_rng(seed)
    pids = rng.permutation(np.repeat(np.arange(identities), images))
    features = rng.standard_normal((identities, 16))[pids] + spread * rng.standard_normal((len(pids), 16))
    return np.concatenate([features, features[:9]]), np.concatenate([pids, pids[:9]])


def plain_dbscan(distances, eps, min_samples):
    """Ester et al. 1996 by a queue: clusters grow from core points in the order of the images."""
    near = [np.flatnonzero(row <= eps) for row in distances]
    labels, clusters = np.full(len(near), -1), 0
    for image in range(len(near)):
        if labels[image] >= 0 or len(near[image]) < min_samples:
            continue
        queue = deque([image])
        labels[image] = clusters
        while queue:
            point = queue.popleft()
            if len(near[point]) >= min_samples:
                for other in near[point]:
                    if labels[other] < 0:
                        labels[other] = clusters
                        queue.append(other)
        clusters += 1
    return labels


def in_order_of_appearance(labels):
    numbers = {}
    return [-1 if label < 0 else numbers.setdefault(label, len(numbers)) for label in labels]


def test_identities_that_lie_apart_are_found():
    features, pids = people(0, images=40)
    labels = pseudo_labels(features)
    assert labels.dtype == np.int64
    assert labels.min() == 0
    assert adjusted_rand_score(pids, labels) == 1
    assert labels.tolist() == in_order_of_appearance(labels)


@pytest.mark.parametrize("min_samples", [1, 2, 4, 9])
@pytest.mark.parametrize("eps", [0.2, 0.5, 0.7])
def test_equals_a_plain_dbscan_over_the_distances(eps, min_samples):
    features, _ = people(1, spread=0.9)
    graph = jaccard_graph(features, eps, 10, 3)
    dense = np.ones(graph.shape, np.float32)
    dense[np.repeat(np.arange(len(features)), np.diff(graph.indptr)), graph.indices] = graph.data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = pseudo_labels(features, eps, min_samples, 10, 3)
    expected = in_order_of_appearance(plain_dbscan(dense, eps, min_samples))
    assert labels.tolist() == expected
    assert len(set(expected)) > 1


def test_duplicates_at_distance_zero_are_neighbours():
    """A stored zero is a distance, and not, as zeros of sparse matrices elsewhere, a pair that is not there."""
    features = np.repeat(np.eye(3), 4, axis=0)
    labels = pseudo_labels(features, eps=0.01, min_samples=4, k1=3, k2=1)
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_shuffling_changes_the_numbers_alone():
    features, _ = people(2)
    labels = pseudo_labels(features)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(features))
        assert pseudo_labels(features[order]).tolist() == in_order_of_appearance(labels[order])


def test_equal_distances_give_the_same_labels_again_and_in_any_blocks():
    tied = np.random.default_rng(3).integers(1, 4, (80, 3)).astype(np.float32)
    shuffled = tied[np.random.default_rng(4).permutation(80)]
    for features in (tied, shuffled):
        labels = pseudo_labels(features, 0.5, 3, 8, 2).tolist()
        assert len(set(labels)) > 2
        assert pseudo_labels(features.copy(), 0.5, 3, 8, 2).tolist() == labels
        assert pseudo_labels(features, 0.5, 3, 8, 2, memory_mb=0.005).tolist() == labels


def test_lengths_of_features_do_not_matter():
    features, _ = people(5)
    scales = 2.0 ** np.random.default_rng(0).integers(-3, 4, (len(features), 1))
    assert pseudo_labels(features * scales).tolist() == pseudo_labels(features).tolist()


def test_too_few_samples():
    with pytest.raises(ValueError, match="min_samples must be 1 or more, got 0"):
        pseudo_labels(people(6)[0], min_samples=0)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([-1] * 7, "7 images give 0 clusters and 7 outliers; at least 2 .*Raise eps or lower .*min_sam"),
        ([0, 0] + [-1] * 5, "7 images give 1 cluster and 5 outliers.*Raise eps"),
        ([0] * 6 + [-1], "7 images give 1 cluster and 1 outliers.*Lower eps or raise .*min_samples"),
    ],
)
def test_nothing_to_tell_apart(labels, message):
    with pytest.raises(ValueError, match=message):
        check_clusters(np.array(labels))


def test_two_clusters_are_enough():
    check_clusters(np.array([0, -1, 1]))


def test_example_in_the_documentation():
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed
