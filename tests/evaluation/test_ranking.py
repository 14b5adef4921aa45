import doctest
import json
import warnings

import numpy as np
import pytest
import torch
import torchreid
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from torchreid_ptl.evaluation import (
    Descriptors,
    EvaluationOptions,
    RankingResult,
    blocks,
    distances,
    evaluate_ranking,
    ranking,
)


def pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    return Descriptors(query, query_pids, query_camids), Descriptors(gallery, gallery_pids, gallery_camids)


def ranked(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids, metric=None, **settings):
    """`evaluate_ranking` of arrays."""
    given = {name: settings.pop(name) for name in ("distances", "progress") if name in settings}
    sides = pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids)
    return evaluate_ranking(*sides, EvaluationOptions(metric=metric, **settings), **given)


def naive_list(query, gallery, pid, camid, gallery_pids, gallery_camids):
    """Junk-free (gallery index, is a match) pairs from near to far, by plain arithmetic."""
    entries = []
    for index, image in enumerate(gallery):
        if gallery_pids[index] == pid and gallery_camids[index] == camid:
            continue
        distance = sum((float(a) - float(b)) ** 2 for a, b in zip(query, image, strict=True))
        entries.append((distance, index, gallery_pids[index] == pid))
    return [(index, match) for _, index, match in sorted(entries)]


def naive_scores(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    """(AP, INP, first rank) per query, None for a query without match."""
    scores = []
    for features, pid, camid in zip(query, query_pids, query_camids, strict=True):
        found, precisions, places = 0, [], []
        for place, (_, match) in enumerate(naive_list(features, gallery, pid, camid, gallery_pids, gallery_camids), 1):
            if match:
                found += 1
                precisions.append(found / place)
                places.append(place)
        scores.append((sum(precisions) / found, found / places[-1], places[0]) if found else None)
    return scores


def scene(seed, queries=12, images=40, dims=3, people=5, cameras=3, values=3):
    """Whole-numbered descriptors of few values: many equal distances, all of them exact."""
    rng = np.random.default_rng(seed)
    draw = rng.integers
    return (
        draw(0, values, (queries, dims)).astype(np.float32),
        draw(0, values, (images, dims)).astype(np.float32),
        draw(0, people, queries),
        draw(0, people, images),
        draw(0, cameras, queries),
        draw(0, cameras, images),
    )


def gaussian_scene(seed, queries=30, images=200, dims=16, people=8, cameras=4):
    rng = np.random.default_rng(seed)
    _, _, *labels = scene(seed, queries, images, dims, people, cameras)
    return (rng.standard_normal((queries, dims)), rng.standard_normal((images, dims)), *labels)


def assert_same(result, other):
    for name in ("mAP", "mINP", "cmc", "average_precision", "inverse_negative_penalty", "first_hit", "skipped"):
        np.testing.assert_array_equal(getattr(result, name), getattr(other, name), err_msg=name)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 9),
    images=st.integers(1, 30),
    dims=st.integers(1, 4),
    people=st.integers(1, 6),
    cameras=st.integers(1, 4),
    values=st.integers(1, 4),
    max_rank=st.integers(1, 40),
)
def test_equals_plain_loops_with_ties(seed, queries, images, dims, people, cameras, values, max_rank):
    data = scene(seed, queries, images, dims, people, cameras, values)
    expected = naive_scores(*data)
    valid = [score for score in expected if score]
    if not valid:
        with pytest.raises(ValueError, match=f"none of the {queries} queries"):
            ranked(*data, max_rank=max_rank)
        return
    result = ranked(*data, max_rank=max_rank)
    assert result.mAP == pytest.approx(np.mean([ap for ap, _, _ in valid]))
    assert result.mINP == pytest.approx(np.mean([inp for _, inp, _ in valid]))
    cmc = [np.mean([first <= k for _, _, first in valid]) for k in range(1, min(max_rank, images) + 1)]
    np.testing.assert_allclose(result.cmc, cmc)
    np.testing.assert_allclose(result.average_precision, [s[0] if s else np.nan for s in expected])
    assert result.first_hit.tolist() == [s[2] if s else 0 for s in expected]
    assert result.skipped.tolist() == [index for index, s in enumerate(expected) if not s]


