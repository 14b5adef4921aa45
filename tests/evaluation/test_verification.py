import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, roc_auc_score, roc_curve

from torchreid_ptl.evaluation import Descriptors, EvaluationOptions
from torchreid_ptl.evaluation.distances import MatrixDistances
from torchreid_ptl.evaluation.error_rates import OperatingPoint
from torchreid_ptl.evaluation.float_histogram import FloatHistogram, bin_starts
from torchreid_ptl.evaluation.labels import PairLabels
from torchreid_ptl.evaluation.verification import halve_identities, verify

KINDS_OF_VALUES = {
    "spread": lambda rng, shape: rng.random(shape),
    "negative": lambda rng, shape: rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-2, 3, shape),
    "zeros": lambda rng, shape: rng.choice([0.0, -0.0, 1e-45, -1e-45, 1e-30], shape),
    "infinite": lambda rng, shape: rng.choice([-np.inf, -3e38, -1.0, 0.5, 3.4e38, np.inf], shape),
}


def pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    return Descriptors(query, query_pids, query_camids), Descriptors(gallery, gallery_pids, gallery_camids)


def labels_of(seed, queries=40, images=120, people=12, cameras=3, strangers=6):
    """Identities and cameras of queries and gallery; the gallery has identities that no query has."""
    draw = np.random.default_rng(seed).integers
    return (
        draw(0, people, queries),
        draw(0, people + strangers, images),
        draw(0, cameras, queries),
        draw(0, cameras, images),
    )


def scene(seed, kind="spread", **sizes):
    labels = labels_of(seed, **sizes)
    shape = len(labels[0]), len(labels[1])
    return KINDS_OF_VALUES[kind](np.random.default_rng(seed + 1), shape).astype(np.float32), labels


def separable(seed, closer=0.3, **sizes):
    """Distances of the kind that verification is for: those of one identity are smaller."""
    matrix, labels = scene(seed, **sizes)
    return matrix - np.float32(closer) * (labels[0][:, None] == labels[1]), labels


def naive_pairs(matrix, labels, inside=None):
    """Distances of genuine and of impostor pairs by a loop over all; only of identities in `inside`, if given."""
    genuine, impostor = [], []
    query_pids, gallery_pids, query_camids, gallery_camids = labels
    for row, (pid, camid) in enumerate(zip(query_pids, query_camids, strict=True)):
        for column, (other, camera) in enumerate(zip(gallery_pids, gallery_camids, strict=True)):
            if inside is not None and not (pid in inside and other in inside):
                continue
            if pid != other:
                impostor.append(matrix[row, column])
            elif camid != camera:
                genuine.append(matrix[row, column])
    return np.array(genuine, np.float32), np.array(impostor, np.float32)


def share_below(values, threshold):
    return np.count_nonzero(values < np.float32(threshold)) / len(values)


def run(matrix, labels, **options):
    given = {name: options.pop(name) for name in ("far", "fars") if name in options}
    return verify(*pair(None, None, *labels), EvaluationOptions(**options), distances=matrix, **given)


def halves_of(labels, seed=0):
    """The identities of the first and of the second half."""
    second = halve_identities(PairLabels(*pair(None, None, *labels)), seed)
    in_second = {pid for pids, half in zip(labels, second, strict=False) for pid in pids[half].tolist()}
    in_first = {pid for pids, half in zip(labels, second, strict=False) for pid in pids[~half].tolist()}
    return in_first, in_second


def assert_same(result, other):
    assert result.as_dict() == other.as_dict()
    for name in ("roc_thresholds", "roc_far", "roc_tar", "histogram_edges", "genuine_histogram", "impostor_histogram"):
        np.testing.assert_array_equal(getattr(result, name), getattr(other, name), err_msg=name)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(sorted(KINDS_OF_VALUES)), people=st.integers(1, 12))
