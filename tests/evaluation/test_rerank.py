import doctest
import importlib
import math
from unittest import mock

import numpy as np
import pytest
import torch
import torchreid
from hypothesis import given, settings
from hypothesis import strategies as st

from torchreid_ptl.evaluation import Descriptors, EvaluationOptions, evaluate_ranking, rank
from torchreid_ptl.evaluation.distances import Distances, FeatureDistances
from torchreid_ptl.evaluation.rerank import RerankedDistances, rerank

# `torchreid_ptl.evaluation.rerank` names the function as soon as the package exports it.
RERANK, RECIPROCAL = (importlib.import_module(f"torchreid_ptl.evaluation.{name}") for name in ("rerank", "reciprocal"))
UNSTABLE = np.argsort


def pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    return Descriptors(query, query_pids, query_camids), Descriptors(gallery, gallery_pids, gallery_camids)


def ranked(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids, metric=None, **settings):
    """`evaluate_ranking` of arrays."""
    given = {name: settings.pop(name) for name in ("distances", "progress") if name in settings}
    sides = pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids)
    return evaluate_ranking(*sides, EvaluationOptions(metric=metric, **settings), **given)


def host(triple, k1=20, k2=6, lambda_value=0.3):
    """torchreid's dense re-ranking with equal distances in the order of the images."""
    triple = [np.asarray(each, dtype=np.float32) for each in triple]
    with mock.patch.object(np, "argsort", lambda values: UNSTABLE(values, kind="stable")):
        return torchreid.utils.re_ranking(*triple, k1, k2, lambda_value)


def dense(query, gallery, metric="euclidean"):
    return [FeatureDistances(*pair, metric).dense() for pair in ((query, gallery), (query, query), (gallery, gallery))]


def whole_numbers(seed, queries=13, images=50, dims=3, values=3):
    """Descriptors of few values: many equal distances and duplicates, all of them exact."""
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, values, (rows, dims)).astype(np.float32) for rows in (queries, images))


def gaussian(seed, queries=30, images=170, dims=16):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((25, dims))
    draws = (centres[rng.integers(0, 25, rows)] + rng.standard_normal((rows, dims)) / 2 for rows in (queries, images))
    return tuple(draw.astype(np.float32) for draw in draws)


def plain_neighbours(distances, i, k):
    """The k + 1 nearest of i, itself counted."""
    return sorted(range(len(distances)), key=lambda j: (distances[i][j], j))[: k + 1]


def plain_reciprocal(distances, i, k):
    return {j for j in plain_neighbours(distances, i, k) if i in plain_neighbours(distances, j, k)}


