import json
import math

import numpy as np
import pytest
import torch

from torchreid_ptl.evaluation import (
    Descriptors,
    EvaluationOptions,
    RankingResult,
    compatibility,
    evaluate_ranking,
    normalized,
)
from torchreid_ptl.evaluation.backfill import MixedRows, backfill_curve, check_fractions, flips, refresh_order
from torchreid_ptl.evaluation.compatibility_result import update_gain
from torchreid_ptl.evaluation.descriptors import common_dimension
from torchreid_ptl.evaluation.normalized import NormalizedRows
from torchreid_ptl.evaluation.result import Score

FIELDS = ("mAP", "mINP", "cmc", "average_precision", "inverse_negative_penalty", "first_hit", "skipped", "top")


def pair(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    """Labels are cut where there are fewer rows."""
    sides = ((query, query_pids, query_camids), (gallery, gallery_pids, gallery_camids))
    rows = [len(pids) if features is None else features.shape[0] for features, pids, _ in sides]
    return tuple(Descriptors(f, pids[:n], camids[:n]) for (f, pids, camids), n in zip(sides, rows, strict=True))


def ranked(query, gallery, *labels, metric=None, return_top=0):
    """`evaluate_ranking` of arrays."""
    return evaluate_ranking(*pair(query, gallery, *labels), EvaluationOptions(metric=metric, return_top=return_top))


def measured(new_query, new_gallery, old_query, old_gallery, *labels, independent=None, **settings):
    """`compatibility` of arrays."""
    names = ("fractions", "dimensions", "progress")
    given = {name: settings.pop(name) for name in names if name in settings}
    if isinstance(independent, tuple) and not isinstance(independent[0], float):
        independent = pair(*independent, *labels)
    sides = pair(new_query, new_gallery, *labels), pair(old_query, old_gallery, *labels)
    return compatibility(*sides, EvaluationOptions(**settings), independent=independent, **given)


def world(seed=0, queries=24, images=120, dims=12, people=8, cameras=3, noise=0.7):
    """(new query, new gallery, old query, old gallery) of any length, and their labels; the new model is the better."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, dims))
    pids = np.concatenate([rng.integers(0, people, queries), rng.integers(0, people, images)])
    camids = rng.integers(0, cameras, queries + images)
    sides = []
    for spread in (noise, 1.6 * noise):
        features = centres[pids] + spread * rng.standard_normal((queries + images, dims))
        features *= rng.uniform(0.1, 9, (len(features), 1))
        sides += [features[:queries].astype("f4"), features[queries:].astype("f4")]
    return sides, (pids[:queries], pids[queries:], camids[:queries], camids[queries:])


def length_one(features):
    return features / np.linalg.norm(features.astype("f8"), axis=1, keepdims=True)


def naive(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids):
    """Per query (AP, is the nearest right) by plain loops over exact cosines; None without a match."""
    found = []
    for features, pid, camid in zip(length_one(query), query_pids, query_camids, strict=True):
        kept = [g for g in range(len(gallery)) if not (gallery_pids[g] == pid and gallery_camids[g] == camid)]
        cosines = {g: float(features @ length_one(gallery)[g]) for g in kept}
        hits = [gallery_pids[g] == pid for g in sorted(kept, key=lambda g: -cosines[g])]
        precisions = [sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit]
        found.append((np.mean(precisions), hits[0]) if precisions else None)
    return found


def assert_same(result, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(result, name), getattr(other, name), err_msg=name)


class Recorded:
    """Rows on a disk: counts what is read at a time."""

    def __init__(self, rows):
        self._rows, self.shape, self.largest = rows, rows.shape, 0

    def __getitem__(self, rows):
        part = self._rows[rows]
        self.largest = max(self.largest, len(part))
        return part


def test_all_figures_equal_full_copies_and_plain_loops():
    (new_query, new_gallery, old_query, old_gallery), labels = world(1)
    result = measured(new_query, new_gallery, old_query, old_gallery, *labels, seed=3)
    before = naive(old_query, old_gallery, *labels)
    counted = [q for q, score in enumerate(before) if score]
    order = np.random.default_rng(3).permutation(len(new_gallery))
    for point in result.backfill.points:
        mixed = length_one(old_gallery)
        chosen = order[: round(point.fraction * len(order))]
        mixed[chosen] = length_one(new_gallery)[chosen]
        now = naive(new_query, mixed, *labels)
        assert point.result.mAP == pytest.approx(np.mean([now[q][0] for q in counted]))
        assert point.result.rank(1) == pytest.approx(np.mean([now[q][1] for q in counted]))
        assert point.refreshed == len(chosen)
        assert point.negative.tolist() == [q for q in counted if before[q][1] and not now[q][1]]
        assert point.positive.tolist() == [q for q in counted if now[q][1] and not before[q][1]]
        assert point.negative_flips == len(point.negative) / len(counted)
        assert point.positive_flips == len(point.positive) / len(counted)
    assert any(len(point.negative) for point in result.backfill.points)
    assert any(len(point.positive) for point in result.backfill.points)
    assert result.old_test.mAP == pytest.approx(np.mean([before[q][0] for q in counted]))
    curve = result.backfill
    assert curve.area.mAP == pytest.approx(np.trapezoid(curve.mAP, curve.fractions))
    assert curve.area.cmc1 == pytest.approx(np.trapezoid(curve.cmc1, curve.fractions))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("kind", ["array", "tensor", "rows", "map"])
def test_the_ends_of_the_curve_are_the_cross_and_the_self_test_in_every_bit(metric, kind, tmp_path, monkeypatch):
    sides, labels = world(2)
    if kind == "tensor":
        sides = [torch.tensor(side) for side in sides]
    elif kind == "rows":
        sides = [Recorded(side) for side in sides]
    elif kind == "map":
        for index, side in enumerate(sides):
            np.save(tmp_path / f"{index}.npy", side)
            sides[index] = np.load(tmp_path / f"{index}.npy", mmap_mode="r")
    result = measured(*sides, *labels, metric=metric, return_top=4)
    assert_same(result.backfill.points[0].result, result.cross_test)
    assert_same(result.backfill.points[-1].result, result.self_test)
    # and not only because they are taken from there
    images = len(labels[1])
    new, old = (NormalizedRows("gallery", sides[index]) for index in (1, 3))
    query, options = NormalizedRows("query", sides[0]), {"metric": metric, "return_top": 4}
    for refreshed, expected in ((False, result.cross_test), (True, result.self_test)):
        mixed = MixedRows(old, new, np.full(images, refreshed))
        assert_same(ranked(query, mixed, *labels, **options), expected)


def test_a_mixed_gallery_equals_a_full_copy_in_every_bit():
    sides, labels = world(4)
    result = measured(*sides, *labels, fractions=(0, 0.3, 1), seed=5, return_top=3)
    new, old = (NormalizedRows("gallery", sides[index])[0:120] for index in (1, 3))
    copy = old.clone()
    chosen = refresh_order(120, 5) < 36
    copy[torch.from_numpy(chosen)] = new[torch.from_numpy(chosen)]
    expected = ranked(NormalizedRows("query", sides[0]), Recorded(copy), *labels, metric="cosine", return_top=3)
    assert_same(result.backfill.points[1].result, expected)
    assert 0 < sum(chosen) < 120


def test_a_model_is_its_own_old_model():
    (query, gallery, *_), labels = world(3)
    result = measured(query, gallery, query, gallery, *labels)
    for point in result.backfill.points:
        assert_same(point.result, result.self_test)
        assert not len(point.negative)
        assert not len(point.positive)
    assert_same(result.cross_test, result.old_test)
    assert not result.compatible
    assert not result.compatible_cmc1
    assert result.self_test.mAP == pytest.approx(ranked(query, gallery, *labels, metric="cosine").mAP)


def test_the_parts_are_nested_seeded_and_image_by_image():
    place = refresh_order(1000, 7)
    assert sorted(place) == list(range(1000))
    parts = [set(np.flatnonzero(place < count)) for count in (0, 250, 500, 1000)]
    assert [len(part) for part in parts] == [0, 250, 500, 1000]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert len(np.unique(np.diff(sorted(parts[1])))) > 5
    np.testing.assert_array_equal(place, refresh_order(1000, 7))
    assert (place != refresh_order(1000, 8)).any()
    sides, labels = world(5)
    first, again, other = (measured(*sides, *labels, seed=seed).backfill.mAP for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_both_sides_are_of_unit_length_whatever_comes():
    sides, labels = world(6)
    expected = measured(*(length_one(side) for side in sides), *labels)
    rng = np.random.default_rng(0)
    scaled = [side * rng.uniform(1e-3, 1e3, (len(side), 1)).astype("f4") for side in sides]
    for metric in ("cosine", "euclidean"):
        found = measured(*scaled, *labels, metric=metric)
        np.testing.assert_allclose(found.backfill.mAP, expected.backfill.mAP, atol=1e-3)
        assert found.old_test.mAP == pytest.approx(expected.old_test.mAP, abs=1e-3)
    rows = NormalizedRows("x", np.array([[3e30, 4e30], [3e-20, 4e-20], [-5, 0]], dtype="f4"))
    np.testing.assert_allclose(rows[0:3], [[0.6, 0.8], [0.6, 0.8], [-1, 0]], rtol=1e-6)


def test_a_gallery_is_read_in_slices(monkeypatch):
    monkeypatch.setattr(normalized, "_PART_BYTES", 12 * 8 * 10)
    monkeypatch.setattr("torchreid_ptl.evaluation.distances._PART_BYTES", 12 * 4 * 10)
    sides, labels = world(7)
    recorded = [Recorded(side) for side in sides]
    found = measured(*recorded, *labels)
    assert [side.largest for side in recorded] == [10] * 4
    np.testing.assert_allclose(found.backfill.mAP, measured(*sides, *labels).backfill.mAP)


def test_of_a_side_that_is_not_wanted_nothing_is_read():
    class Forbidden:
        shape = (4, 2)

        def __getitem__(self, rows):
            raise AssertionError("read")

    there = torch.eye(4)[:, :2]
    assert MixedRows(there, Forbidden(), np.zeros(4, dtype=bool))[1:3].equal(there[1:3])
    assert MixedRows(Forbidden(), there, np.ones(4, dtype=bool))[1:3].equal(there[1:3])
    with pytest.raises(ValueError, match=r"must fit together, got \(4, 2\) \(old\), \(3, 2\) \(new\)"):
        MixedRows(there, there[:3], np.zeros(4, dtype=bool))


def hits_at(*first_hit):
    """A result with the ranks of the first matches."""
    hits = np.array(first_hit)
    precision = np.where(hits > 0, 1 / np.maximum(hits, 1), np.nan)
    cmc = np.array([np.mean(hits[hits > 0] == 1)], dtype="f4")
    return RankingResult(float(np.nanmean(precision)), 0.0, cmc, precision, precision, hits, np.flatnonzero(hits == 0))


def test_flips_by_hand():
    old, now = hits_at(1, 1, 3, 2, 0, 1), hits_at(1, 2, 1, 5, 0, 7)
    negative, positive = flips(old, now)
    assert (negative.tolist(), positive.tolist()) == ([1, 5], [2])
    curve = backfill_curve(lambda gallery: now, (torch.ones(9, 2),) * 2, (old, now, old), (0, 0.5, 1), 0)
    assert [point.negative_flips for point in curve.points] == [2 / 5, 2 / 5, 0]
    assert [point.positive_flips for point in curve.points] == [1 / 5, 1 / 5, 0]
    assert curve.area.cmc1 == pytest.approx((2 / 5 + 2 / 5) / 4 + (2 / 5 + 3 / 5) / 4)


def test_the_update_gain():
    (new_query, new_gallery, old_query, old_gallery), labels = world(8)
    sides = new_query, new_gallery, old_query, old_gallery
    apart = np.random.default_rng(0).permutation(12)
    by_features = measured(*sides, *labels, independent=(new_query[:, apart], new_gallery[:, apart]))
    own = ranked(new_query, new_gallery, *labels, metric="cosine")
    by_result = measured(*sides, *labels, independent=own)
    by_score = measured(*sides, *labels, independent=(own.mAP, own.rank(1)))
    old, cross = by_score.old_test, by_score.cross_test
    assert by_score.update_gain.mAP == (cross.mAP - old.mAP) / (own.mAP - old.mAP)
    assert by_score.update_gain.cmc1 == (cross.rank(1) - old.rank(1)) / (own.rank(1) - old.rank(1))
    assert by_result.update_gain == by_score.update_gain
    assert by_features.update_gain.mAP == pytest.approx(by_score.update_gain.mAP)
    assert by_score.update_gain.why_none == ""
    assert by_features.independent.mAP == pytest.approx(own.mAP)


def test_the_independent_model_before_the_old_gallery():
    (new_query, new_gallery, old_query, old_gallery), labels = world(8)
    sides = new_query, new_gallery, old_query, old_gallery
    apart = np.random.default_rng(0).permutation(12)
    alone = new_query[:, apart], new_gallery[:, apart]
    result = measured(*sides, *labels, independent=alone)
    wanted = ranked(alone[0], old_gallery, *labels, metric="cosine")
    assert result.independent_cross == pytest.approx((wanted.mAP, wanted.rank(1)))
    assert result.as_dict()["independent_cross"]["mAP"] == result.independent_cross.mAP
    assert f"independent, in the old gallery   mAP {wanted.mAP:.2%}" in str(result)
    assert measured(*sides, *labels, independent=(0.9, 0.9)).independent_cross is None
    shorter = measured(*sides, *labels, independent=tuple(side[:, :8] for side in alone))
    assert shorter.independent is not None
    assert shorter.independent_cross is None
    told = []
    measured(*sides, *labels, independent=alone, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("rule", ["truncate", "pad"])
def test_an_independent_model_of_another_dimension_under_a_rule(rule):
    (new_query, new_gallery, old_query, old_gallery), labels = world(8)
    alone = new_query[:, :8], new_gallery[:, :8]
    result = measured(new_query, new_gallery, old_query, old_gallery, *labels, independent=alone, dimensions=rule)
    width = {"truncate": 8, "pad": 12}[rule]
    query = np.pad(alone[0], ((0, 0), (0, width - 8)))
    wanted = ranked(query, old_gallery[:, :width], *labels, metric="cosine")
    assert result.independent_cross == pytest.approx((wanted.mAP, wanted.rank(1)))


def test_an_update_gain_that_cannot_be_said():
    assert update_gain(Score(0.5, 0.5), Score(0.4, 0.6), Score(0.6, 0.7)).mAP == pytest.approx(0.5)
    assert update_gain(Score(0.5, 0.5), Score(0.4, 0.6), Score(0.6, 0.7)).cmc1 == pytest.approx(-1)
    none = update_gain(Score(0.5, 0.5), Score(0.4, 0.6), None)
    assert math.isnan(none.mAP)
    assert math.isnan(none.cmc1)
    assert none.why_none == "no independent model was given"
    low = update_gain(Score(0.5, 0.5), Score(0.4, 0.6), Score(0.4, 0.7))
    assert math.isnan(low.mAP)
    assert low.cmc1 == pytest.approx(-1)
    assert low.why_none == "the independent model's mAP, 40.00%, is not above the old one's, 40.00%"
    sides, labels = world(9)
    result = measured(*sides, *labels)
    assert "no independent model was given" in str(result)
    content = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert content["update_gain"] == {"mAP": None, "cmc1": None, "why_none": "no independent model was given"}
    assert content["compatible"] == (content["cross_test"]["mAP"] > content["old_test"]["mAP"])
    assert [point["fraction"] for point in content["backfill"]] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("longer", ["new", "old"])
@pytest.mark.parametrize("rule", ["truncate", "pad"])
def test_different_dimensions_under_a_rule(longer, rule):
    (new_query, new_gallery, old_query, old_gallery), labels = world(10)
    short = slice(0, 8)
    if longer == "new":
        old_query, old_gallery = old_query[:, short], old_gallery[:, short]
    else:
        new_query, new_gallery = new_query[:, short], new_gallery[:, short]
    sides = new_query, new_gallery, old_query, old_gallery
    with pytest.raises(ValueError, match=r"have (8|12) dimensions and old ones (8|12): .*truncate .* pad "):
        measured(*sides, *labels)
    result = measured(*sides, *labels, dimensions=rule)
    dim = {"truncate": 8, "pad": 12}[rule]
    assert result.dimensions == (new_query.shape[1], old_query.shape[1], dim)

    def fitted(side):
        return np.pad(side[:, :dim], ((0, 0), (0, dim - side[:, :dim].shape[1])))

    expected = measured(*map(fitted, sides), *labels)
    np.testing.assert_allclose(result.backfill.mAP, expected.backfill.mAP)
    whole = ranked(old_query, old_gallery, *labels, metric="cosine")
    assert result.old_test.mAP == pytest.approx(whole.mAP)
    assert_same(result.backfill.points[-1].result, result.self_test)


def test_dimensions_that_are_the_same_need_no_rule():
    assert common_dimension(5, 5, "error") == common_dimension(5, 5, "pad") == 5
    with pytest.raises(ValueError, match="unknown dimensions 'cut'; allowed: error, truncate, pad"):
        common_dimension(5, 5, "cut")


def test_progress_counts_all_rankings():
    sides, labels = world(11)
    seen = []
    measured(*sides, *labels, independent=tuple(sides[:2]), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (24 * 8, 24 * 8)
    assert seen == sorted(seen)


def test_queries_without_a_match_count_nowhere():
    sides, labels = world(12)
    labels[0][[3, 5]] = 99
    result = measured(*sides, *labels)
    assert result.cross_test.skipped.tolist() == [3, 5]
    assert not {3, 5} & {int(q) for point in result.backfill.points for q in (*point.negative, *point.positive)}
    with pytest.raises(ValueError, match="2 of 24 queries have no match"):
        measured(*sides, *labels, no_match="error")


def spoiled(side, value):
    sides, labels = world(13)
    sides[side] = sides[side].copy()
    sides[side][[4, 17]] = value
    return sides, labels


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize(("value", "words"), [(0, "are zero"), (np.nan, "hold NaN"), (np.inf, "hold NaN, infinite")])
def test_rows_without_direction(side, value, words):
    name = ("new query", "new gallery", "old query", "old gallery")[side]
    sides, labels = spoiled(side, value)
    with pytest.raises(ValueError, match=rf"2 of \d+ {name} rows {words}.*: 4, 17$"):
        measured(*sides, *labels)


def test_rows_that_are_zero_where_they_are_compared():
    sides, labels = world(14)
    sides[1][6, :5] = 0
    with pytest.raises(ValueError, match="1 of 120 new gallery rows are zero .* in the 5 dimensions compared: 6"):
        measured(*sides[:2], *(side[:, :5] for side in sides[2:]), *labels, dimensions="truncate")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": (0, 0.5)}, r"rise from 0 \(the cross test\) to 1 \(the self test\), got \[0.0, 0.5\]"),
        ({"fractions": (0, 0.5, 0.5, 1)}, "rise from 0"),
        ({"fractions": ()}, "rise from 0"),
        ({"old_gallery": np.ones((119, 12))}, "^old has other gallery images than new: 119 instead of 120. All"),
        ({"old_gallery": np.ones((0, 12))}, "old has other gallery images than new: 0 instead of 120"),
        (
            {"independent": (np.ones((9, 3)), np.ones((120, 3)))},
            "independent has other query images than new: 9 instead of 24",
        ),
        ({"new_gallery": None}, r"new gallery descriptors must be a matrix .* got shape \(\)"),
        ({"independent": (45.3, 60.1)}, r"must be shares of 0 to 1, got \(45.3, 60.1\)"),
        ({"independent": "best"}, r"pair of \(query, gallery\) descriptors, a RankingResult, or .* got str"),
        ({"new_query": np.ones((24, 11))}, r"new descriptors must have one dimension, got 11 \(query\) and 12"),
        ({"old_query": np.ones(24)}, r"old query descriptors must be a matrix .* got shape \(24,\)"),
        ({"rerank": True}, "rerank=False and protocol='market1501'; got rerank=True and"),
        ({"protocol": "cuhk03"}, "got rerank=False and protocol='cuhk03'"),
        ({"metric": "manhattan"}, "unknown metric 'manhattan'"),
        ({"dimensions": "cut"}, "unknown dimensions 'cut'"),
    ],
)
def test_bad_input(changes, message):
    sides, labels = world(15)
    names = ("new_query", "new_gallery", "old_query", "old_gallery")
    arrays = [changes.get(name, side) for name, side in zip(names, sides, strict=True)]
    settings = {name: value for name, value in changes.items() if name not in names}
    with pytest.raises(ValueError, match=message):
        measured(*arrays, *labels, **settings)


@pytest.mark.parametrize(
    ("column", "value", "difference"),
    [
        ("pids", 3, "identity of 1 rows, of row 2 3 instead of 0"),
        ("camids", 5, "camera of 1 rows, of row 2 5 instead of 1"),
        ("paths", "/moved/to/c.jpg", "file of 1 rows, of row 2 'c.jpg' instead of 'b2.jpg'"),
    ],
)
def test_models_of_other_images(column, value, difference):
    def described(folder, camids):
        paths = [f"{folder}/b{row}.jpg" for row in range(4)]
        return Descriptors(np.eye(4), np.array([0, 1, 0, 1]), np.array(camids), paths)

    new, old = ((described(f, [0, 0, 1, 1]), described(f, [1, 1, 0, 0])) for f in ("/a", "/moved/to"))
    compatibility(new, old)
    getattr(old[0], column)[2] = value
    with pytest.raises(ValueError, match=f"^old has other query images than new: {difference}"):
        compatibility(new, old)


def test_fractions_are_read():
    assert check_fractions([0, 1]) == (0.0, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    sides, labels = world(16)
    expected = measured(*sides, *labels)
    found = measured(*(torch.tensor(side).cuda() for side in sides), *labels)
    np.testing.assert_allclose(found.backfill.mAP, expected.backfill.mAP, atol=1e-3)
