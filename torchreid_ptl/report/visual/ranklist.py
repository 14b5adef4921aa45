"""Rank lists: queries, each with its nearest gallery images, framed by right and wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ...evaluation.arrays import name_some
from .curves import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

Colour: TypeAlias = tuple[int, int, int]
Pixels: TypeAlias = npt.NDArray[np.uint8]

QUERY_COLOUR: Colour = (31, 90, 200)
RIGHT_COLOUR: Colour = (24, 140, 60)
WRONG_COLOUR: Colour = (205, 40, 40)
RIGHT_SIGN, WRONG_SIGN = "\u2713", "\u2717"
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
_TEXT, _FAINT = "#222222", "#777777"

# A power of two: lengths in pixels become inches and pixels again without rounding.
_DPI = 128
_TILE_WIDTH, _TILE_HEIGHT = 128, 256
_FRAME, _GAP, _QUERY_GAP, _MARGIN = 5, 12, 30, 24
_HEADER, _TITLE, _CAPTION, _LABEL, _ROW_GAP = 30, 36, 28, 26, 14
_LEAST_WIDTH = 800
# The drawing library refuses larger pictures.
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


class Scored(Protocol):
    """Anything with an average precision per query, NaN where there is none."""

    @property
    def average_precision(self) -> npt.NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class _Layout:
    """Places of tiles, in pixels from the upper left corner."""

    rows: int
    columns: int
    top: int

    @property
    def pitch(self) -> int:
        return _CAPTION + _TILE_HEIGHT + 2 * _FRAME + _LABEL + _ROW_GAP

    @property
    def width(self) -> int:
        return max(_LEAST_WIDTH, self.corner(0, self.columns + 1)[0] - _GAP + _MARGIN)

    @property
    def height(self) -> int:
        return self.top + self.rows * self.pitch + _MARGIN - _ROW_GAP

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner (x, y) of a frame; column 0 is the query."""
        x = _MARGIN + column * (_TILE_WIDTH + 2 * _FRAME + _GAP)
        return x + (_QUERY_GAP - _GAP if column else 0), self.top + row * self.pitch + _CAPTION


@dataclass(frozen=True)
class _Writer:
    """Puts text on a figure by pixel."""

    figure: "Figure"
    layout: _Layout

    def __call__(self, x: float, y: float, text: str, size: int = 14, **style: Any) -> None:
        """Writes with the letters' middle at height y; `size` in pixels; signs of formulas stay what they are."""
        place = x / self.layout.width, 1 - y / self.layout.height
        style = {"va": "center", "color": _TEXT, "family": "DejaVu Sans", **style}
        self.figure.text(*place, text, fontsize=size * 72 / _DPI, parse_math=False, **style)


def choose_worst(result: Scored, count: int) -> npt.NDArray[np.int64]:
    """Indices of the queries with the lowest average precision, lowest first, without those that have none."""
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    scores = np.asarray(result.average_precision, dtype=np.float64)
    scored = np.flatnonzero(~np.isnan(scores))
    return scored[np.argsort(scores[scored], kind="stable")[:count]]


def choose_queries(
    result: Scored, how: str, count: int, *, seed: int = 0, given: Sequence[int] | npt.NDArray[np.int64] = ()
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


def _check_given(result: Scored, given: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("no rank list to draw: rows is empty")
    columns = max(len(row.matches) for row in rows)
    layout = _Layout(len(rows), columns, _MARGIN + _HEADER + (_TITLE if title else 0))
    if max(layout.width, layout.height) > _LARGEST_SIDE:
        most = (_LARGEST_SIDE - layout.top - _MARGIN) // layout.pitch
        raise ValueError(f"a picture holds at most {most} rows and some 430 columns, got {len(rows)} and {columns}")
    figure = Figure(figsize=(layout.width / _DPI, layout.height / _DPI), dpi=_DPI, facecolor="white")
    canvas = np.full((layout.height, layout.width, 3), _PAPER, dtype=np.uint8)
    writer = _Writer(figure, layout)
    for index, row in enumerate(rows):
        _draw_row(canvas, writer, layout, index, row)
    _draw_header(canvas, writer, layout, title)
    figure.figimage(canvas, origin="upper")
    save_figure(path, figure)


def _draw_header(canvas: Pixels, write: _Writer, layout: _Layout, title: str) -> None:
    if title:
        write(_MARGIN, _MARGIN + _TITLE / 2 - 6, title, size=22, weight="bold")
    x, y = _MARGIN, layout.top - _HEADER + 5
    for colour, text in LEGEND:
        canvas[y - 7 : y + 7, x : x + 14] = colour
        write(x + 22, y, text, size=15, color=css(colour))
        x += 60 + 9 * len(text)
    write(x, y, JUNK_NOTE, size=15, color=_FAINT)


def _draw_row(canvas: Pixels, write: _Writer, layout: _Layout, index: int, row: RankRow) -> None:
    x, y = layout.corner(index, 0)
    write(x, y - _CAPTION / 2, row.caption, size=16)
    _draw_tile(canvas, write, (x, y), row.query_path, QUERY_COLOUR)
    for rank, match in enumerate(row.matches, 1):
        corner = layout.corner(index, rank)
        colour = RIGHT_COLOUR if match.correct else WRONG_COLOUR
        _draw_tile(canvas, write, corner, match.path, colour)
        _label_match(write, corner, match, css(colour))


def _label_match(write: _Writer, corner: tuple[int, int], match: Match, colour: str) -> None:
    x, y = corner[0] + _FRAME, corner[1] + _TILE_HEIGHT + 2 * _FRAME + _LABEL / 2
    write(x, y, RIGHT_SIGN if match.correct else WRONG_SIGN, size=15, color=colour, weight="bold")
    write(x + 18, y, short(match.distance))
    write(x + _TILE_WIDTH, y, f"cam {match.camera}", ha="right", color=_FAINT)


def _draw_tile(canvas: Pixels, write: _Writer, corner: tuple[int, int], path: str | Path, colour: Colour) -> None:
    x, y = corner
    canvas[y : y + _TILE_HEIGHT + 2 * _FRAME, x : x + _TILE_WIDTH + 2 * _FRAME] = colour
    x, y = x + _FRAME, y + _FRAME
    tile = _read_tile(path)
    if tile is None:
        write(x + _TILE_WIDTH / 2, y + _TILE_HEIGHT / 2, "unreadable", size=16, ha="center")
        tile = np.full((_TILE_HEIGHT, _TILE_WIDTH, 3), _MISSING, dtype=np.uint8)
    canvas[y : y + _TILE_HEIGHT, x : x + _TILE_WIDTH] = tile


def _read_tile(path: str | Path) -> Pixels | None:
    """The image in the middle of a mat, its proportions kept; None if it cannot be read."""
    from PIL import Image, ImageOps

    image = read_image(path)
    if image is None:
        return None
    fitted = ImageOps.pad(image, (_TILE_WIDTH, _TILE_HEIGHT), Image.Resampling.LANCZOS, color=_MAT)
    return np.asarray(fitted)


def read_image(source: str | Path | IO[bytes]) -> "Image.Image | None":
    """The colours of an image, or None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(source) as file:
            return file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def css(colour: Colour) -> str:
    """A colour as style sheets and drawings write it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def short(distance: float) -> str:
    """A distance in at most six signs."""
    if abs(distance) >= 1e5:
        return f"{distance:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{distance:.{3 if abs(distance) < 10 else 2 if abs(distance) < 1000 else 0}f}"