def plain_rerank(features, queries, k1, k2, lambda_value):
    """Sections 3.2 to 3.4 of the paper by loops over sets; squared distances, scaled as the authors' code does."""
    squared = [[sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)) for y in features] for x in features]
    distances = [[d**2 / max(row) ** 2 for d in row] for row in squared]
    codes = []
    for i, row in enumerate(distances):
        own = plain_reciprocal(distances, i, k1)
        expanded = set(own)
        for j in own:
            other = plain_reciprocal(distances, j, round(k1 / 2))
            if 3 * len(own & other) > 2 * len(other):
                expanded |= other
        total = sum(math.exp(-row[j]) for j in expanded)
        codes.append([math.exp(-row[j]) / total if j in expanded else 0.0 for j in range(len(features))])
    means = []
    for i in range(len(features)):
        near = plain_neighbours(distances, i, k2 - 1)
        means.append([sum(codes[j][place] for j in near) / len(near) for place in range(len(features))])
    final = []
    for q in range(queries):
        final.append([])
        for g in range(queries, len(features)):
            shared, united = (sum(map(f, means[q], means[g])) for f in (min, max))
            final[q].append((1 - lambda_value) * (1 - shared / united) + lambda_value * distances[q][g])
    return final


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(4, 3, 0.3), (5, 1, 0.0), (3, 2, 1.0), (7, 4, 0.5)])
def test_equals_plain_loops_from_the_paper(k1, k2, lambda_value):
    query, gallery = gaussian(1, queries=5, images=20, dims=3)
    expected = plain_rerank([*query, *gallery], 5, k1, k2, lambda_value)
    np.testing.assert_allclose(rerank(query, gallery, k1, k2, lambda_value), expected, atol=2e-6)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 9),
    images=st.integers(2, 40),
    dims=st.integers(1, 4),
    values=st.integers(2, 5),
    k1=st.integers(1, 25),
    k2=st.integers(1, 30),
    lambda_value=st.floats(0, 1),
)
def test_equals_the_host_with_ties(seed, queries, images, dims, values, k1, k2, lambda_value):
    query, gallery = whole_numbers(seed, queries, images, dims, values)
    gallery[:2, 0] = [0, 1]  # two images differ: if all are one, the host divides by 0
    expected = host(dense(query, gallery), k1, k2, lambda_value)
    np.testing.assert_allclose(rerank(query, gallery, k1, k2, lambda_value), expected, atol=2e-6)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 8),
    images=st.integers(1, 30),
    values=st.sampled_from([2, 3, 10, 10_000]),
    k1=st.integers(1, 40),
    k2=st.integers(1, 6),
)
def test_equals_the_host_on_any_matrices(seed, queries, images, values, k1, k2):
    """Neither symmetric nor positive, and an image need not be its own nearest."""
    rng = np.random.default_rng(seed)
    shapes = ((queries, images), (queries, queries), (images, images))
    triple = [rng.integers(-1, values, shape).astype(np.float32) for shape in shapes]
    for matrix in triple:
        matrix[0, 0] = 1
        np.fill_diagonal(matrix, 1)
    triple[0][0], triple[0][:, 0] = 2, 2
    np.testing.assert_allclose(rerank(None, None, k1, k2, distances=triple), host(triple, k1, k2), atol=2e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("form", ["features", "tensors", "matrices", "turned matrices", "distances"])
def test_equals_the_host_in_every_form(metric, form):
    query, gallery = gaussian(2)
    triple = dense(query, gallery, metric)
    given = {
        "features": {},
        "tensors": {"query": torch.tensor(query), "gallery": torch.tensor(gallery)},
        "matrices": {"distances": triple},
        "turned matrices": {"distances": [torch.tensor(each.T.copy()).T for each in triple]},
        "distances": {
            "distances": [FeatureDistances(*p, metric) for p in ((query, gallery), (query, query), (gallery, gallery))]
        },
    }[form]
    arguments = {"query": query, "gallery": gallery, **given}
    if "distances" in given:
        arguments |= {"query": None, "gallery": None}
    kept = [each.copy() for each in triple]
    np.testing.assert_allclose(rerank(**arguments, metric=metric), host(triple), atol=2e-6)
    np.testing.assert_array_equal(np.concatenate(triple, None), np.concatenate(kept, None))


def test_cosine_with_ties_equals_the_host():
    """Four coordinates of 1 or -1: lengths and products are exact."""
    query, gallery = (2 * x - 1 for x in whole_numbers(3, queries=10, images=40, dims=4, values=2))
    np.testing.assert_allclose(
        rerank(query, gallery, 9, 4, metric="cosine"), host(dense(query, gallery, "cosine"), 9, 4), atol=2e-6
    )


@pytest.mark.parametrize("make", [whole_numbers, gaussian])
@pytest.mark.parametrize("form", ["features", "matrices"])
def test_a_small_budget_changes_nothing(make, form):
    query, gallery = make(4)
    total = len(query) + len(gallery)
    given = {"distances": dense(query, gallery)} if form == "matrices" else {}
    seen = []
    blocks = rerank(query, gallery, memory_mb=24.5 * total / 2**20, progress=lambda *done: seen.append(done), **given)
    assert len(seen) >= total / 3
    np.testing.assert_allclose(blocks, rerank(query, gallery, **given), atol=2e-6)


def test_small_products_change_nothing(monkeypatch):
    query, gallery = gaussian(5)
    expected = np.asarray(rerank(query, gallery))
    monkeypatch.setattr("torchreid_ptl.evaluation.all_pairs._PAIRS", 1)
    monkeypatch.setattr(RECIPROCAL, "_ROWS", 7)
    np.testing.assert_allclose(rerank(query, gallery), expected, atol=2e-6)


def test_blocks_are_parts_of_the_whole():
    query, gallery = gaussian(6)
    reranked = rerank(query, gallery)
    assert isinstance(reranked, RerankedDistances)
    assert isinstance(reranked, Distances)
    assert reranked.shape == (30, 170)
    whole, buffer = np.asarray(reranked), torch.full((6000,), math.nan)
    for rows, columns in ((slice(0, 1), slice(0, 170)), (slice(3, 20), slice(11, 12)), (slice(29, 30), slice(50, 170))):
        for out in (None, buffer):
            block = reranked.block(rows, columns, out)
            assert block.dtype == torch.float32
            np.testing.assert_allclose(block.numpy(), whole[rows, columns], atol=2e-6)
    assert reranked.block(slice(0, 30), slice(0, 170), buffer).data_ptr() == buffer.data_ptr()


def test_ranks_block_by_block_like_the_dense_matrix():
    query, gallery = gaussian(7)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 8, 30), rng.integers(0, 8, 170), rng.integers(0, 3, 30), rng.integers(0, 3, 170)]
    reranked = rerank(query, gallery)
    lazy = ranked(query, gallery, *labels, distances=reranked, memory_mb=0.2)
    np.testing.assert_array_equal(
        lazy.average_precision,
        ranked(query, gallery, *labels, distances=host(dense(query, gallery))).average_precision,
    )


