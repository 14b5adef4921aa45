from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from torchreid_ptl.report.visual import (
    CHOICES,
    Match,
    RankRow,
    choose_queries,
    choose_worst,
    draw_cmc,
    draw_training_curves,
    render,
    save_figure,
    save_rank_list,
)
from torchreid_ptl.report.visual.curves import _sort_into_panels
from torchreid_ptl.report.visual.ranklist import QUERY_COLOUR, RIGHT_COLOUR, WRONG_COLOUR, short

FRAMES = {"query": QUERY_COLOUR, "right": RIGHT_COLOUR, "wrong": WRONG_COLOUR}
SKIN, GREY = (250, 200, 10), (170, 170, 170)


@pytest.fixture
def person(tmp_path):
    path = tmp_path / "person.png"
    Image.new("RGB", (64, 128), SKIN).save(path)
    return path


def read_png(path):
    assert path.read_bytes().startswith(b"\x89PNG")
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def frames_along(line):
    """Names of the frame colours met along a line of pixels, a run of one colour once."""
    names = [next((name for name, colour in FRAMES.items() if tuple(pixel) == colour), None) for pixel in line]
    runs = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    return [name for name in runs if name]


def rows_of_frames(picture):
    """Start and end of each band of lines in which the query's frame is at least a tile wide."""
    wide = (picture == QUERY_COLOUR).all(2).sum(1) > 100
    edges = np.flatnonzero(wide)
    starts = edges[np.r_[True, np.diff(edges) > 1]]
    return list(zip(starts[::2].tolist(), starts[1::2].tolist(), strict=True))


def match(path, correct, distance=0.25, camera=3):
    return Match(path, correct, distance, camera)


