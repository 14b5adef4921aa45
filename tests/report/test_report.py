import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from torchreid_ptl.report.visual import Match, QueryScore, RankRow, Report, TargetReport, draw_cmc, render, save_report

EVIL = "<script>alert('1')</script>&\"><img src=x onerror=y>"
EMPTY_TAGS = {"meta", "img"}
PNG = render(draw_cmc({"a": [0.5, 1.0]}))


class Page(HTMLParser):
    """Tags with their attributes, text, and whether every tag is closed in its turn."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def of(self, tag, kind=""):
        """Attributes of the tags of a name and, if given, a class."""
        return [attrs for name, attrs in self.tags if name == tag and (not kind or kind in attrs.get("class", ""))]


def images_of(page):
    """Every image of a page, decoded; an error if one is anything but a data URI."""
    images = []
    for attrs in page.of("img"):
        head, content = attrs["src"].split(",")
        assert head in ("data:image/jpeg;base64", "data:image/png;base64")
        with Image.open(io.BytesIO(base64.b64decode(content, validate=True))) as image:
            image.load()
            images.append(image)
    return images


@pytest.fixture
def person(tmp_path):
    """Draws spots of all colours, which compress worse than people."""

    def draw(name, size=(64, 128)):
        noise = np.random.default_rng(len(name)).integers(50, 205, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size).save(tmp_path / name)
        return tmp_path / name

    return draw


def page_of(tmp_path, *targets, title="a title", **settings):
    save_report(tmp_path / "report" / "report.html", Report(title, targets, **settings))
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]
    return Page(tmp_path / "report" / "report.html")


def full_target(name, path):
    matches = [Match(path, k % 2 == 0, 0.5 + k / 100, 1 + k % 6) for k in range(10)]
    return TargetReport(
        name,
        {"mAP": "39.84 %", "rank-1": "65.12 %"},
        {"queries": 3368, "cameras": 6},
        ["read this first"],
        "the worst of all",
        [RankRow(path, f"row {k}", matches) for k in range(8)],
        [QueryScore("a/b.jpg", 7, 2, 0.0512, 33), QueryScore("a/c.jpg", 8, 1, float("nan"), 0)],
        [("a curve", PNG)],
        [("TAR at FAR", ["FAR", "TAR", "threshold"], [("1 %", "85.9 %", 0.812345678), ("0.1 %", None, None)])],
    )


def test_the_page_stands_alone(tmp_path, person):
    page = page_of(tmp_path, full_target("market1501", person("a.png")), facts={"model": "ptl", "link": "http://x.y"})
    images = images_of(page)
    assert len(images) == 8 * 11 + 1
    assert [image.format for image in images] == ["JPEG"] * 88 + ["PNG"]
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base", "form"}
    resources = [attrs[key] for _, attrs in page.tags for key in ("src", "href", "srcset", "action") if key in attrs]
    assert all(resource.startswith("data:image/") for resource in resources)
    assert not re.search(r"url\(|@import", page.html)
    assert any(attrs.get("content", "").startswith("default-src 'none'") for attrs in page.of("meta"))


def test_a_reader_meets_what_matters_first(tmp_path, person):
    page = page_of(tmp_path, full_target("market1501", person("a.png")), facts={"weights": "w.pth"})
    expected = [
        "a title", "market1501", "39.84 %", "65.12 %", "queries\u00a03368", "read this first", "the worst of all",
        "same person, same camera: left out", "row 0", "1\u00a0\u2713", "0.500", "cam 1", "2\u00a0\u2717", "row 5",
        "2 more queries", "row 6", "row 7", "Queries as a table (2 rows)", "5.1 %", "33", "a/b.jpg", "\u2013",
        "a curve", "TAR at FAR", "0.812346", "Settings and provenance", "w.pth",
    ]  # fmt: skip
    at, content = 0, "\n".join(page.texts)
    for words in expected:
        at = content.index(words, at) + len(words)


def test_rows_and_matches_keep_their_order(tmp_path, person):
    paths = {name: person(name) for name in ("q1.png", "q22.png", "m333.png", "m4444.png")}
    rows = [
        RankRow(paths["q22.png"], "second", [Match(paths["m4444.png"], False, 3.2e7, 4), Match("gone", True, 1, 2)]),
        RankRow(str(paths["q1.png"]), "first", [Match(paths["m333.png"], True, 0.25, 3)]),
        RankRow(paths["q1.png"], "alone", []),
    ]
    page = page_of(tmp_path, TargetReport("x", {}, rank_rows=rows))
    tiles = [(attrs["class"], attrs["title"]) for attrs in page.of("figure", "tile")]
    q1, q22, m3, m4 = (str(path) for path in paths.values())
    assert tiles == [
        ("tile query", q22), ("tile wrong", m4), ("tile right", "gone"), ("tile query", q1), ("tile right", m3),
        ("tile query", q1),
    ]  # fmt: skip
    assert re.search("second.*3.2e7.*first.*alone.*nothing retrieved", page.text)
    assert [attrs["alt"] for attrs in page.of("img")] == [
        "query", "rank 1, other person", "query", "rank 1, same person", "query",
    ]  # fmt: skip


def test_nothing_supplied_becomes_markup(tmp_path, person):
    bad = tmp_path / "a'\"&.png"
    person("a.png").rename(bad)
    target = TargetReport(
        EVIL, {EVIL: EVIL}, {EVIL: EVIL}, [EVIL], EVIL, [RankRow(bad, EVIL, [Match(EVIL, True, 0.5, EVIL)])],
        [QueryScore(EVIL, EVIL, EVIL, 0.5, 1)], [(EVIL, PNG), (EVIL, b"")], [(EVIL, [EVIL], [(EVIL,)])],
    )  # fmt: skip
    page = page_of(tmp_path, target, target, title=EVIL, facts={EVIL: EVIL})
    assert not page.of("script")
    assert len(images_of(page)) == 4
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert page.text.count(EVIL) > 20
    assert str(bad) in [attrs["title"] for attrs in page.of("figure", "tile")]


@pytest.mark.parametrize("kind", ["missing", "text", "truncated", "folder"])
def test_unreadable_images_say_so(tmp_path, person, kind):
    bad = tmp_path / "bad.png"
    if kind == "text":
        bad.write_text("no image")
    elif kind == "folder":
        bad.mkdir()
    elif kind == "truncated":
        person("bad.png")
        bad.write_bytes(bad.read_bytes()[:700])
    rows = [RankRow(bad, "q", [Match(person("a.png"), True, 0.5, 1), Match(bad, False, 0.6, 1)])]
    target = TargetReport("x", {}, rank_rows=rows, pictures=[("good", PNG), ("half", PNG[:900]), ("none", b"GIF89a")])
    page = page_of(tmp_path, target)
    assert len(images_of(page)) == 2
    assert len(page.of("div", "missing")) == 4
    assert page.text.count("unreadable") == 4


def test_names_that_are_no_text_are_written_somehow(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    page = page_of(tmp_path, TargetReport("x", {}, rank_rows=[RankRow(name, "q", [])]))
    assert r"caf\udce9.jpg" in page.text


@pytest.mark.parametrize("size", [(64, 128), (128, 256), (700, 1100), (900, 200)])
def test_a_row_is_small_and_keeps_proportions(tmp_path, person, size):
    path = person("a.png", size)
    empty = len(page_of(tmp_path, TargetReport("x", {})).html)
    page = page_of(tmp_path, full := TargetReport("x", {}, rank_rows=full_target("x", path).rank_rows[:4]))
    assert len(full.rank_rows[0].matches) == 10
    assert (len(page.html) - empty) / 4 < 60_000
    for image in images_of(page):
        assert image.width <= min(80, size[0])
        assert image.height <= 160
        assert image.width / image.height == pytest.approx(size[0] / size[1], rel=0.03)


def test_colours_of_an_image_survive(tmp_path):
    for mode, colour in (("RGB", (250, 200, 10)), ("L", 90), ("RGBA", (10, 20, 250, 255)), ("CMYK", (0, 0, 0, 0))):
        path = tmp_path / "a.tiff"
        Image.new(mode, (40, 80), colour).save(path)
        (image,) = images_of(page_of(tmp_path, TargetReport("x", {}, rank_rows=[RankRow(path, "q", [])])))
        expected = Image.new(mode, (1, 1), colour).convert("RGB").getpixel((0, 0))
        assert np.abs(np.subtract(image.getpixel((20, 40)), expected)).max() < 5


def test_several_data_sets_are_compared_at_the_top(tmp_path):
    targets = [TargetReport("one", {"mAP": "10.0 %"}), TargetReport("two", {"rank-1": "55.5 %", "mAP": "9.5 %"})]
    page = page_of(tmp_path, *targets)
    links = [attrs["href"] for attrs in page.of("a")]
    assert links == ["#target-0", "#target-1"]
    assert {f"#{attrs['id']}" for attrs in page.of("h2") if "id" in attrs} == set(links)
    assert "data set mAP rank-1 one 10.0 % \u2013 two 9.5 % 55.5 %" in page.text
    assert not page_of(tmp_path, targets[0]).of("a")


def test_long_parts_are_folded_and_numbers_stand_right(tmp_path):
    tables = [("short", ["name", "value"], [("a", 1.5)] * 12), ("long", ["n", "e"], [(1, "-1.5e-07")] * 13)]
    page = page_of(tmp_path, TargetReport("x", {}, tables=tables), facts={f"key {k}": "v" for k in range(15)})
    assert len(page.of("details")) == 2
    assert "long (13 rows)" in page.text
    assert "3 more" in page.text
    assert len(page.of("td", "number")) == 12 + 26


def test_empty_parts_leave_no_trace(tmp_path):
    page = page_of(tmp_path, TargetReport("x", {}))
    assert page.text == "a title a title x"
    assert not page.of("table")


def test_bad_reports(tmp_path):
    target = TargetReport("x", {}, tables=[("t", ["a", "b"], [(1, 2), (1, 2, 3)])])
    with pytest.raises(ValueError, match=r"table 't' must have rows of 2 cells, got 3: \['1', '2', '3'\]"):
        save_report(tmp_path / "r.html", Report("t", [target]))
    with pytest.raises(ValueError, match="targets is empty"):
        save_report(tmp_path / "r.html", Report("t", []))
    with pytest.raises(ValueError, match=r"ends in \.html, got 'r.pdf'"):
        save_report(tmp_path / "r.pdf", Report("t", [TargetReport("x", {})]))
    assert not list(tmp_path.iterdir())