def host_scores(monkeypatch, distances, labels, max_rank=50, **options):
    """The host's own evaluation with its argsort made stable."""
    unstable = np.argsort
    with monkeypatch.context() as patch:
        patch.setattr(np, "argsort", lambda values, axis=-1: unstable(values, axis=axis, kind="stable"))
        return torchreid.metrics.evaluate_rank(distances, *labels, max_rank, use_cython=False, **options)


@pytest.mark.parametrize("make", [scene, gaussian_scene])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("images", [30, 100, 130, 700, 3001])
def test_equals_the_host_to_the_last_bit(make, metric, images, monkeypatch):
    query, gallery, *labels = make(images, queries=40, images=images)
    sides = [torch.tensor(side + (metric == "cosine"), dtype=torch.float32) for side in (query, gallery)]
    distances = torchreid.metrics.compute_distance_matrix(*sides, metric).numpy()
    cmc, mean_ap = host_scores(monkeypatch, distances, labels, max_rank=10)
    for source in ({}, {"distances": distances}, {"distances": torch.tensor(distances)}):
        result = ranked(*sides, *labels, metric, max_rank=10, **source)
        assert result.mAP == mean_ap
        np.testing.assert_array_equal(result.cmc, cmc)
        assert result.cmc.dtype == cmc.dtype
    alone = ranked(None, None, *labels, distances=distances)
    assert alone.mAP == mean_ap


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_average_precision_equals_scikit_learn(metric):
    query, gallery, query_pids, gallery_pids, query_camids, gallery_camids = gaussian_scene(3)
    result = ranked(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids, metric)
    if metric == "cosine":
        query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery))
    for index, features in enumerate(query):
        same = gallery_pids == query_pids[index]
        kept = ~(same & (gallery_camids == query_camids[index]))
        closeness = -((features - gallery) ** 2).sum(1)
        expected = average_precision_score(same[kept], closeness[kept])
        assert result.average_precision[index] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("make", [scene, gaussian_scene])
@pytest.mark.parametrize("protocol", ["market1501", "cuhk03"])
@pytest.mark.parametrize(
    ("rows", "columns", "chunk"), [(20, 1500, 3), (1, 1500, 1), (97, 400, 97), (97, 37, 10), (50, 1499, 50)]
)
def test_blocks_do_not_change_the_result(make, metric, protocol, rows, columns, chunk, monkeypatch):
    query, gallery, *labels = make(5, queries=97, images=1500)
    # Made once: products of other shapes may differ in the last bit.
    given = ranking.FeatureDistances(query, gallery, metric).dense()
    options = {"protocol": protocol, "return_top": 7, "distances": given}
    whole = ranked(None, None, *labels, **options)
    monkeypatch.setattr(ranking, "make_plan", lambda shape, *_: blocks.Plan(shape, rows, columns, chunk, 2))
    parts = ranked(None, None, *labels, **options)
    assert_same(parts, whole)
    np.testing.assert_array_equal(parts.top, whole.top)
    np.testing.assert_array_equal(parts.top_distances, whole.top_distances)
    np.testing.assert_array_equal(parts.shots, whole.shots)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_descriptors_in_tiles(metric, monkeypatch):
    query, gallery, *labels = scene(5, queries=97, images=1500)
    whole = ranked(query + 1, gallery + 1, *labels, metric)
    monkeypatch.setattr(ranking, "make_plan", lambda shape, *_: blocks.Plan(shape, 97, 400, 10, 1))
    monkeypatch.setattr(distances, "_PART_BYTES", 300)
    parts = ranked(query + 1, gallery.astype("f2") + 1, *labels, metric)
    if metric == "euclidean":  # whole numbers: no rounding
        assert_same(parts, whole)
    assert parts.mAP == pytest.approx(whole.mAP, abs=0.02)


