"""How well distances tell the same person from another: histograms of scores and ROC curves as PNG files."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from .curves import COLOURS, Floats, draw_lines, new_figure, plain, read_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points: TypeAlias = Mapping[str, Sequence[tuple[float, float]]]

# Where the FAR axis may begin; a curve that knows no FAR but 0 and 1 is drawn too.
_LEAST_FAR, _LARGEST_FIRST_FAR = 1e-6, 0.1


def draw_score_histogram(
    edges: npt.ArrayLike,
    genuine: npt.ArrayLike,
    impostor: npt.ArrayLike,
    threshold: float | None = None,
    unit: str = "squared Euclidean distance",
) -> "Figure":
    """Two histograms on top of each other: distances of pairs that show one person, and of pairs that show two.

    Args:
        edges: borders of the bins, rising, shape (B + 1,).
        genuine: pairs of one person in each bin, shape (B,): counts (integers), or shares of all such pairs.
        impostor: pairs of two persons in each bin, likewise.
        threshold: a distance to mark as the threshold.
        unit: what the distances are, for the axis.

    Raises:
        ValueError: bins that do not rise or are not finite, numbers that do not fit them or are neither counts nor
            shares, no pair of either kind, or a threshold that is not finite.
    """
    borders = _read_edges(edges)
    named = {"genuine": genuine, "impostor": impostor}
    percents = [100 * _read_bins(name, values, len(borders) - 1) for name, values in named.items()]
    if not np.any(percents):
        raise ValueError("there is no pair to draw: every bin of genuine and impostor is 0; check the edges")
    if threshold is not None and not np.isfinite(threshold):
        raise ValueError(f"threshold must be a finite distance, or None for no line; got {threshold}")
    figure = new_figure()
    ax = figure.subplots()
    for name, heights, colour, stroke in zip(("same person", "other person"), percents, COLOURS, "-:", strict=False):
        ax.stairs(heights, borders, fill=True, facecolor=f"{colour}55", edgecolor="none", linewidth=0)
        ax.stairs(heights, borders, color=colour, linestyle=stroke, linewidth=1.6, label=name)
    ax.set(xlabel=plain(unit), ylabel="share of pairs (%)", xlim=_filled(borders, percents, threshold))
    ax.set_ylim(0, 1.04 * max(heights.max() for heights in percents))
    if threshold is not None:
        _mark_threshold(ax, threshold)
    _finish(ax, "upper right")
    return figure


def draw_roc(
    curves: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    points: Points | None = None,
    *,
    eer: bool = False,
) -> "Figure":
    """ROC curves: the share of same-person pairs accepted (TAR) over the share of other pairs accepted (FAR, log).

    The axis begins at the smallest FAR above 0, between 1e-6 and 0.1. Between two points of a curve
    the lower TAR is drawn, which is certain.

    Args:
        curves: by name, (FAR, TAR) of rising thresholds as shares of 0 to 1, each of shape (N,).
        points: by the name of a curve, (FAR, TAR) pairs to mark with their TAR.
        eer: draw the line on which both kinds of error are equally frequent.

    Raises:
        ValueError: no curve, one that is not a rising row of shares, or points of an unknown curve or outside the
            axes.
    """
    if not curves:
        raise ValueError("no ROC curve to draw: curves is empty")
    read = {name: _read_curve(name, far, tar) for name, (far, tar) in curves.items()}
    marks = _read_points(points or {}, read)
    first = _first_far(read)
    shown = {name: _cut(far, 100 * tar, first) for name, (far, tar) in read.items()}
    figure = new_figure()
    ax = figure.subplots()
    draw_lines(ax, shown, "steps-post")
    lowest = min(tar[0] for _, tar in shown.values())
    ax.set(xscale="log", xlim=(first, 1), ylim=(max(0.0, 10 * np.floor(lowest / 10 - 0.3)), 101))
    ax.set(xlabel="pairs of two people taken for one (FAR)", ylabel="pairs of one person recognised (TAR, %)")
    if eer:
        far = np.geomspace(first, 1, 500)
        style: dict[str, Any] = {"color": "#555555", "linewidth": 1, "linestyle": (0, (1, 2))}
        ax.plot(far, 100 * (1 - far), label="equal errors: FAR = 1 - TAR", **style)
    _mark_points(ax, {name: [mark for mark in marks[name] if mark[0] >= first] for name in marks}, list(read))
    _finish(ax, "lower right")
    return figure


def _finish(ax: "Axes", corner: Literal["upper right", "lower right"]) -> None:
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc=corner, frameon=True, framealpha=0.85, edgecolor="none")


def _read_edges(edges: npt.ArrayLike) -> Floats:
    borders = np.asarray(edges, dtype=np.float64)
    if borders.ndim != 1 or len(borders) < 2:
        raise ValueError(f"edges must be a row of two or more borders of bins, got shape {borders.shape}")
    if not np.isfinite(borders).all() or not (np.diff(borders) > 0).all():
        raise ValueError("edges must be finite and rise from bin to bin; sort them and drop repeated ones")
    return borders


def _read_bins(name: str, values: npt.ArrayLike, bins: int) -> Floats:
    """Shares of 0 to 1 from shares or counts."""
    array = np.asarray(values)
    if array.shape != (bins,):
        raise ValueError(f"{name} must hold one number for each of {bins} bins, got shape {array.shape}")
    shares = array.astype(np.float64)
    if not (shares >= 0).all() or not np.isfinite(shares).all():
        raise ValueError(f"{name} must be finite and not below 0, got {shares.min():g} to {shares.max():g}")
    if array.dtype.kind in "iu":
        return shares / max(shares.sum(), 1)
    if shares.sum() > 1 + 1e-6:  # they may be summed in another order than here
        raise ValueError(
            f"{name} must be shares that add up to at most 1, got a sum of {shares.sum():g}; give counts as integers"
        )
    return shares


def _filled(borders: Floats, percents: Sequence[Floats], threshold: float | None) -> tuple[float, float]:
    """The part of the axis that holds pairs."""
    filled = np.flatnonzero(np.sum(percents, axis=0))
    ends = [borders[filled[0]], borders[filled[-1] + 1], *([] if threshold is None else [threshold])]
    room = 0.02 * (max(ends) - min(ends))
    return float(min(ends) - room), float(max(ends) + room)


def _mark_threshold(ax: "Axes", threshold: float) -> None:
    """A line with its name above the drawing, where it covers nothing."""
    left, right = ax.get_xlim()
    share = (threshold - left) / (right - left)
    side = "left" if share < 0.25 else "right" if share > 0.75 else "center"
    ax.axvline(threshold, color="#000000", linewidth=1.6, linestyle="--")
    place: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "ha": side, "va": "bottom"}
    ax.text(threshold, 1.01, f"threshold {threshold:.4g}", **place)


def _read_curve(name: str, far: npt.ArrayLike, tar: npt.ArrayLike) -> tuple[Floats, Floats]:
    rates = read_shares(f"the FAR of {name!r}", far), read_shares(f"the TAR of {name!r}", tar)
    for kind, array in zip(("FAR", "TAR"), rates, strict=True):
        if (np.diff(array) < 0).any():
            raise ValueError(f"the {kind} of {name!r} falls; give it in the order of rising thresholds")
    if len(rates[0]) != len(rates[1]):
        raise ValueError(f"{name!r} must have a TAR for each FAR, got {len(rates[0])} FAR and {len(rates[1])} TAR")
    return rates


def _read_points(points: Points, curves: Mapping[str, object]) -> Points:
    for name, pairs in points.items():
        if name not in curves:
            raise ValueError(f"points are given for {name!r}, but the curves are {', '.join(map(repr, curves))}")
        for far, tar in pairs:
            if not (0 < far <= 1 and 0 <= tar <= 1):
                raise ValueError(
                    f"a point of {name!r} must have a FAR above 0 and at most 1 and a TAR of 0 to 1, got ({far}, {tar})"
                )
    return points


def _first_far(curves: Mapping[str, tuple[Floats, Floats]]) -> float:
    positive = [far[far > 0].min() for far, _ in curves.values() if far.any()]
    return min(max(_LEAST_FAR, float(min(positive, default=1.0))), _LARGEST_FIRST_FAR)


def _cut(far: Floats, tar: Floats, first: float) -> tuple[Floats, Floats]:
    """The part of a curve that an axis from `first` shows, beginning with what holds there."""
    start = max(int(np.searchsorted(far, first, "right")) - 1, 0)
    return np.maximum(far[start:], first), tar[start:]


def _mark_points(ax: "Axes", points: Points, curves: list[str]) -> None:
    """Rings on the curves and their TAR: the highest at a FAR above its curve, the others below theirs."""
    pairs = [(far, 100 * tar, curves.index(name)) for name, marks in points.items() for far, tar in marks]
    room = 0.05 * float(np.ptp(ax.get_ylim()))  # the height of a line of text
    last_far, lowest = 0.0, np.inf
    for far, tar, index in sorted(pairs, key=lambda pair: (pair[0], -pair[1])):
        colour = COLOURS[index % len(COLOURS)]
        ax.plot(far, tar, "o", color=colour, markerfacecolor="white", markersize=6, markeredgewidth=1.6, zorder=3)
        above = far > last_far and far > 4 * ax.get_xlim()[0]
        # Rather moved down than written over another.
        lowest = tar if far > last_far else min(tar, lowest - room)
        last_far = far
        _write_at(ax, (far, lowest), f"{tar:.1f} %", above, colour)


def _write_at(ax: "Axes", place: tuple[float, float], text: str, above: bool, colour: str) -> None:
    from matplotlib.patheffects import withStroke

    at_edge = place[0] > 0.3
    style: dict[str, Any] = {"ha": "right" if above or at_edge else "left", "va": "bottom" if above else "top"}
    offset = (-4, 3) if above else (5, -5)
    halo = [withStroke(linewidth=3, foreground="white")]
    ax.annotate(
        text, place, offset, textcoords="offset points", color=colour, fontsize=9, zorder=4, path_effects=halo, **style
    )
