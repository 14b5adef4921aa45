"""Jaccard distances among the images of one set."""

import doctest
import math

import numpy as np
import pytest
import torch

from torchreid_ptl.evaluation import jaccard
from torchreid_ptl.evaluation.jaccard import jaccard_graph


def gaussian(seed, images=90, dims=8):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, dims))
    return (centres[rng.integers(0, 12, images)] + rng.standard_normal((images, dims)) / 3).astype(np.float32)


def whole_numbers(seed, images=40, values=4):
    """Many equal distances and duplicates, all of them exact."""
    return np.random.default_rng(seed).integers(0, values, (images, 2)).astype(np.float32)


def dense_jaccard(features, k1, k2, metric):
    """Sections 3.1 to 3.4 of the paper by whole matrices and sets, in float64."""
    features = features.astype(np.float64)
    if metric == "cosine":
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        distances = (1 - unit @ unit.T) ** 2
    else:
        distances = ((features[:, None] - features[None]) ** 2).sum(axis=2) ** 2
    distances = distances / distances.max(axis=1, keepdims=True)
    images = range(len(features))
    ranks = np.argsort(distances, axis=1, kind="stable")

    def mutual(i, k):
        return {j for j in ranks[i, : k + 1] if i in ranks[j, : k + 1]}

    codes = np.zeros_like(distances)
    for i in images:
        expanded = set(mutual(i, k1))
        for j in mutual(i, k1):
            half = mutual(j, round(k1 / 2))
            if 3 * len(half & mutual(i, k1)) > 2 * len(half):
                expanded |= half
        for j in expanded:
            codes[i, j] = math.exp(-distances[i, j])
    codes /= np.maximum(codes.sum(axis=1, keepdims=True), 1e-300)
    if k2 > 1:  # of several images at distance 0, another one may come first
        codes = np.stack([codes[ranks[i, :k2]].mean(axis=0) for i in images])
    shared = np.minimum(codes[:, None], codes[None]).sum(axis=2)
    united = np.maximum(codes[:, None], codes[None]).sum(axis=2)
    return 1 - shared / united


@pytest.mark.parametrize(
    ("features", "metric"),
    [(gaussian(0), "cosine"), (gaussian(1), "euclidean"), (whole_numbers(2), "euclidean"), (gaussian(3)[:7], "cosine")],
)
@pytest.mark.parametrize(("k1", "k2"), [(6, 1), (10, 4), (30, 6)])
@pytest.mark.parametrize("eps", [0.3, 0.6, 0.95])
def test_equals_the_dense_distances(features, metric, k1, k2, eps):
    graph = jaccard_graph(features, eps, k1, k2, metric=metric)
    expected = dense_jaccard(features, k1, k2, metric)
    np.fill_diagonal(expected, 0)
    kept = np.zeros(graph.shape, bool)
    rows = np.repeat(np.arange(len(features)), np.diff(graph.indptr))
    kept[rows, graph.indices] = True
    assert kept[expected <= eps - 1e-5].all()
    assert not kept[expected > eps + 1e-5].any()
    np.testing.assert_allclose(graph.data, expected[rows, graph.indices], atol=2e-6)


def test_most_pairs_are_left_out():
    graph = jaccard_graph(gaussian(0, images=300), 0.6, 10, 3)
    assert 300 < graph.nnz < 300 * 300 / 5


def test_symmetric_to_the_last_bit_with_a_stored_diagonal():
    graph = jaccard_graph(gaussian(4, images=200), 0.7, 20, 6)
    turned = graph.T.tocsr()
    turned.sort_indices()
    np.testing.assert_array_equal(graph.indices, turned.indices)
    np.testing.assert_array_equal(graph.data, turned.data)
    stored = [image in graph.indices[slice(*graph.indptr[image : image + 2])] for image in range(200)]
    assert all(stored)
    assert (graph.diagonal() == 0).all()
    assert graph.data.min() == 0


def test_a_duplicate_is_stored_at_zero():
    features = np.concatenate([whole_numbers(5, images=10, values=9)] * 2)
    graph = jaccard_graph(features, 0.5, 1, 2, metric="euclidean")
    for image in range(10):
        own = slice(*graph.indptr[image : image + 2])
        stored = dict(zip(graph.indices[own].tolist(), graph.data[own].tolist(), strict=True))
        assert stored[image + 10] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_budget_changes_nothing(rows):
    features = whole_numbers(6, images=60)
    expected = jaccard_graph(features, 0.8, 8, 3, metric="euclidean")
    graph = jaccard_graph(features, 0.8, 8, 3, metric="euclidean", memory_mb=rows * 60 * 8 / 2**20)
    np.testing.assert_array_equal(graph.indptr, expected.indptr)
    np.testing.assert_array_equal(graph.indices, expected.indices)
    np.testing.assert_array_equal(graph.data, expected.data)


def test_tensors_and_progress():
    features, seen = gaussian(7), []
    graph = jaccard_graph(torch.tensor(features), 0.6, progress=lambda *done: seen.append(done))
    np.testing.assert_array_equal(graph.toarray(), jaccard_graph(features, 0.6).toarray())
    assert seen == [(45, 90), (90, 90)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": 0}, "eps must be above 0 and below 1.*got 0"),
        ({"eps": 1.0}, "eps must be above 0 and below 1.*got 1.0"),
        ({"k1": 0}, "k1 must be 1 or more, got 0"),
        ({"k2": 0}, "k2 must be 1 or more, got 0"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'"),
        ({"features": np.zeros(3)}, r"two images or more, got \(3,\)"),
        ({"features": np.zeros((1, 3))}, r"two images or more, got \(1, 3\)"),
        ({"features": np.array([[1.0], [np.nan], [2.0], [np.inf]])}, "2 of 4 rows of features hold NaN.*: 1, 3$"),
        ({"memory_mb": 0}, "memory_mb=0 does not hold"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        jaccard_graph(**{"features": gaussian(8), "eps": 0.5, **changes})


def test_example_in_the_documentation():
    result = doctest.testmod(jaccard)
    assert result.attempted
    assert not result.failed