@pytest.mark.parametrize(
    ("shape", "memory", "device"),
    [
        ((3368, 15913), 512, "cpu"),
        ((3368, 15913), 1, "cpu"),
        ((11659, 82161), 512, "cpu"),
        ((1000, 10**6), 512, "cpu"),
        ((1000, 10**7), 512, "cpu"),
        ((1000, 10**7), 210, "cpu"),
        ((1, 10), 1, "cpu"),
        ((3368, 15913), 512, "cuda"),
        ((1000, 10**6), 512, "cuda"),
        ((1000, 10**7), 512, "cuda"),
    ],
)
def test_a_plan_stays_within_its_budget(shape, memory, device):
    plan = blocks.make_plan(shape, memory, torch.device(device))
    assert sum(rows.stop - rows.start for rows in plan.row_blocks()) == shape[0]
    assert sum(tile.stop - tile.start for tile in plan.tiles()) == shape[1]
    assert plan.tiles()[-1].stop == shape[1]
    per_pair = 32 if device == "cuda" else 10
    sorting = 8 * shape[1] + per_pair * plan.chunk * plan.columns
    assert 4 * plan.rows * plan.columns + sorting <= memory * 2**20
    if shape[1] <= 10**6 and memory == 512:
        assert len(plan.tiles()) == 1
        assert plan.rows >= 32


def test_a_gallery_that_is_read_when_needed(tmp_path):
    query, gallery, *labels = gaussian_scene(3)
    expected = ranked(query, gallery.astype("f4"), *labels)
    path = tmp_path / "gallery.npy"
    np.save(path, gallery.astype("f4"))
    assert_same(ranked(query, np.load(path, mmap_mode="r"), *labels), expected)

    class OnDisk:
        shape = gallery.shape
        read = 0

        def __getitem__(self, rows):
            OnDisk.read += 1
            return gallery[rows]

    assert_same(ranked(query, OnDisk(), *labels), expected)
    assert OnDisk.read >= 2


def naive_single_shot(distances, query_pids, gallery_pids, query_camids, gallery_camids, k, draws, rng):
    """Mean over queries and draws of "the match is among the first k of one image per identity"."""
    shares = []
    for row, pid, camid in zip(distances, query_pids, query_camids, strict=True):
        kept = [i for i in range(len(row)) if not (gallery_pids[i] == pid and gallery_camids[i] == camid)]
        if pid not in {gallery_pids[i] for i in kept}:
            continue
        hits = 0
        for _ in range(draws):
            drawn = [rng.choice([i for i in kept if gallery_pids[i] == p]) for p in {gallery_pids[i] for i in kept}]
            order = sorted(drawn, key=lambda i: (row[i], i))
            hits += pid in [gallery_pids[i] for i in order[:k]]
        shares.append(hits / draws)
    return np.mean(shares)


@pytest.mark.parametrize("make", [scene, gaussian_scene])
def test_single_gallery_shot(make):
    query, gallery, *labels = make(2, queries=15, images=60)
    exact = ((query[:, None] - gallery[None]) ** 2).sum(2)
    result = ranked(query, gallery, *labels, protocol="cuhk03", repeats=400)
    market = ranked(query, gallery, *labels)
    assert (result.mAP, result.mINP) == (market.mAP, market.mINP)
    people = len(set(labels[1].tolist()))
    assert len(result.cmc) == people
    assert result.cmc[-1] == result.rank(people) == 1
    for k in (1, 2, 3):
        expected = naive_single_shot(exact, *labels, k, 400, np.random.default_rng(1))
        assert result.rank(k) == pytest.approx(expected, abs=0.04)
        assert result.cmc[k - 1] == np.float32(result.rank(k))
    again = ranked(query, gallery, *labels, protocol="cuhk03", repeats=400)
    np.testing.assert_array_equal(again.shots, result.shots)
    other = ranked(query, gallery, *labels, protocol="cuhk03", repeats=400, seed=1)
    assert (other.shots != result.shots).any()


def test_single_gallery_shot_with_one_image_of_each_identity_is_the_plain_ranking():
    query, gallery, _, _, query_camids, _ = gaussian_scene(4, queries=20, images=20)
    labels = (np.arange(20), np.arange(20), np.zeros(20, int), np.ones(20, int))
    result = ranked(query, gallery, *labels, protocol="cuhk03", repeats=3)
    plain = ranked(query, gallery, *labels)
    np.testing.assert_array_equal(result.cmc, plain.cmc)
    assert (result.shots == plain.first_hit[:, None]).all()