def test_shared_neighbours_bring_images_nearer():
    """Gallery image 0 lies at the same distance as image 1 but in the query's own cluster."""
    query = np.array([[0.0, 0.0]])
    gallery = np.array([[1.0, 0.0], [-1.0, 0.0], [0.5, 0.1], [0.6, -0.1], [-1.1, 0.0], [-1.2, 0.0], [-1.1, 0.1]])
    first, second = np.asarray(rerank(query, gallery, 3, 2))[0, :2]
    assert first < second - 0.1


def test_images_that_are_all_one_stay_finite():
    reranked = np.asarray(rerank(np.ones((2, 3)), np.ones((6, 3)), 3, 2))
    assert ((reranked >= 0) & (reranked <= 0.7)).all()
    assert np.asarray(rerank(np.ones((1, 1)), np.ones((1, 1)))).tolist() == [[0.0]]


def test_nobody_is_a_neighbour_of_its_neighbours():
    """No image is among its own two nearest, and none has the other among them: all codes are empty."""
    q_g = [[2, 2, 2, 2, 2], [4, 2, 4, 4, 2]]
    q_q = [[5, 2], [3, 5]]
    g_g = [[5, 4, 3, 3, 3], [1, 5, 4, 4, 4], [1, 4, 5, 3, 4], [4, 1, 3, 5, 4], [1, 1, 2, 1, 5]]
    triple = [np.array(each, np.float32) for each in (q_g, q_q, g_g)]
    reranked = np.asarray(rerank(None, None, 1, 2, distances=triple))
    np.testing.assert_allclose(reranked, host(triple, 1, 2), atol=2e-6)
    assert (reranked > 0.7).all()  # the Jaccard distance is 1 everywhere


