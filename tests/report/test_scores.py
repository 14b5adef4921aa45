import io

import numpy as np
import pytest
from PIL import Image

from torchreid_ptl.report.visual import draw_roc, draw_score_histogram, render, save_figure
from torchreid_ptl.report.visual.scores import _cut, _filled, _first_far, _read_bins

EDGES = np.linspace(0.0, 2.0, 21)
GENUINE, IMPOSTOR = np.zeros(20, dtype=int), np.zeros(20, dtype=int)
GENUINE[2:6], IMPOSTOR[8:14] = [1, 4, 4, 1], [10, 50, 90, 90, 50, 10]
CURVE = ([0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0], [0.2, 0.5, 0.6, 0.8, 0.9, 1.0])
BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def pixels(png):
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def columns_with_a_line(picture):
    """Columns of which black covers more than a third: a dashed line or the axis, never a text."""
    return np.flatnonzero((picture < 60).all(2).mean(0) > 0.34)


def test_the_histogram_shows_both_kinds_of_pairs(tmp_path):
    save_figure(tmp_path / "new" / "h.png", draw_score_histogram(EDGES, GENUINE, IMPOSTOR))
    picture = pixels((tmp_path / "new" / "h.png").read_bytes())
    assert picture.shape == (600, 840, 3)
    blue, orange = ((picture == colour).all(2) for colour in (BLUE, ORANGE))
    assert blue.sum() > 500
    assert orange.sum() > 150
    body = slice(150, 500)  # below the legend
    assert np.flatnonzero(blue[body].any(0)).max() < np.flatnonzero(orange[body].any(0)).min()


@pytest.mark.parametrize("threshold", [0.7, 0.21, 1.39, -0.5, 2.5])
def test_the_threshold_is_marked_where_it_is(threshold):
    without, marked = (pixels(render(draw_score_histogram(EDGES, GENUINE, IMPOSTOR, t))) for t in (None, threshold))
    axis = columns_with_a_line(without)
    lines = np.setdiff1d(columns_with_a_line(marked), np.r_[axis, axis - 1, axis + 1, axis - 2])
    left, right = _filled(EDGES, [GENUINE, IMPOSTOR], threshold)
    expected = (threshold - left) / (right - left)
    spine = int(axis.min())
    assert lines.size
    share = (lines.mean() - spine) / (825 - spine)
    assert abs(share - expected) < 0.03
    assert (marked[14:32] < 120).any()  # its name


def test_counts_become_shares_and_shares_stay():
    assert _read_bins("x", [1, 3], 2).tolist() == [0.25, 0.75]
    assert _read_bins("x", [0.25, 0.5], 2).tolist() == [0.25, 0.5]  # the rest lies beyond the bins
    assert _read_bins("x", np.full(10, 0.1), 10).sum() == pytest.approx(1)