def test_single_gallery_shot_is_near_the_hosts(monkeypatch):
    monkeypatch.setattr(np, "bool", bool, raising=False)  # the host's code is older than numpy 1.24
    query, gallery, *labels = gaussian_scene(6, queries=200, images=80)
    sides = torch.tensor(query).float(), torch.tensor(gallery).float()
    distances = torchreid.metrics.compute_distance_matrix(*sides).numpy()
    cmc, mean_ap = host_scores(monkeypatch, distances, labels, use_metric_cuhk03=True)
    result = ranked(*sides, *labels, protocol="cuhk03")
    assert result.mAP == mean_ap
    np.testing.assert_allclose(result.cmc, cmc[: len(result.cmc)], atol=0.05)


@pytest.mark.parametrize("protocol", ["market1501", "cuhk03"])
def test_infinite_distances_keep_the_order_of_the_gallery(protocol):
    given = np.array([[np.inf, np.inf, np.inf, 2.0, -np.inf]], dtype=np.float32)
    labels = ([1], [1, 2, 1, 3, 4], [0], [0, 0, 1, 0, 0])
    result = ranked(None, None, *labels, distances=given, return_top=5, protocol=protocol)
    assert result.top.tolist() == [[4, 3, 1, 2, -1]]
    assert result.first_hit.tolist() == [4]


def test_everything_is_junk_or_one_identity():
    everything = ranked(np.zeros((3, 2)), np.zeros((50, 2)), [1] * 3, [1] * 50, [0] * 3, [0, 1] * 25)
    assert everything.mAP == everything.mINP == 1.0
    one_camera = arguments(query_camids=[0] * 4, gallery_camids=[0] * 20)
    with pytest.raises(ValueError, match="none of the 4 queries has a match"):
        ranked(**one_camera)


def test_queries_without_match_can_be_an_error():
    options = arguments(query_pids=[0, 1, 99, 2])
    assert ranked(**options).skipped.tolist() == [2]
    with pytest.raises(ValueError, match=r"1 of 4 queries have no match .*identity 99 is not in the gallery"):
        ranked(**options, no_match="error")