def test_moving_and_scaling_by_powers_of_two_changes_nothing():
    query, gallery = whole_numbers(8)
    expected = np.asarray(rerank(query, gallery))
    np.testing.assert_array_equal(rerank(query * 2.0**20, gallery * 2.0**20), expected)
    np.testing.assert_array_equal(rerank(query + 5, gallery + 5), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", ">f4"])
def test_other_dtypes(dtype):
    query, gallery = whole_numbers(9)
    np.testing.assert_array_equal(
        rerank(query.astype(dtype), gallery.astype(dtype)[::-1][::-1]), rerank(query, gallery)
    )


def test_lists_files_and_tracked_tensors():
    class Lines:
        """Rows that are read by slices alone, as those of an HDF5 file."""

        def __init__(self, array):
            self.array, self.shape = array, array.shape

        def __getitem__(self, rows):
            assert isinstance(rows, slice)
            return self.array[rows].astype("float16")

    query, gallery = whole_numbers(10)
    expected = np.asarray(rerank(query, gallery))
    np.testing.assert_array_equal(rerank(query.tolist(), Lines(gallery)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        tracked = rerank(torch.tensor(query, requires_grad=True), torch.tensor(gallery, requires_grad=True))
        np.testing.assert_array_equal(tracked, expected)


def test_progress_counts_images():
    seen = []
    rerank(*gaussian(11), progress=lambda *done: seen.append(done))
    assert seen == [(30, 200), (200, 200)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [whole_numbers, gaussian])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_gpu_equals_cpu(make, metric):
    query, gallery = (torch.tensor(x) + 1 for x in make(12))
    expected = np.asarray(rerank(query, gallery, metric=metric))
    on_gpu = rerank(query, gallery.cuda(), metric=metric)
    assert on_gpu.block(slice(0, 2), slice(0, 3)).is_cuda
    if metric == "euclidean" or make is gaussian:
        np.testing.assert_allclose(on_gpu, expected, atol=1e-5)
    triple = [torch.tensor(each).cuda() for each in dense(query, gallery, metric)]
    np.testing.assert_allclose(
        rerank(None, None, distances=triple), rerank(None, None, distances=[t.cpu() for t in triple]), atol=1e-5
    )


def bad(**changes):
    query, gallery = whole_numbers(13, queries=4, images=20)
    return {"query": query, "gallery": gallery, **changes}


def triple_of(*shapes):
    return {"distances": tuple(np.zeros(shape) for shape in shapes)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k1": 0}, "k1 must be 1 or more, got 0"),
        ({"k2": -2}, "k2 must be 1 or more, got -2"),
        ({"lambda_value": 1.01}, "lambda_value must be between 0 and 1, got 1.01"),
        ({"lambda_value": math.nan}, "lambda_value must be between 0 and 1, got nan"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'; allowed: euclidean, cosine"),
        ({"query": None}, "query and gallery must both be descriptors"),
        ({"query": np.zeros((4, 2))}, r"same dimension, got 2 \(query\) and 3 \(gallery\)"),
        ({"gallery": np.zeros(3)}, r"gallery descriptors must be a matrix .*got shape \(3,\)"),
        ({"query": np.zeros((0, 3))}, r"query is empty: .*\(0, 3\)"),
        ({"gallery": np.full((20, 3), np.nan)}, "20 of 20 gallery rows hold NaN"),
        ({"query": np.full((4, 3), 1e10)}, "overflow float32 among images 0 to 3 .*scale the descriptors down"),
        (triple_of((4, 20), (4, 4)), "distances must be three: .*; got 2"),
        (
            triple_of((4, 20), (4, 5), (20, 20)),
            r"query-query distances must have shape \(4, 4\) .*got \(4, 5\)|\(5, 4\)",
        ),
        (triple_of((4, 20), (4, 4), (4, 4)), r"gallery-gallery distances must have shape \(20, 20\) .*got \(4, 4\)"),
        (triple_of((4, 20), (4,), (20, 20)), r"distances must be a matrix .*got shape \(4,\)"),
        (triple_of((0, 20), (0, 0), (20, 20)), r"query-gallery distances are empty: got shape \(0, 20\)"),
        ({"distances": (np.full((4, 20), np.nan), np.zeros((4, 4)), np.zeros((20, 20)))}, "NaN in 4 of 4 rows"),
        ({"distances": (np.full((4, 20), np.inf), np.zeros((4, 4)), np.zeros((20, 20)))}, "overflow float32"),
        ({"memory_mb": 0}, "memory_mb=0 does not hold the distances of one image to 24; the least that works is 1$"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        rerank(**bad(**changes))


def test_distances_on_two_devices():
    triple = [torch.zeros(shape) for shape in ((2, 3), (2, 2), (3, 3))]
    elsewhere = mock.Mock(spec=Distances, shape=(2, 2), device=torch.device("meta"))
    with pytest.raises(ValueError, match="distances must be on one device, got cpu, meta"):
        rerank(None, None, distances=(triple[0], elsewhere, triple[2]))


def test_least_memory_works():
    with pytest.raises(ValueError, match="the least that works is 8$"):
        RERANK.rows_per_block(1_000_000, 7)
    assert RERANK.rows_per_block(1_000_000, 8) == 1


def test_share_of_two_thirds_is_exact_in_the_host():
    """We compare whole numbers where the host multiplies by 2 / 3: never different."""
    assert all((2.0 / 3 * n < count) == (2 * n < 3 * count) for n in range(300) for count in range(n + 1))


@pytest.mark.parametrize("module", [RERANK, RECIPROCAL])
def test_examples_in_the_documentation(module):
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_the_option_reranks_before_the_ranking():
    query, gallery = gaussian(8)
    rng = np.random.default_rng(1)
    labels = [rng.integers(0, 8, 30), rng.integers(0, 8, 170), rng.integers(0, 3, 30), rng.integers(0, 3, 170)]
    sides, options, seen = pair(query, gallery, *labels), EvaluationOptions(rerank=True, metric="cosine"), []
    expected = evaluate_ranking(*sides, distances=rerank(query, gallery, metric="cosine"))
    parts = rank(*sides, options, progress=lambda part: lambda done, total: seen.append((part, done, total)))
    for found in (parts, evaluate_ranking(*sides, options)):
        np.testing.assert_array_equal(found.average_precision, expected.average_precision)
    assert (seen[0][0], seen[-1]) == ("neighbours", ("ranking", 30, 30))
    plain = evaluate_ranking(*sides, EvaluationOptions(metric="cosine"))
    assert (plain.average_precision != expected.average_precision).any()
    np.testing.assert_array_equal(rank(*sides).average_precision, evaluate_ranking(*sides).average_precision)


def test_options_from_the_keywords_of_the_host():
    options = EvaluationOptions.of(
        dist_metric="cosine", normalize_feature=True, ranks=[1, 7], visrank=True, visrank_topk=3, flip=True
    )
    assert options == EvaluationOptions("cosine", normalize=True, flip=True, ranks=(1, 7), max_rank=7, return_top=3)
    assert EvaluationOptions.of(use_metric_cuhk03=True).protocol == "cuhk03"
    assert EvaluationOptions.of(visrank_topk=3).return_top == 0
    with pytest.raises(TypeError, match="unexpected keyword argument 'rank'"):
        EvaluationOptions.of(rank=[1])