def test_rates_are_the_counts_of_plain_loops(seed, kind, people):
    matrix, labels = scene(seed, kind, queries=10, images=30, people=people, strangers=2)
    genuine, impostor = naive_pairs(matrix, labels)
    if not len(genuine) or not len(impostor):
        return
    result = run(matrix, labels, fars=[0.5, 0.1, 0.01])
    assert (result.genuine_pairs, result.impostor_pairs) == (len(genuine), len(impostor))
    points = [point for point in result.tar_at_far.values() if point]
    points += list(map(_point, result.roc_thresholds, result.roc_far, result.roc_tar))
    for point in points:
        assert float(np.float32(point.threshold)) == point.threshold
        assert point.far == share_below(impostor, point.threshold)
        assert point.tar == share_below(genuine, point.threshold)
    rates = share_below(impostor, result.eer_threshold), 1 - share_below(genuine, result.eer_threshold)
    assert result.eer == pytest.approx(sum(rates) / 2)
    if kind == "ties":  # each value has a bin of its own, so that no threshold is better than those looked at
        assert abs(rates[0] - rates[1]) == pytest.approx(min(map(_gap(genuine, impostor), [*np.unique(matrix), 9])))


def _point(*numbers):
    return OperatingPoint(*map(float, numbers))


def _gap(genuine, impostor):
    return lambda threshold: abs(share_below(impostor, threshold) - 1 + share_below(genuine, threshold))


@pytest.mark.parametrize("kind", sorted(KINDS_OF_VALUES))
def test_the_threshold_for_a_rate_is_the_largest_that_keeps_it(kind):
    matrix, labels = scene(3, kind)
    _, impostor = naive_pairs(matrix, labels)
    for far, point in run(matrix, labels, fars=[0.6, 0.3, 0.01, 0.001]).tar_at_far.items():
        assert point.far <= far
        beyond = np.float32(point.threshold)
        if np.isfinite(beyond):
            beyond = np.nextafter(beyond + np.float32(2**-10) * abs(beyond), np.float32(np.inf)) + np.float32(1e-41)
            assert share_below(impostor, beyond) > far


def test_junk_counts_nowhere():
    labels = ([1, 2], [1, 1, 2], [0, 0], [0, 1, 1])
    result = run(np.array([[-5.0, 1, 3], [4, 5, 2]]), labels)
    assert (result.genuine_pairs, result.impostor_pairs) == (2, 3)
    assert result.roc_thresholds[0] == 1.0
    result = run(np.array([[9.0, 1, 3], [4, 5, 2]]), labels)
    assert result.roc_thresholds[-1] == pytest.approx(5, rel=2**-10)


@pytest.mark.parametrize("size", [{}, {"queries": 200, "images": 500}])
def test_the_curve_is_that_of_scikit_learn(size):
    matrix, labels = separable(5, **size)
    genuine, impostor = naive_pairs(matrix, labels)
    truth = np.repeat([1, 0], [len(genuine), len(impostor)])
    scores = -np.concatenate([genuine, impostor])
    result = run(matrix, labels)
    assert len(result.roc_far) <= 2000
    assert auc(result.roc_far, result.roc_tar) == pytest.approx(roc_auc_score(truth, scores), abs=2**-11)
    far, tar, _ = roc_curve(truth, scores)
    assert result.eer == pytest.approx(far[np.argmin(abs(far - 1 + tar))], abs=2e-3)


def test_the_curve_rises_from_nothing_to_everything():
    result = run(*separable(6, queries=150, images=400))
    for values in (result.roc_thresholds, result.roc_far, result.roc_tar):
        assert (np.diff(values) >= 0).all()
    assert (np.diff(result.roc_thresholds) > 0).all()
    assert (result.roc_far[0], result.roc_tar[0], result.roc_far[-1], result.roc_tar[-1]) == (0, 0, 1, 1)
    tars = [point.tar for point in result.tar_at_far.values() if point]
    assert tars == sorted(tars, reverse=True)


