import json
import math
from dataclasses import replace

import numpy as np
import pytest

from torchreid_ptl.evaluation import (
    Descriptors,
    EvaluationOptions,
    VersionMatrix,
    compare,
    compatibility,
    evaluate_ranking,
    version_matrix,
)
from torchreid_ptl.evaluation.version_matrix import average_compatibility, average_score

NAN = math.nan
THREE = np.array([[0.40, NAN, NAN], [0.45, 0.50, NAN], [0.39, 0.50, 0.60]])


def versions(count=3, dims=8, queries=20, images=80, people=6):
    rng = np.random.default_rng(count)
    centres = rng.standard_normal((people, dims))
    pids, camids = rng.integers(0, people, queries + images), rng.integers(0, 3, queries + images)
    sides = {}
    for index in range(count):
        features = centres[pids] + (1.5 - 0.3 * index) * rng.standard_normal((queries + images, dims))
        sides[f"m{index}"] = (features[:queries], features[queries:])
    return sides, (pids[:queries], pids[queries:], camids[:queries], camids[queries:])


def described(sides, labels):
    """Queries and gallery; labels are cut where there are fewer rows."""
    if sides is None or any(side is None for side in sides):
        return sides
    rows = [len(side) for side in sides]
    (query, gallery), (query_pids, gallery_pids, query_camids, gallery_camids) = sides, labels
    return (
        Descriptors(query, query_pids[: rows[0]], query_camids[: rows[0]]),
        Descriptors(gallery, gallery_pids[: rows[1]], gallery_camids[: rows[1]]),
    )


def matrix_of(sides, *labels, **settings):
    """`version_matrix` of arrays."""
    if isinstance(sides, dict):
        named = {name: described(pair, labels) for name, pair in sides.items()}
    else:
        named = [described(pair, labels) for pair in sides]
    return version_matrix(named, **settings)


def test_the_averages_by_hand():
    assert average_compatibility(THREE) == pytest.approx(2 / 3)  # 0.45 and the equal 0.50 count, 0.39 does not
    assert average_score(THREE) == pytest.approx((0.40 + 0.45 + 0.50 + 0.39 + 0.50 + 0.60) / 6)
    assert average_compatibility([[0.5, 0.9], [0.49, 0.9]]) == 0
    assert math.isnan(average_compatibility([[0.5]]))
    matrix = VersionMatrix(("a", "b", "c"), THREE, THREE[:, [0, 1, 2]] / 2)
    assert pytest.approx((2 / 3, 2 / 3)) == matrix.AC
    assert matrix.AM.cmc1 == pytest.approx(average_score(THREE) / 2)


def test_what_stands_above_the_diagonal_counts_nowhere():
    full = np.where(np.isnan(THREE), 0.99, THREE)
    assert average_compatibility(full) == average_compatibility(THREE)
    assert average_score(full) == average_score(THREE)


def test_every_pair_is_a_test_of_its_own():
    sides, labels = versions()
    matrix = matrix_of(sides, *labels)
    assert matrix.names == ("m0", "m1", "m2")
    unit = {name: [side / np.linalg.norm(side, axis=1, keepdims=True) for side in pair] for name, pair in sides.items()}
    for t, newer in enumerate(sides):
        for k, older in enumerate(sides):
            if k > t:
                assert np.isnan(matrix.mAP[t, k])
                continue
            expected = evaluate_ranking(*described((unit[newer][0], unit[older][1]), labels))
            assert matrix.mAP[t, k] == pytest.approx(expected.mAP)
            assert matrix.cmc1[t, k] == pytest.approx(expected.rank(1))
    pair = compatibility(described(sides["m2"], labels), described(sides["m1"], labels))
    assert matrix.mAP[2, 1] == pair.cross_test.mAP
    assert matrix.mAP[1, 1] == pair.old_test.mAP
    assert matrix.mAP[2, 2] == pair.self_test.mAP


def test_versions_are_counted_where_they_have_no_name():
    sides, labels = versions(2)
    matrix = matrix_of(list(sides.values()), *labels)
    assert matrix.names == ("v1", "v2")
    np.testing.assert_array_equal(matrix.mAP, matrix_of(sides, *labels).mAP)


def test_it_prints_as_a_table():
    text = str(VersionMatrix(("old", "newer", "new"), THREE, THREE))
    lines = text.splitlines()
    assert lines[0].split("|")[2:5] == ["   old ", " newer ", "   new "]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["newer", "45.00", "50.00", ""]
    assert "AC 66.67%   AM 47.33%" in text
    assert len({len(line) for line in lines[:5]}) == 1
    assert "CMC-1 (%)" in text
    content = json.loads(json.dumps(VersionMatrix(("a", "b", "c"), THREE, THREE).as_dict(), allow_nan=False))
    assert content["mAP"][1] == [0.45, 0.5, None]
    assert content["AC"]["mAP"] == pytest.approx(2 / 3)


