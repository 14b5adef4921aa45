"""Pictures of backward compatibility: a gallery being re-encoded, and a matrix of versions, as PNG files."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .curves import COLOURS, Floats, draw_lines, new_figure, plain, read_shares
from .ranklist import RIGHT_SIGN, WRONG_SIGN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By name of the line, its height by name of the curve.
Levels: TypeAlias = Mapping[str, Mapping[str, float]]

_STROKES = ("--", ":", "-.")
# Cells darker than this share of the scale bear white letters.
_DARK = 0.6
_CELL_INCHES = 0.95
_MOST_TICKS = 11


def draw_backfill(
    fractions: npt.ArrayLike, curves: Mapping[str, npt.ArrayLike], levels: Levels | None = None
) -> "Figure":
    """Scores over the part of the gallery that is re-encoded, and scores of other systems as horizontal lines.

    Args:
        fractions: parts of the gallery, rising, shape (N,), shares of 0 to 1.
        curves: by name, shares of 0 to 1 at each, shape (N,).
        levels: by name of a system, its score by the name of a curve, in whose colour it is drawn:
            ``{"old system": {"mAP": 0.4}}``.

    Raises:
        ValueError: no curve, one of another length, values that are no shares, or a level for an unknown curve.
    """
    if not curves or not np.size(fractions):
        raise ValueError("no backfill curve to draw: it has no fractions, or no curve is given")
    x = 100 * read_shares("fractions", fractions)
    read = {name: (x, 100 * read_shares(name, values, len(x))) for name, values in curves.items()}
    figure = new_figure()
    ax = figure.subplots()
    draw_lines(ax, read)
    for index, (system, heights) in enumerate((levels or {}).items()):
        _draw_levels(ax, system, heights, list(curves), _STROKES[index % len(_STROKES)])
    ax.set(xlabel="gallery images re-encoded by the new model (%)", ylabel="percent", xlim=(x.min() - 2, x.max() + 2))
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines])
    room = max(1.0, 0.05 * float(np.ptp(drawn)))
    ax.set_ylim(drawn.min() - room, drawn.max() + room)
    if len(x) <= _MOST_TICKS:
        ax.set_xticks(x)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def draw_version_matrix(names: Sequence[str], scores: npt.ArrayLike, title: str = "mAP") -> "Figure":
    """A heat map of what each version's queries find in the galleries of itself and of older versions.

    Below the diagonal a sign says whether the pair is compatible: at least what the older version reaches alone.

    Args:
        names: of the versions in time order.
        scores: C (T, T), shares of 0 to 1; entries above the diagonal are not drawn.
        title: of the score.

    Raises:
        ValueError: no square of that size, or scores that are no shares.
    """
    lower = np.tril_indices(len(names))
    matrix = np.asarray(scores, dtype=np.float64)
    if not len(names) or matrix.shape != (len(names), len(names)):
        raise ValueError(f"a matrix of {len(names)} versions must be a square, got shape {matrix.shape}")
    percents = np.full(matrix.shape, np.nan)
    percents[lower] = 100 * read_shares(title, matrix[lower])
    side = 2.6 + _CELL_INCHES * len(names)
    figure = new_figure(side, side - 0.8)
    ax = figure.subplots()
    ends = float(np.nanmin(percents)), float(np.nanmax(percents))
    image = ax.imshow(percents, cmap="Blues", vmin=ends[0] - 0.2 * (ends[1] - ends[0] + 1), vmax=ends[1])
    figure.colorbar(image, ax=ax, shrink=0.8, label=f"{plain(title)} (%)")
    for t, k in zip(*lower, strict=True):
        _write_cell(ax, percents, int(t), int(k), ends)
    places = range(len(names))
    ax.set_xticks(places, [plain(name) for name in names], rotation=30, ha="right")
    ax.set_yticks(places, [plain(name) for name in names])
    ax.set(xlabel="gallery by version", ylabel="queries by version")
    ax.spines[:].set_visible(False)
    return figure


def _draw_levels(ax: "Axes", system: str, heights: Mapping[str, float], curves: list[str], stroke: str) -> None:
    for name, height in heights.items():
        if name not in curves:
            raise ValueError(f"{system!r} has a level for {name!r}, but the curves are {', '.join(map(repr, curves))}")
        level = 100 * float(read_shares(f"{system}, {name}", [height])[0])
        colour = COLOURS[curves.index(name) % len(COLOURS)]
        ax.axhline(level, linestyle=stroke, color=colour, linewidth=1.3, label=plain(f"{name}, {system}"))


def _write_cell(ax: "Axes", percents: Floats, t: int, k: int, ends: tuple[float, float]) -> None:
    score = percents[t, k]
    sign = "" if t == k else f"\n{RIGHT_SIGN if score >= percents[k, k] else WRONG_SIGN}"
    dark = score - ends[0] > _DARK * (ends[1] - ends[0])
    weight = "bold" if t == k else "normal"
    colour = "white" if dark else "#222222"
    ax.text(k, t, f"{score:.1f}{sign}", color=colour, weight=weight, ha="center", va="center", family="DejaVu Sans")