def test_frames_tell_right_from_wrong(tmp_path, person):
    rows = [
        RankRow(person, "query 0001 cam 2, AP 34 %", [match(person, c) for c in (True, False, True)]),
        RankRow(str(person), "query 0002 cam 1, AP 2 %", [match(str(person), c) for c in (False, True)]),
        RankRow(person, "nothing retrieved", []),
    ]
    target = tmp_path / "new" / "folder" / "ranks.png"
    save_rank_list(target, rows, title="costs $5 and $6")
    picture = read_png(target)
    bands = rows_of_frames(picture)
    assert len(bands) == 3
    seen = [frames_along(picture[(top + bottom) // 2]) for top, bottom in bands]
    expected = (["query", "right", "wrong", "right"], ["query", "wrong", "right"], ["query"])
    assert seen == [[name for name in names for _ in "lr"] for names in expected]
    assert [path.name for path in target.parent.iterdir()] == ["ranks.png"]


def test_people_have_one_size_and_keep_their_proportions(tmp_path, person):
    wide, tall = tmp_path / "wide.jpg", tmp_path / "tall.bmp"
    Image.new("RGB", (100, 100), (0, 0, 0)).save(wide)
    Image.new("L", (10, 40), 0).save(tall)
    save_rank_list(tmp_path / "a.png", [RankRow(person, "q", [match(wide, True), match(tall, True)])])
    picture = read_png(tmp_path / "a.png")
    ((top, bottom),) = rows_of_frames(picture)
    tiles = picture[top:bottom]
    assert np.count_nonzero((tiles == SKIN).all(2)) == 128 * 256
    dark = (tiles == 0).all(2).sum(0)
    runs = np.split(np.flatnonzero(dark > 30), np.flatnonzero(np.diff(np.flatnonzero(dark > 30)) > 1) + 1)
    assert [(len(run), int(dark[run[0]])) for run in runs] == [(128, 128), (64, 256)]


def test_text_stands_where_it_belongs(tmp_path, person):
    save_rank_list(tmp_path / "a.png", [RankRow(person, "query 0001", [match(person, True)])])
    picture = read_png(tmp_path / "a.png")
    ((top, bottom),) = rows_of_frames(picture)
    left = np.flatnonzero((picture[(top + bottom) // 2] == RIGHT_COLOUR).all(1))[0]
    assert (picture[top - 25 : top, :160] < 120).any()
    assert (picture[bottom + 8 : bottom + 30, left : left + 138] < 120).any()
    assert (picture[bottom + 8 : bottom + 30, : left - 10] == 255).all()


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "folder"])
def test_unreadable_image_becomes_a_grey_tile(tmp_path, person, kind):
    bad = tmp_path / "bad.jpg"
    if kind == "text":
        bad.write_text("no image")
    elif kind == "folder":
        bad.mkdir()
    elif kind == "truncated":
        noise = np.random.default_rng(0).integers(0, 255, (128, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[:1500])
    save_rank_list(tmp_path / "a.png", [RankRow(person, "q", [match(bad, False), match(person, True)])])
    picture = read_png(tmp_path / "a.png")
    ((top, bottom),) = rows_of_frames(picture)
    grey = np.count_nonzero((picture == GREY).all(2))
    assert 0.9 * 128 * 256 < grey < 128 * 256
    assert frames_along(picture[top + 20]) == [name for name in ("query", "wrong", "right") for _ in "lr"]


def test_bad_rank_lists(tmp_path, person):
    with pytest.raises(ValueError, match="rows is empty"):
        save_rank_list(tmp_path / "a.png", [])
    with pytest.raises(ValueError, match=r"ends in \.png, got 'a.jpg'"):
        save_rank_list(tmp_path / "a.jpg", [RankRow(person, "q", [])])
    with pytest.raises(ValueError, match=r"at most 195 rows .* got 500 and 0"):
        save_rank_list(tmp_path / "a.png", [RankRow(person, "q", [])] * 500)
    assert [path.name for path in tmp_path.iterdir()] == ["person.png"]


def test_failed_drawing_keeps_the_old_picture(tmp_path, monkeypatch):
    target = tmp_path / "cmc.png"
    save_figure(target, draw_cmc({"a": [0.5, 1.0]}))
    before = target.read_bytes()

    def interrupted(self, path, **_):
        path.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", interrupted)
    with pytest.raises(OSError, match="disk full"):
        save_figure(target, draw_cmc({"a": [0.1, 0.2]}))
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("distance", "text"),
    [(0.12345, "0.123"), (45.678, "45.68"), (1234.5, "1234"), (3.2e7, "3.2e7"), (-0.0004, "-0.000"), (np.nan, "nan")],
)
def test_distances_stay_short(distance, text):
    assert short(distance) == text


def test_worst_queries_first_without_skipped_ones():
    result = SimpleNamespace(average_precision=np.array([0.5, np.nan, 0.1, 0.9, 0.1, np.nan, 0.0]))
    assert choose_worst(result, 4).tolist() == [6, 2, 4, 0]
    assert choose_worst(result, 100).tolist() == [6, 2, 4, 0, 3]
    assert choose_worst(result, 0).tolist() == []
    with pytest.raises(ValueError, match="0 or more, got -1"):
        choose_worst(result, -1)


SCORES = SimpleNamespace(average_precision=np.array([0.5, np.nan, 0.1, 0.9, 0.2, np.nan, 0.0, 0.7]))


def test_queries_are_chosen_as_asked():
    assert choose_queries(SCORES, "worst", 3).tolist() == [6, 2, 4]
    assert choose_queries(SCORES, "spread", 3).tolist() == [6, 4, 3]
    assert choose_queries(SCORES, "given", 1, given=[7, 0, 7]).tolist() == [7, 0, 7]
    assert choose_queries(SCORES, "given", 1, given=np.array([3])).tolist() == [3]


@pytest.mark.parametrize("how", ["worst", "spread", "random"])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 100])
def test_each_query_with_a_match_is_chosen_at_most_once(how, count):
    chosen = choose_queries(SCORES, how, count).tolist()
    assert len(set(chosen)) == len(chosen) == min(count, 6)
    assert set(chosen) <= {0, 2, 3, 4, 6, 7}
    nobody = SimpleNamespace(average_precision=np.full(3, np.nan))
    assert choose_queries(nobody, how, count).tolist() == []


def test_the_random_choice_is_seeded_and_fair():
    drawn = [tuple(choose_queries(SCORES, "random", 3, seed=seed).tolist()) for seed in range(600)]
    assert drawn[:5] == [tuple(choose_queries(SCORES, "random", 3, seed=seed).tolist()) for seed in range(5)]
    assert len(set(drawn)) > 80  # of 120
    times = np.bincount(np.array(drawn).ravel(), minlength=8)
    assert times[[0, 2, 3, 4, 6, 7]].min() > 240  # 300 expected


@pytest.mark.parametrize(
    ("how", "count", "given", "message"),
    [
        ("best", 3, (), "unknown way to choose queries 'best'; allowed: worst, spread, random, given"),
        ("spread", -1, (), "0 or more, got -1"),
        ("given", 3, (), "belong to how='given' and only to it; got 0 with 'given'"),
        ("worst", 3, [1], "got 1 with 'worst'"),
        ("given", 3, [0, 8, -1], "there are 8 queries, 0 to 7; got 8, -1"),
        ("given", 3, [0, 5, 1], "query 5, 1 has no match in another camera"),
        ("given", 3, [0.5], "row of integers, got float64"),
    ],
)
def test_bad_choices(how, count, given, message):
    with pytest.raises(ValueError, match=message):
        choose_queries(SCORES, how, count, given=given)
    assert set(CHOICES) == {"worst", "spread", "random", "given"}


def test_the_legend_says_what_is_left_out(tmp_path, person):
    save_rank_list(tmp_path / "a.png", [RankRow(person, "q", [])])
    picture = read_png(tmp_path / "a.png")
    written = np.flatnonzero((picture[24:54] < 200).any(2).any(0))
    assert 700 < written.max() < picture.shape[1] - 10  # whole, also above a single tile


HISTORY = {
    "loss": [(1, 3.0), (2, 2.0), (3, 1.0)],
    "loss_t": [(1, 1.0), (2, 0.5), (3, 0.2)],
    "acc": [(1, 0.5), (2, 60.0)],
    "lr": [(3, 1e-5), (1, 1e-3), (2, 1e-4)],
    "market1501 mAP": [(2, 0.25), (3, 0.5)],
    "market1501 rank-1": [],
}


def test_training_curves_draw_only_panels_with_data(tmp_path):
    heights = []
    for names in (["loss"], ["loss", "lr"], list(HISTORY)):
        save_figure(tmp_path / "t.png", draw_training_curves({name: HISTORY[name] for name in names}))
        heights.append(read_png(tmp_path / "t.png").shape[0])
    assert np.diff(heights).tolist() == [312, 312]


def test_series_find_their_panel_and_unit():
    panels = _sort_into_panels(HISTORY)
    assert {kind: list(curves) for kind, curves in panels.items()} == {
        "losses": ["loss", "loss_t"],
        "scores": ["acc", "market1501 mAP"],
        "rates": ["lr"],
    }
    assert panels["scores"]["market1501 mAP"][1].tolist() == [0.25, 0.5]  # percent, never guessed
    assert panels["scores"]["acc"][1].tolist() == [0.5, 60.0]
    assert panels["rates"]["lr"][1].tolist() == [1e-3, 1e-4, 1e-5]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("name", ["loss", "lr", "_$odd"])
def test_single_and_odd_points_are_drawn(tmp_path, name, value):
    save_figure(tmp_path / "t.png", draw_training_curves({name: [(1, value)]}))
    assert min(read_png(tmp_path / "t.png").shape[:2]) > 300


@pytest.mark.parametrize("history", [{}, {"loss": [], "lr": []}])
def test_empty_history(tmp_path, history):
    with pytest.raises(ValueError, match="no training curve"):
        save_figure(tmp_path / "t.png", draw_training_curves(history))


def test_cmc_picture(tmp_path):
    curves = {"densenet161": np.linspace(0.8, 1, 50), "_ours $": [0.9, 0.95], "short": np.array([1.0])}
    save_figure(tmp_path / "deep" / "cmc.png", draw_cmc(curves, max_rank=10))
    picture = read_png(tmp_path / "deep" / "cmc.png")
    assert picture.shape[:2] == (600, 840)
    assert (picture == (0x00, 0x72, 0xB2)).all(2).sum() > 200


@pytest.mark.parametrize(
    ("results", "max_rank", "message"),
    [
        ({}, 20, "results is empty"),
        ({"a": []}, 20, r"CMC of 'a' must be a row of numbers, got shape \(0,\)"),
        ({"a": [[0.5]]}, 20, r"shape \(1, 1\)"),
        ({"a": [80.0, 90.0]}, 20, "shares of 0 to 1, got 80 to 90"),
        ({"a": [np.nan]}, 20, "shares of 0 to 1"),
        ({"a": [0.5]}, 0, "max_rank must be 1 or more, got 0"),
    ],
)
def test_bad_cmc(tmp_path, results, max_rank, message):
    with pytest.raises(ValueError, match=message):
        save_figure(tmp_path / "cmc.png", draw_cmc(results, max_rank))


def test_file_and_bytes_are_one_picture(tmp_path):
    save_figure(tmp_path / "cmc.png", draw_cmc({"a": [0.5, 1.0]}))
    assert (tmp_path / "cmc.png").read_bytes() == render(draw_cmc({"a": [0.5, 1.0]}))
    save_figure(tmp_path / "t.png", draw_training_curves(HISTORY))
    assert (tmp_path / "t.png").read_bytes() == render(draw_training_curves(HISTORY))