def test_the_axis_ends_where_nothing_stands():
    left, right = _filled(EDGES, [GENUINE, IMPOSTOR], None)
    assert (left, right) == pytest.approx((0.2 - 0.024, 1.4 + 0.024))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": [0.0]}, r"two or more borders of bins, got shape \(1,\)"),
        ({"edges": [EDGES, EDGES]}, "two or more borders"),
        ({"edges": EDGES[::-1]}, "rise from bin to bin; sort"),
        ({"edges": np.r_[EDGES[:-1], np.inf]}, "must be finite"),
        ({"genuine": GENUINE[1:]}, r"genuine must hold one number for each of 20 bins, got shape \(19,\)"),
        ({"impostor": -IMPOSTOR}, "impostor must be finite and not below 0, got -90"),
        ({"impostor": np.full(20, np.nan)}, "impostor must be finite"),
        ({"genuine": 0 * GENUINE, "impostor": 0.0 * IMPOSTOR}, "no pair to draw"),
        ({"impostor": IMPOSTOR / 2}, "add up to at most 1, got a sum of 150; give counts as integers"),
        ({"threshold": np.nan}, "finite distance, or None for no line; got nan"),
    ],
)
def test_bad_histograms(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        save_figure(
            tmp_path / "h.png",
            draw_score_histogram(**{"edges": EDGES, "genuine": GENUINE, "impostor": IMPOSTOR, **changes}),
        )
    assert not list(tmp_path.iterdir())


def test_the_roc_and_its_points(tmp_path):
    curves = {"_ours $": CURVE, "other": ([1e-3, 1.0], [0.5, 1.0])}
    points = {"_ours $": [(1e-2, 0.8), (1e-3, 0.6), (0.9, 0.9)], "other": [(1e-2, 0.5), (1e-3, 0.5)]}
    save_figure(tmp_path / "roc.png", draw_roc(curves, points, eer=True))
    picture = pixels((tmp_path / "roc.png").read_bytes())
    assert picture.shape == (600, 840, 3)
    assert (picture == BLUE).all(2).sum() > 500
    assert (picture == ORANGE).all(2).sum() > 300
    assert len({render(draw_roc(curves)), render(draw_roc(curves, points)), render(draw_roc(curves, eer=True))}) == 3


def test_file_and_bytes_are_one_picture(tmp_path):
    save_figure(tmp_path / "roc.png", draw_roc({"a": CURVE}))
    assert (tmp_path / "roc.png").read_bytes() == render(draw_roc({"a": CURVE}))
    save_figure(tmp_path / "h.png", draw_score_histogram(EDGES, GENUINE, IMPOSTOR, 0.7, "1 - cosine"))
    assert (tmp_path / "h.png").read_bytes() == render(
        draw_score_histogram(EDGES, GENUINE, IMPOSTOR, 0.7, "1 - cosine")
    )


def test_marks_bear_their_rate():
    figure = draw_roc({"a": CURVE, "b": CURVE}, {"a": [(1e-2, 0.8), (1e-3, 0.6)], "b": [(1e-2, 0.8)]})
    texts = {(text.get_text(), *text.xy) for text in figure.axes[0].texts}
    assert {text[:2] for text in texts} == {("60.0 %", 1e-3), ("80.0 %", 1e-2)}
    heights = sorted(text[2] for text in texts if text[1] == 1e-2)
    assert heights[1] == 80
    assert heights[0] < 77  # not over the other


def test_the_roc_axis_begins_at_the_smallest_rate_that_it_can_show():
    far, tar = (np.array(row) for row in CURVE)
    assert _first_far({"a": (far, tar)}) == 1e-4
    assert _first_far({"a": (far, tar), "b": (np.array([0, 1e-9, 1.0]), tar[:3])}) == 1e-6
    for first, rates in ((1e-4, CURVE[1][1:]), (5e-4, CURVE[1][1:]), (1e-6, CURVE[1])):
        shown = _cut(far, tar, first)
        assert shown[0][0] == first
        assert shown[1].tolist() == rates


@pytest.mark.parametrize("curve", [([0, 0], [0.5, 1]), ([0, 1], [1, 1]), ([1], [1]), ([0], [0]), ([0.5, 1], [0, 0])])
def test_small_data_sets_have_a_roc_too(curve):
    far, tar = (np.array(row, dtype=float) for row in curve)
    assert _first_far({"a": (far, tar)}) == 0.1
    figure = draw_roc({"a": curve}, {"a": [(1e-3, 0.5), (1.0, 1.0)]}, eer=True)
    assert figure.axes[0].get_xlim() == (0.1, 1)
    assert len(render(figure)) > 5000


@pytest.mark.parametrize("empty", ["genuine", "impostor"])
@pytest.mark.parametrize("dtype", [int, float])
def test_one_kind_may_lie_beyond_the_bins(empty, dtype):
    pairs = {"genuine": GENUINE, "impostor": IMPOSTOR} | {empty: np.zeros(20, dtype=dtype)}
    assert len(render(draw_score_histogram(EDGES, **pairs, threshold=0.5))) > 5000


@pytest.mark.parametrize(
    ("curves", "points", "message"),
    [
        ({}, None, "curves is empty"),
        ({"a": ([], [])}, None, r"FAR of 'a' must be a row of numbers, got shape \(0,\)"),
        ({"a": (CURVE[0], CURVE[1][1:])}, None, "a TAR for each FAR, got 6 FAR and 5 TAR"),
        ({"a": (CURVE[0], [80] * 6)}, None, "TAR of 'a' must be shares of 0 to 1, got 80 to 80"),
        ({"a": ([np.nan, 1], [0, 1])}, None, "FAR of 'a' must be shares"),
        ({"a": (CURVE[0][::-1], CURVE[1])}, None, "FAR of 'a' falls; give it in the order of rising thresholds"),
        ({"a": CURVE}, {"b": [(0.1, 0.5)]}, "points are given for 'b', but the curves are 'a'"),
        ({"a": CURVE}, {"a": [(0.0, 0.5)]}, r"FAR above 0 and at most 1 .* got \(0.0, 0.5\)"),
        ({"a": CURVE}, {"a": [(0.1, 90)]}, "TAR of 0 to 1"),
    ],
)
def test_bad_roc(tmp_path, curves, points, message):
    with pytest.raises(ValueError, match=message):
        save_figure(tmp_path / "roc.png", draw_roc(curves, points))
    assert not list(tmp_path.iterdir())
