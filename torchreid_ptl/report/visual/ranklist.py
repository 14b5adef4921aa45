"""Rank lists: queries, each with its nearest gallery images, framed by right and wrong."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ...data import reading
from ...evaluation import RankingResult
from ...evaluation.arrays import name_some
from .curves import RIGHT_SIGN, WRONG_SIGN, load_matplotlib, save_png

Colour: TypeAlias = tuple[int, int, int]

QUERY_COLOUR: Colour = (31, 90, 200)
RIGHT_COLOUR: Colour = (24, 140, 60)
WRONG_COLOUR: Colour = (205, 40, 40)
LEGEND = (
    (QUERY_COLOUR, "query"),
    (RIGHT_COLOUR, f"{RIGHT_SIGN} same person"),
    (WRONG_COLOUR, f"{WRONG_SIGN} other person"),
)
JUNK_NOTE = "same person, same camera: left out"
CHOICES = {
    "worst": "lowest average precision first",
    "spread": "from the lowest average precision to the highest",
    "random": "drawn at random",
    "given": "as asked for",
}

_PAPER: Colour = (255, 255, 255)
_MAT: Colour = (238, 238, 238)
_MISSING: Colour = (170, 170, 170)
_TEXT: Colour = (34, 34, 34)
_FAINT: Colour = (119, 119, 119)

# Lengths in pixels.
_TILE = _TILE_WIDTH, _TILE_HEIGHT = 128, 256
_FRAME, _GAP, _QUERY_GAP, _MARGIN = 5, 12, 30, 24
_HEADER, _TITLE, _CAPTION, _LABEL, _ROW_GAP = 30, 36, 28, 26, 14
_PITCH = _CAPTION + _TILE_HEIGHT + 2 * _FRAME + _LABEL + _ROW_GAP
_LEAST_WIDTH = 800
# Viewers refuse larger pictures.
_LARGEST_SIDE = 2**16 - 1


@dataclass(frozen=True)
class Match:
    """One retrieved gallery image."""

    path: str | Path
    correct: bool
    distance: float
    camera: int


@dataclass(frozen=True)
class RankRow:
    """A query and what was retrieved for it, nearest first."""

    query_path: str | Path
    caption: str
    matches: Sequence[Match]


def choose_worst(result: RankingResult, count: int) -> npt.NDArray[np.int64]:
    """Indices of the queries with the lowest average precision, lowest first, without those that have none."""
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    scores = np.asarray(result.average_precision, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(scores))
    return scored[np.argsort(scores[scored], kind="stable")[:count]]


def choose_queries(
    result: RankingResult, how: str, count: int, *, seed: int = 0, given: Sequence[int] | npt.NDArray[np.int64] = ()
) -> npt.NDArray[np.int64]:
    """Indices of the queries to look at; none without a match is among them.

    Args:
        result: the scores.
        how: 'worst' (lowest average precision first), 'spread' (evenly from the lowest average precision to the
            highest), 'random' (each once at most) or 'given' (those of `given`, in their order); CHOICES says it in
            words.
        count: how many at most; 'given' takes all of `given`.
        seed: of 'random'.
        given: indices for 'given'; empty for all others.

    Raises:
        ValueError: unknown `how`, negative count, `given` without 'given' or the other way round, or one of `given`
            that is out of range or has no match.

    Example:
        >>> from types import SimpleNamespace
        >>> result = SimpleNamespace(average_precision=np.array([0.5, 0.1, np.nan, 0.9]))
        >>> choose_queries(result, "worst", 2).tolist(), choose_queries(result, "given", 0, given=[3, 0]).tolist()
        ([1, 0], [3, 0])
    """
    if how not in CHOICES:
        raise ValueError(f"unknown way to choose queries {how!r}; allowed: {', '.join(CHOICES)}")
    if (how == "given") != bool(len(given)):
        raise ValueError(f"indices of queries belong to how='given' and only to it; got {len(given)} with {how!r}")
    by_precision = choose_worst(result, len(result.average_precision))
    if count < 0 or how == "worst":
        return choose_worst(result, count)
    count = min(count, len(by_precision))
    if how == "spread":
        return by_precision[np.linspace(0, len(by_precision) - 1, count).round().astype(np.int64)]
    if how == "random":
        return np.random.default_rng(seed).choice(np.sort(by_precision), count, replace=False)
    return _check_given(result, np.asarray(given))


def _check_given(result: RankingResult, given: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    scores = np.asarray(result.average_precision)
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise ValueError(f"indices of queries must be a row of integers, got {given.dtype} of shape {given.shape}")
    beyond = given[(given < 0) | (given >= len(scores))]
    if len(beyond):
        raise ValueError(f"there are {len(scores)} queries, 0 to {len(scores) - 1}; got {name_some(beyond.tolist())}")
    unmatched = given[np.isnan(scores[given])]
    if len(unmatched):
        raise ValueError(
            f"query {name_some(unmatched.tolist())} has no match in another camera and therefore no score; leave it out"
        )
    return given.astype(np.int64)


def save_rank_list(path: str | Path, rows: Sequence[RankRow], title: str = "") -> None:
    """Draws queries and their matches, a row each: the query framed blue, right matches green, wrong ones red.

    Every image is fitted into a tile of one size without changing its proportions; an image that cannot be read
    becomes a grey tile that says so.

    Args:
        path: the PNG file; its folder is created.
        rows: the queries from top to bottom.
        title: a line above everything.

    Raises:
        ValueError: there is no row, or there are more than one picture can hold.
    """
    if not rows:
        raise ValueError("no rank list to draw: rows is empty")
    columns = max(len(row.matches) for row in rows)
    top = _MARGIN + _HEADER + (_TITLE if title else 0)
    width = max(_LEAST_WIDTH, _left(columns + 1) - _GAP + _MARGIN)
    height = top + len(rows) * _PITCH + _MARGIN - _ROW_GAP
    if max(width, height) > _LARGEST_SIDE:
        most = (_LARGEST_SIDE - top - _MARGIN) // _PITCH
        raise ValueError(f"a picture holds at most {most} rows and some 430 columns, got {len(rows)} and {columns}")
    sheet = _Sheet(width, height)
    if title:
        sheet.write(_MARGIN, _MARGIN + _TITLE / 2 - 6, title, 22, bold=True)
    _draw_legend(sheet, top - _HEADER + 5)
    for index, row in enumerate(rows):
        _draw_row(sheet, top + index * _PITCH + _CAPTION, row)
    drawn = io.BytesIO()
    sheet.image.save(drawn, "PNG")
    save_png(path, drawn.getvalue())


class _Sheet:
    """A picture on which tiles and text are put by pixel, from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), _PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 14,
        colour: Colour = _TEXT,
        anchor: str = "lm",
        bold: bool = False,
    ) -> None:
        """Writes with the letters' middle at height y; `size` in pixels, `anchor` as Pillow has it."""
        self._draw.text((x, y), text, colour, _font(size, bold), anchor)

    def put_tile(self, x: int, y: int, path: str | Path, colour: Colour) -> None:
        """Puts an image in a frame, its proportions kept."""
        image = read_image(path)
        tile = ImageOps.pad(image or Image.new("RGB", _TILE, _MISSING), _TILE, Image.Resampling.LANCZOS, color=_MAT)
        self.image.paste(ImageOps.expand(tile, _FRAME, colour), (x, y))
        if image is None:
            self.write(x + _FRAME + _TILE_WIDTH / 2, y + _FRAME + _TILE_HEIGHT / 2, "unreadable", 16, anchor="mm")


@cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    load_matplotlib()
    import matplotlib  # which brings a font that has the signs

    file = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", file)), size)


def _left(column: int) -> int:
    """The left edge of a frame; column 0 is the query."""
    return _MARGIN + column * (_TILE_WIDTH + 2 * _FRAME + _GAP) + (_QUERY_GAP - _GAP if column else 0)


def _draw_legend(sheet: _Sheet, y: int) -> None:
    x = _MARGIN
    for colour, text in LEGEND:
        sheet.image.paste(colour, (x, y - 7, x + 14, y + 7))
        sheet.write(x + 22, y, text, 15, colour)
        x += 60 + 9 * len(text)
    sheet.write(x, y, JUNK_NOTE, 15, _FAINT)


def _draw_row(sheet: _Sheet, y: int, row: RankRow) -> None:
    sheet.write(_MARGIN, y - _CAPTION / 2, row.caption, 16)
    sheet.put_tile(_MARGIN, y, row.query_path, QUERY_COLOUR)
    below = y + _TILE_HEIGHT + 2 * _FRAME + _LABEL / 2
    for rank, match in enumerate(row.matches, 1):
        x, colour = _left(rank), RIGHT_COLOUR if match.correct else WRONG_COLOUR
        sheet.put_tile(x, y, match.path, colour)
        sheet.write(x + _FRAME, below, RIGHT_SIGN if match.correct else WRONG_SIGN, 15, colour, bold=True)
        sheet.write(x + _FRAME + 18, below, short(match.distance))
        sheet.write(x + _FRAME + _TILE_WIDTH, below, f"cam {match.camera}", colour=_FAINT, anchor="rm")


def read_image(source: str | Path | IO[bytes]) -> Image.Image | None:
    """The colours of an image, or None if it cannot be read."""
    try:
        return reading.read_image(source)
    except OSError:
        return None


def css(colour: Colour) -> str:
    """A colour as style sheets and drawings write it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def short(distance: float) -> str:
    """A distance in at most six signs."""
    if abs(distance) >= 1e5:
        return f"{distance:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{distance:.{3 if abs(distance) < 10 else 2 if abs(distance) < 1000 else 0}f}"