def test_the_curve_is_dense_at_rare_errors():
    result = run(*separable(6, queries=300, images=1000))
    least = 1 / result.impostor_pairs
    assert 500 < len(result.roc_far) <= 2000
    for far in np.geomspace(least, 1 / 1.1, 100):
        assert ((result.roc_far >= far) & (result.roc_far <= 1.1 * far + 5 * least)).any()


def test_infinitely_distant_pairs_are_never_accepted():
    matrix, labels = scene(7)
    matrix[:20] = np.inf
    result = run(matrix, labels)
    genuine, impostor = naive_pairs(matrix, labels)
    assert result.roc_thresholds[-1] == np.inf
    assert result.roc_far[-1] == np.isfinite(impostor).mean()
    assert result.roc_tar[-1] == np.isfinite(genuine).mean()
    assert result.impostor_histogram.sum() == pytest.approx(np.isfinite(impostor).mean(), abs=1e-3)


def test_nothing_but_infinite_distances():
    matrix, labels = scene(7)
    result = run(np.full_like(matrix, np.inf), labels)
    assert result.genuine_histogram.sum() == 0
    assert (result.roc_far.tolist(), result.eer) == ([0], 0.5)


@pytest.mark.parametrize("memory_mb", [0.01, 0.1])
@pytest.mark.parametrize("kind", ["spread", "negative", "infinite"])
def test_blocks_do_not_change_the_result(kind, memory_mb):
    matrix, labels = scene(8, kind, queries=60, images=300)
    assert_same(run(matrix, labels, memory_mb=memory_mb, far=0.01), run(matrix, labels, far=0.01))


def test_pieces_of_lists_and_counts_do_not_change_the_result(monkeypatch):
    matrix, labels = scene(8, "negative", queries=60, images=300)
    whole = run(matrix, labels)
    monkeypatch.setattr("torchreid_ptl.evaluation.verification._LISTED_PAIRS", 700)
    monkeypatch.setattr("torchreid_ptl.evaluation.float_histogram._PIECE", 1)
    assert_same(run(matrix, labels), whole)


@pytest.mark.parametrize(("metric", "unit"), [("euclidean", "squared Euclidean"), ("cosine", "1 - cosine")])
def test_descriptors_give_what_their_distances_give(metric, unit):
    labels = labels_of(9)
    rng = np.random.default_rng(9)
    query, gallery = (rng.integers(1, 5, (len(pids), 4)).astype(np.float32) for pids in labels[:2])
    result = verify(*pair(query, gallery, *labels), EvaluationOptions(metric=metric))
    if metric == "euclidean":
        expected = ((query[:, None] - gallery) ** 2).sum(-1)
    else:
        query, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (query, gallery))
        expected = 1 - query @ gallery.T
    genuine, impostor = naive_pairs(expected, labels)
    assert result.metric == metric
    assert unit in str(result)
    point = result.tar_at_far[0.1]
    assert point.far == pytest.approx(share_below(impostor, point.threshold), abs=0.01)
    assert point.tar == pytest.approx(share_below(genuine, point.threshold), abs=0.05)
    assert run(MatrixDistances(expected), labels).unit == "distance as given"


@pytest.mark.parametrize("seed", range(5))
def test_halves_share_no_identity_and_both_have_both_kinds(seed):
    labels = labels_of(10)
    first, second = halves_of(labels, seed)
    people = set(range(12)) & set(labels[0].tolist())
    assert not first & second
    assert first | second == set(labels[0].tolist()) | set(labels[1].tolist())
    for half in (first, second):
        assert abs(len(half & people) - len(people) / 2) <= 1
        assert abs(len(half - people) - 3) <= 1
    assert halves_of(labels, seed) == (first, second)
    assert halves_of(labels, seed + 1) != (first, second)