def test_progress_is_told():
    seen = []
    ranked(*gaussian_scene(3), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_other_dtypes(dtype):
    query, gallery, *labels = scene(7)
    expected = ranked(query, gallery, *labels)
    assert_same(ranked(torch.tensor(query).to(dtype), torch.tensor(gallery).to(dtype), *labels), expected)


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_numpy_dtypes_and_labels_of_any_kind(dtype):
    query, gallery, *labels = scene(8)
    expected = ranked(query, gallery, *labels)
    frozen = gallery.astype(dtype)[::-1]
    frozen.flags.writeable = False
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    mixed = (query_pids.tolist(), torch.tensor(gallery_pids), tuple(query_camids.tolist()), gallery_camids.astype("u1"))
    assert_same(ranked(query.astype(dtype), frozen[::-1], *mixed), expected)


def test_large_half_precision_features_do_not_overflow():
    query, gallery, *labels = scene(9)
    big = [torch.tensor(x * 2.0**14).half() for x in (query, gallery)]
    assert_same(ranked(*big, *labels), ranked(query, gallery, *labels))


def test_autocast_and_gradients_stay_outside():
    query, gallery, *labels = gaussian_scene(4)
    expected = ranked(query, gallery, *labels)
    tracked = torch.tensor(query, dtype=torch.float32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(ranked(tracked, gallery, *labels), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_gpu_equals_cpu(metric):
    query, gallery, *labels = gaussian_scene(6)
    on_gpu = ranked(torch.tensor(query).cuda(), torch.tensor(gallery).cuda(), *labels, metric, return_top=3)
    assert_same(on_gpu, ranked(query, gallery, *labels, metric))
    assert isinstance(on_gpu.top, np.ndarray)


def test_cosine_ignores_length():
    query, gallery, *labels = gaussian_scene(11)
    rng = np.random.default_rng(0)
    stretched = [x * 2.0 ** rng.integers(-8, 8, (len(x), 1)) for x in (query, gallery)]
    assert_same(ranked(*stretched, *labels, "cosine"), ranked(query, gallery, *labels, "cosine"))
    euclidean = ranked(*stretched, *labels)
    assert euclidean.mAP != ranked(query, gallery, *labels).mAP


def test_junk_leaves_the_list():
    query, gallery = [[0.0]], [[0.0], [1.0], [2.0], [3.0], [4.0]]
    result = ranked(np.array(query), np.array(gallery), [1], [1, 2, 1, 1, 1], [0], [0, 0, 1, 0, 2], return_top=6)
    assert result.top.tolist() == [[1, 2, 4, -1, -1, -1]]
    assert result.first_hit.tolist() == [2]
    assert result.mAP == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.mINP == pytest.approx(2 / 3)
    assert result.cmc.tolist() == [0, 1, 1, 1, 1]


def test_top_is_the_junk_free_list():
    data = scene(13)
    result = ranked(*data, return_top=10)
    query, gallery, query_pids, gallery_pids, query_camids, gallery_camids = data
    for index, top in enumerate(result.top.tolist()):
        expected = naive_list(
            query[index], gallery, query_pids[index], query_camids[index], gallery_pids, gallery_camids
        )
        assert top == [image for image, _ in expected][:10]
    assert ranked(*data).top is None


def test_queries_without_match_are_skipped_and_listed():
    gallery = torch.eye(4)
    result = ranked(gallery[[1, 0, 2]], gallery, [5, 1, 9], [1, 5, 5, 1], [0, 0, 0], [1, 0, 0, 1])
    assert result.skipped.tolist() == [0, 2]
    assert np.isnan(result.average_precision[[0, 2]]).all()
    assert result.first_hit.tolist() == [0, 1, 0]
    assert result.rank(1) == 1.0
    assert result.as_dict()["skipped"] == 2
    assert "3 queries, 2 of them skipped" in str(result)


def test_ranks_beyond_gallery_and_curve():
    data = scene(17, images=30)
    clipped = ranked(*data, max_rank=500)
    assert len(clipped.cmc) == 30
    assert clipped.rank(500) == clipped.cmc[-1] == 1.0
    short = ranked(*data, max_rank=2)
    assert short.cmc.tolist() == clipped.cmc[:2].tolist()
    assert [np.float32(short.rank(k)) for k in range(1, 31)] == clipped.cmc.tolist()
    with pytest.raises(ValueError, match="ranks count from 1, got 0"):
        short.rank(0)


def test_result_prints_and_serialises():
    result = RankingResult(
        mAP=0.5,
        mINP=0.25,
        cmc=np.array([0.5, 1.0], np.float32),
        average_precision=np.array([0.5, 0.5]),
        inverse_negative_penalty=np.array([0.25, 0.25]),
        first_hit=np.array([1, 2]),
        skipped=np.array([], int),
    )
    assert str(result).splitlines() == [
        "mAP 50.00%   mINP 25.00%",
        "rank-1 50.00%   rank-5 100.00%   rank-10 100.00%   rank-20 100.00%",
        "2 queries",
    ]
    assert json.loads(json.dumps(result.as_dict([1, 2]))) == {
        "mAP": 0.5,
        "mINP": 0.25,
        "cmc": {"1": 0.5, "2": 1.0},
        "queries": 2,
        "skipped": 0,
    }


def test_gallery_order_matters_only_for_ties():
    query, gallery, query_pids, gallery_pids, query_camids, gallery_camids = gaussian_scene(19)
    order = np.random.default_rng(1).permutation(len(gallery))
    shuffled = ranked(query, gallery[order], query_pids, gallery_pids[order], query_camids, gallery_camids[order])
    assert_same(shuffled, ranked(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids))


def arguments(**changes):
    query, gallery, query_pids, gallery_pids, query_camids, gallery_camids = scene(23, queries=4, images=20)
    return {
        "query": query,
        "gallery": gallery,
        "query_pids": query_pids,
        "gallery_pids": gallery_pids,
        "query_camids": query_camids,
        "gallery_camids": gallery_camids,
        **changes,
    }


def spoiled(rows, value):
    gallery = np.zeros((20, 3))
    gallery[rows, 1] = value
    return gallery


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": np.zeros((4, 2))}, r"same dimension, got 2 \(query\) and 3 \(gallery\)"),
        ({"query": np.zeros(4)}, r"query descriptors must be a matrix .*got shape \(4,\)"),
        ({"gallery": np.zeros((20, 3, 1))}, r"gallery descriptors must be a matrix .*got shape \(20, 3, 1\)"),
        ({"gallery": spoiled([2, 5], np.nan)}, r"2 of 20 gallery rows hold NaN.*: 2, 5$"),
        ({"gallery": spoiled(list(range(7)), -np.inf)}, r"7 of 20 gallery rows .*: 0, 1, 2, 3, 4, \.\.\."),
        ({"gallery": spoiled([3], 1e30)}, r"1 of 20 gallery rows .* too large values: 3"),
        ({"query": np.full((4, 3), 1e300)}, r"4 of 4 query rows"),
        ({"query": np.zeros((0, 3)), "query_pids": [], "query_camids": []}, r"query is empty: .*\(0, 3\)"),
        ({"gallery": np.zeros((0, 3)), "gallery_pids": [], "gallery_camids": []}, "gallery is empty"),
        ({"query_pids": [1, 2, 3]}, r"^pids must hold one integer for each of 4 images, got shape \(3,\)"),
        ({"gallery_pids": [1]}, "^pids must hold .* 20 images"),
        ({"query_camids": [[1], [2], [3], [4]]}, r"camids must hold .*got shape \(4, 1\)"),
        ({"gallery_camids": [1] * 21}, r"camids must hold .*got shape \(21,\)"),
        ({"query_pids": ["a", "b", "c", "d"]}, "pids must be integers"),
        ({"query_camids": [0.0, 1.0, 2.0, 3.0]}, "camids must be integers, got float64"),
        ({"protocol": "viper"}, "unknown protocol 'viper'; allowed: market1501, cuhk03"),
        ({"no_match": "ignore"}, "unknown no_match 'ignore'; allowed: skip, error"),
        ({"repeats": 0}, "repeats must be 1 or more, got 0"),
        ({"query": None}, "give query and gallery descriptors, or distances"),
        ({"distances": np.zeros((4, 21))}, r"expected 20 gallery images, got shape \(4, 21\)"),
        ({"distances": np.zeros((5, 20))}, r"expected 4 queries, got shape \(5, 20\)"),
        ({"distances": np.full((4, 20), np.nan)}, "NaN in 4 of 4 rows"),
        ({"distances": np.zeros(4)}, r"must be a matrix .* got shape \(4,\)"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'; allowed: euclidean, cosine"),
        ({"max_rank": 0}, "max_rank must be 1 or more, got 0"),
        ({"return_top": -1}, "return_top must be 0 or more, got -1"),
        ({"memory_mb": 0}, "memory_mb=0 does not hold one query row against 20 gallery images; the least .* is 1$"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        ranked(**arguments(**changes))


def test_least_memory_works():
    with pytest.raises(ValueError, match="the least that works is 3"):
        blocks.make_plan((10, 100_000), 1, torch.device("cpu"))
    assert blocks.make_plan((10, 100_000), 3, torch.device("cpu")).columns < 100_000


def test_no_query_with_a_match_names_identities_and_cameras():
    message = (
        r"none of the 4 queries has a match .*: identity 3 is seen in the gallery by cameras \[1\] only, which "
        r"is the query's own; identity 8 is not in the gallery; check"
    )
    with pytest.raises(ValueError, match=message):
        ranked(
            **arguments(query_pids=[3, 8, 3, 8], query_camids=[1] * 4, gallery_pids=[3] * 20, gallery_camids=[1] * 20)
        )


def test_example_in_the_documentation():
    assert doctest.testmod(ranking).failed == 0


def test_descriptors_whose_distances_float32_rounds_are_named():
    rows = torch.randn(40, 8)
    with pytest.warns(UserWarning, match=r"lie \d+ times as far from 0 as from each other, and float32 rounds"):
        ranking.FeatureDistances(rows[:10] + 3000, rows[10:] + 3000)
    with pytest.warns(UserWarning, match=r"are at most \S+e-25 long, and their squares are too small for float32"):
        ranking.FeatureDistances(rows[:10] * 1e-25, rows[10:] * 1e-25)
    empty = rows.clone()
    empty[[2, 20, 30]] = 0
    with pytest.warns(UserWarning, match="1 query and 2 gallery rows are zero: they have no direction"):
        ranking.FeatureDistances(empty[:10], empty[10:], "cosine")


@pytest.mark.parametrize("shift", [0, 10])
def test_descriptors_in_the_usual_range_have_no_remark(shift):
    rows = torch.randn(40, 8).abs() + shift
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in ("euclidean", "cosine"):
            ranking.FeatureDistances(rows[:10], rows[10:], metric)
        ranking.FeatureDistances(torch.zeros(3, 8), torch.zeros(5, 8))