def test_dimensions_are_those_of_a_pair():
    sides, labels = versions()
    sides["m1"] = tuple(side[:, :5] for side in sides["m1"])
    with pytest.raises(ValueError, match="m1 descriptors have 5 dimensions and m0 ones 8"):
        matrix_of(sides, *labels)
    found = matrix_of(sides, *labels, dimensions="truncate")
    cut = {name: tuple(side[:, :5] for side in pair) for name, pair in sides.items()}
    expected = matrix_of(cut, *labels)
    np.testing.assert_allclose(found.mAP[1], expected.mAP[1])
    assert found.mAP[2, 1] == pytest.approx(expected.mAP[2, 1])
    assert found.mAP[2, 0] == pytest.approx(matrix_of(versions()[0], *labels).mAP[2, 0])
    padded = matrix_of(sides, *labels, dimensions="pad")
    filled = {name: tuple(np.pad(s, ((0, 0), (0, 8 - s.shape[1]))) for s in pair) for name, pair in sides.items()}
    np.testing.assert_allclose(padded.mAP, matrix_of(filled, *labels).mAP)


def test_progress_counts_all_pairs():
    sides, labels = versions()
    seen = []
    matrix_of(sides, *labels, progress=lambda *counts: seen.append(counts))
    assert seen[-1] == (6 * 20, 6 * 20)


def test_bad_input():
    sides, labels = versions()
    pairs = list(sides.values())
    with pytest.raises(ValueError, match="version 'v2' is missing"):
        matrix_of([pairs[0], None, pairs[2]], *labels)
    with pytest.raises(ValueError, match="version 'm1' is missing"):
        matrix_of({**sides, "m1": (pairs[1][0], None)}, *labels)
    with pytest.raises(ValueError, match="two versions or more, got 1: m0"):
        matrix_of({"m0": pairs[0]}, *labels)
    with pytest.raises(ValueError, match="m2 has other gallery images than m0: 79 instead of 80"):
        matrix_of({**sides, "m2": (pairs[2][0], pairs[2][1][1:])}, *labels)
    pairs[1][1][3] = 0
    with pytest.raises(ValueError, match="1 of 80 m1 gallery rows are zero and have no direction: 3"):
        matrix_of(sides, *labels)
    with pytest.raises(ValueError, match=r"mAP of 2 versions must be a square, got shape \(3, 3\)"):
        VersionMatrix(("a", "b"), THREE, THREE)
    with pytest.raises(ValueError, match="cmc1 must have a number for every pair"):
        VersionMatrix(("a", "b", "c"), THREE, np.full((3, 3), NAN))


def test_a_comparison_is_the_matrix_and_every_update():
    sides, labels = versions()
    named = {name: described(pair, labels) for name, pair in sides.items()}
    apart = described(tuple(side[:, ::-1].copy() for side in sides["m2"]), labels)
    options, seen = EvaluationOptions(seed=3, return_top=2), []
    found = compare(
        named,
        options,
        name="tiny",
        independent=apart,
        fractions=(0, 1),
        progress=lambda part: lambda done, total: seen.append((part, done, total)),
    )
    np.testing.assert_array_equal(found.matrix.mAP, version_matrix(named).mAP)
    assert [(update.old, update.new) for update in found.updates] == [("m0", "m1"), ("m1", "m2")]
    last = compatibility(named["m2"], named["m1"], options, independent=apart, fractions=(0, 1))
    assert found.updates[1].result.as_dict() == last.as_dict()
    assert found.updates[0].result.independent is None
    assert found.updates[0].result.cross_test.top.shape == (20, 2)
    assert str(found) == (
        f"tiny\n{found.matrix}\ntiny, m0 to m1\n{found.updates[0].result}\ntiny, m1 to m2\n{found.updates[1].result}"
    )
    assert str(compare(named)).startswith("| mAP (%)")
    assert list(dict.fromkeys(part for part, *_ in seen)) == ["all pairs", "m0 to m1", "m1 to m2"]
    assert all(done <= total for _, done, total in seen)


def test_a_comparison_knows_the_files_if_one_version_does():
    sides, labels = versions(2)
    named = {name: described(pair, labels) for name, pair in sides.items()}
    with_paths = tuple(replace(side, paths=[f"{n}.jpg" for n in range(len(side))]) for side in named["m1"])
    assert compare({**named, "m1": with_paths}).query is with_paths[0]
    assert compare(named, independent=with_paths).gallery is with_paths[1]
    assert compare(named).query is named["m0"][0]
