"""The backfill curve, the matrix of versions, and queries on which systems differ."""

import numpy as np
import pytest

from torchreid_ptl.report.visual import (
    Comparison,
    Match,
    Report,
    TargetReport,
    draw_backfill,
    draw_version_matrix,
    render,
    save_figure,
    save_report,
)

FRACTIONS = [0, 0.25, 0.5, 0.75, 1]
CURVES = {"mAP": [0.45, 0.47, 0.5, 0.54, 0.6], "CMC-1": [0.6, 0.62, 0.66, 0.7, 0.8]}
LEVELS = {"old system": {"mAP": 0.4, "CMC-1": 0.63}, "independent": {"mAP": 0.62, "CMC-1": 0.82}}
MATRIX = np.array([[0.4, np.nan, np.nan], [0.45, 0.5, np.nan], [0.39, 0.5, 0.6]])


def test_the_backfill_curve_and_its_levels():
    (ax,) = draw_backfill(FRACTIONS, CURVES, LEVELS).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == [
        "mAP", "CMC-1", "mAP, old system", "CMC-1, old system", "mAP, independent", "CMC-1, independent",
    ]  # fmt: skip
    np.testing.assert_allclose(lines["mAP"].get_ydata(), [45, 47, 50, 54, 60])
    np.testing.assert_allclose(lines["mAP"].get_xdata(), [0, 25, 50, 75, 100])
    assert set(lines["CMC-1, old system"].get_ydata()) == {63}
    assert lines["CMC-1, old system"].get_color() == lines["CMC-1"].get_color() != lines["mAP"].get_color()
    assert lines["mAP, old system"].get_linestyle() != lines["mAP, independent"].get_linestyle()
    low, high = ax.get_ylim()
    assert low < 40
    assert high > 82
    assert len(draw_backfill(FRACTIONS, CURVES).axes[0].lines) == 2


def test_the_matrix_says_which_pairs_are_compatible():
    figure = draw_version_matrix(["a", "$b", "c"], MATRIX)
    cells = {(text.get_position()[::-1]): text.get_text() for text in figure.axes[0].texts}
    assert cells == {
        (0, 0): "40.0", (1, 0): "45.0\n✓", (1, 1): "50.0", (2, 0): "39.0\n✗", (2, 1): "50.0\n✓", (2, 2): "60.0",
    }  # fmt: skip
    full = np.where(np.isnan(MATRIX), 0.9, MATRIX)
    assert render(draw_version_matrix(["a", "$b", "c"], full)) == render(figure)
    assert len(render(draw_version_matrix(["a"], [[0.5]]))) > 5000
    assert len(render(draw_version_matrix(["a", "b"], [[0.5, 0], [0.5, 0.5]]))) > 5000


def test_files_and_bytes_are_one_picture(tmp_path):
    save_figure(tmp_path / "b.png", draw_backfill(FRACTIONS, CURVES, LEVELS))
    assert (tmp_path / "b.png").read_bytes() == render(draw_backfill(FRACTIONS, CURVES, LEVELS))
    save_figure(tmp_path / "m.png", draw_version_matrix("abc", MATRIX, "CMC-1"))
    assert (tmp_path / "m.png").read_bytes() == render(draw_version_matrix("abc", MATRIX, "CMC-1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FRACTIONS, {}), "no backfill curve to draw"),
        (([], {"mAP": []}), "no backfill curve to draw"),
        ((FRACTIONS, {"mAP": [0.5]}), r"mAP must be a row of 5 numbers, got shape \(1,\)"),
        ((FRACTIONS, {"mAP": [50] * 5}), "mAP must be shares of 0 to 1, got 50 to 50"),
        (
            (FRACTIONS, CURVES, {"old": {"mINP": 0.5}}),
            "'old' has a level for 'mINP', but the curves are",
        ),
        ((FRACTIONS, CURVES, {"old": {"mAP": 40}}), "old, mAP must be shares"),
    ],
)
def test_bad_curves(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_backfill(*arguments)


def test_bad_matrices():
    with pytest.raises(ValueError, match=r"2 versions must be a square, got shape \(3, 3\)"):
        draw_version_matrix("ab", MATRIX)
    with pytest.raises(ValueError, match="mAP must be shares of 0 to 1"):
        draw_version_matrix("abc", 100 * MATRIX)


def test_lists_of_several_systems_stand_below_each_other(tmp_path):
    row = Comparison("q.jpg", "query <5>", {
        "old & slow": [Match("a.jpg", True, 0.1, 1)],
        "new": [Match("b.jpg", False, 0.2, 2), Match("a.jpg", True, 0.3, 1)],
    })  # fmt: skip
    targets = [TargetReport("one", {"AC": "50 %"}, comparisons={"lost": [row] * 7, "won": [], "found": [row]})] * 2
    save_report(tmp_path / "r.html", Report("t", targets, overview=("All updates", "update")))
    page = (tmp_path / "r.html").read_text()
    at = 0
    for words in ("All updates", "<th>update", "lost", "query &lt;5&gt;", "old &amp; slow", 'title="a.jpg"', "new",
                  'title="b.jpg"', 'title="a.jpg"', "1 more queries", "found"):  # fmt: skip
        at = page.index(words, at) + len(words)
    assert ">won<" not in page
    assert page.count("<article>") == 16


def test_parts_with_different_scores_have_an_overview_each(tmp_path):
    targets = [
        TargetReport("all", {"AC": "50 %"}),
        TargetReport("a to b", {"gain": "0.1"}),
        TargetReport("b to c", {"gain": "0.2"}),
    ]
    save_report(tmp_path / "r.html", Report("t", targets, overview=("Overview", "part")))
    overview = (tmp_path / "r.html").read_text().split("<nav>")[0]
    assert overview.count("<table") == 2
    assert overview.index("0.1") < overview.index("0.2")
    assert "\u2013" not in overview