def test_the_recommendation_is_chosen_on_one_half_and_measured_on_the_other():
    matrix, labels = separable(11)
    halves = halves_of(labels, seed=4)
    advice = run(matrix, labels, far=0.05, seed=4).at_far
    assert advice.asked == 0.05
    assert advice.chosen.far <= 0.05
    for half, measured in zip(halves, (advice.chosen, advice.reported), strict=True):
        genuine, impostor = naive_pairs(matrix, labels, half)
        assert (measured.genuine_pairs, measured.impostor_pairs) == (len(genuine), len(impostor))
        assert measured.far == share_below(impostor, advice.threshold)
        assert measured.tar == share_below(genuine, advice.threshold)


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_never_looks_at_the_other_half(seed):
    matrix, labels = separable(12, queries=60)
    first, _ = halves_of(labels, seed)
    advice = run(matrix, labels, far=0.02, seed=seed).at_far
    other = ~(np.isin(labels[0], list(first))[:, None] & np.isin(labels[1], list(first)))
    changed = matrix.copy()
    changed[other] = np.random.default_rng(seed).permutation(matrix[other]) * 3 - 1
    again = run(changed, labels, far=0.02, seed=seed).at_far
    assert (again.threshold, again.chosen) == (advice.threshold, advice.chosen)
    assert again.reported != advice.reported


def test_histograms_for_drawing_hold_the_shares_of_pairs():
    matrix, labels = separable(13, queries=200, images=400)
    result = run(matrix, labels)
    edges = result.histogram_edges
    assert np.allclose(np.diff(edges), edges[1] - edges[0])
    for shares, values in zip(
        (result.genuine_histogram, result.impostor_histogram), naive_pairs(matrix, labels), strict=True
    ):
        expected = np.histogram(values, edges)[0] / len(values)
        assert len(shares) == 200
        assert shares.sum() == pytest.approx(1, abs=1e-3)
        assert abs(np.cumsum(shares) - np.cumsum(expected)).max() < 5e-3


def test_a_rate_below_one_pair_is_not_measured():
    matrix, labels = separable(14, queries=5, images=20)
    result = run(matrix, labels, fars=[0.1, 1 / 10_000])
    assert result.tar_at_far[0.1] is not None
    assert result.tar_at_far[1e-4] is None
    assert "FAR 0.01%: too few impostor pairs to measure it, 10000 needed" in str(result)
    least = 1 / result.impostor_pairs
    assert run(matrix, labels, fars=[least]).tar_at_far[least].far <= least


def test_too_few_identities_for_halves_leave_the_rest():
    labels = ([1, 2, 3], [1, 2, 3, 4], [0, 0, 0], [1, 1, 1, 1])
    result = run(np.random.default_rng(0).random((3, 4)), labels)
    assert result.recommended is None
    assert "4 identities" in result.why_none
    assert "got 3" in result.why_none
    assert result.why_none in str(result)
    assert result.as_dict()["recommended"] is None
    assert result.impostor_pairs == 9


def test_too_few_pairs_in_a_half_for_the_rate():
    matrix, labels = separable(15, queries=30)
    result = run(matrix, labels, far=1e-5)
    assert result.recommended is None
    assert "1e-05 is less than one of the" in result.why_none
    assert "larger" in result.why_none


@pytest.mark.parametrize(("signal", "useful"), [(0.0, False), (20.0, True)])
def test_no_threshold_is_recommended_that_rejects_most_genuine_pairs(signal, useful):
    pids, camids = np.repeat(np.arange(40), 4), np.tile([0, 1], 80)
    rng = np.random.default_rng(3)
    people = rng.standard_normal((40, 8))[pids]
    images = Descriptors(signal * people + rng.standard_normal((160, 8)), pids, camids)
    for metric, unit in (("euclidean", "squared Euclidean distance"), ("cosine", "1 - cosine")):
        result = verify(images, images, EvaluationOptions(metric=metric), far=1e-3)
        assert f"same person: {unit} (metric {metric}) below a threshold" in str(result)
        assert f"threshold at FAR 0.1%: {unit} {result.at_far.threshold:.6g}, chosen on half" in str(result)
        assert (result.at_far.reported.tar >= 0.5) == useful
        if useful:
            assert result.recommended == result.at_far
            assert "no threshold recommended" not in str(result)
        else:
            assert result.recommended is None
            assert result.as_dict()["recommended"] is None
            assert "no threshold recommended: the one at FAR 0.001 accepts" in str(result)
            assert "less than 50%; ask for a larger rate" in result.why_none


def test_numbers_for_json_and_text():
    result = run(*separable(16), far=0.01)
    numbers = json.loads(json.dumps(result.as_dict()))
    assert numbers == result.as_dict()
    assert numbers["tar_at_far"]["0.1"]["far"] <= 0.1
    assert set(numbers["at_far"]) == {"threshold", "asked", "chosen", "reported"}
    for words in (
        "EER",
        "FAR 10%",
        "threshold at FAR 1%: distance as given",
        "on the other half",
        f"{result.genuine_pairs} genuine",
    ):
        assert words in str(result)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan])
def test_rates_must_be_shares(rate):
    matrix, labels = scene(1)
    for options in ({"far": rate}, {"fars": [0.1, rate]}):
        with pytest.raises(ValueError, match="false accept rate must lie between 0 and 1, got"):
            run(matrix, labels, **options)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (([1, 2], [1, 2], [0, 0], [0, 0]), "no genuine pair.*cameras .0. only"),
        (([1, 2], [3, 4], [0, 0], [0, 0]), "no genuine pair.*not in the gallery"),
        (([1, 1], [1, 1], [0, 0], [0, 1]), "no impostor pair: all images are of identity 1"),
        (([1, 2], [1], [0, 0], [1]), "expected 1 gallery images, got shape .2, 2."),
    ],
)
def test_labels_that_cannot_be_evaluated(labels, message):
    with pytest.raises(ValueError, match=message):
        run(np.eye(2), labels)


def test_other_errors():
    labels = ([1, 2], [1, 2], [0, 0], [1, 1])
    with pytest.raises(ValueError, match="unknown metric 'l1'"):
        verify(*pair(np.eye(2), np.eye(2), *labels), EvaluationOptions(metric="l1"))
    with pytest.raises(ValueError, match="or distances"):
        verify(*pair(None, None, *labels))
    with pytest.raises(ValueError, match="NaN"):
        run(np.full((2, 2), np.nan), labels)
    with pytest.raises(ValueError, match="does not hold one query row against 2 gallery images; the least.* 1"):
        run(np.eye(2), labels, memory_mb=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30), st.floats(width=32, allow_nan=False))
def test_a_histogram_counts_exactly_below_its_starts(values, probe):
    histogram = FloatHistogram()
    histogram.add(torch.tensor([[*values, probe]], dtype=torch.float32))
    histogram.add(torch.tensor([[probe]], dtype=torch.float32), sign=-1)
    used = np.flatnonzero(histogram.counts[:, 0])
    starts = bin_starts(used)
    below = np.append(0, np.cumsum(histogram.counts[used, 0]))
    assert [sum(value < start for value in values) for start in starts] == below[:-1].tolist()
    assert below[-1] == len(values)
    for value in filter(math.isfinite, values):
        start = starts[np.searchsorted(starts, value, side="right") - 1]
        assert value - start <= max(2**-11 * max(abs(value), abs(start)), 2**-137)


def test_negative_zero_is_zero():
    histogram = FloatHistogram()
    histogram.add(torch.tensor([[0.0, -0.0]]))
    assert bin_starts(np.flatnonzero(histogram.counts)).tolist() == [0]
    assert math.copysign(1, bin_starts(np.flatnonzero(histogram.counts))[0]) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", sorted(KINDS_OF_VALUES))
def test_a_gpu_counts_the_same(kind):
    matrix, labels = scene(17, kind)
    assert_same(run(torch.from_numpy(matrix).cuda(), labels, far=0.01), run(matrix, labels, far=0.01))
