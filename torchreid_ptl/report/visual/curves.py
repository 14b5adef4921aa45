"""Curves of a training, of CMC and of a gallery being re-encoded, and matrices of versions, as PNG files."""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from ...runtime.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series: TypeAlias = Sequence[tuple[float, float]]
Floats: TypeAlias = npt.NDArray[np.float64]
Curves: TypeAlias = dict[str, tuple[Floats, Floats]]
# By name of the line, its height by name of the curve.
Levels: TypeAlias = Mapping[str, Mapping[str, float]]

RIGHT_SIGN, WRONG_SIGN = "\u2713", "\u2717"
# Okabe and Ito's palette: distinct with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STROKES = ("-", "--", ":", "-.")
_PANELS = {"losses": "loss", "scores": "percent", "rates": "learning rate"}
# Cells darker than this share of the scale bear white letters.
_DARK = 0.6
_CELL_INCHES = 0.95
_MOST_TICKS = 11


def save_figure(path: str | Path, figure: "Figure") -> None:
    """Draws a figure into a PNG file; the file appears complete or not at all, its folder is created.

    Raises:
        ValueError: the name does not end in .png.
    """
    save_png(path, render(figure))


def save_png(path: str | Path, content: bytes) -> None:
    """Writes a PNG file, as :func:`save_figure` does."""
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise ValueError(f"pictures are PNG files; give a name that ends in .png, got {target.name!r}")
    replace_file(target, content)


def load_matplotlib() -> None:
    """Imports matplotlib whatever ``MPLBACKEND`` names; all pictures here are drawn without a screen.

    matplotlib refuses to be imported where that variable, inherited from a notebook, names a backend that is not
    installed.
    """
    if "matplotlib" in sys.modules:
        return
    named = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        import matplotlib  # noqa: F401
    finally:
        os.environ.pop("MPLBACKEND")
        if named is not None:
            os.environ["MPLBACKEND"] = named


def render(figure: "Figure") -> bytes:
    """Draws a figure into the bytes of a PNG file, for example to embed them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = io.BytesIO()
    FigureCanvasAgg(figure).print_png(drawn)
    return drawn.getvalue()


def draw_training_curves(history: Mapping[str, Series]) -> "Figure":
    """What a training recorded: losses, accuracy and scores, learning rates; a panel for each kind that has data.

    Names with "loss" are losses, names that begin with "lr" learning rates, all others scores in percent.

    Args:
        history: by name, (epoch, value) pairs in any order.

    Raises:
        ValueError: nothing was recorded.
    """
    panels = _sort_into_panels(history)
    if not panels:
        raise ValueError("no training curve to draw: every series of the history is empty")
    figure = new_figure(9, 0.6 + 2.6 * len(panels))
    axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    for ax, (kind, curves) in zip(axes, panels.items(), strict=True):
        _draw_panel(ax, kind, curves)
    epochs = np.concatenate([x for curves in panels.values() for x, _ in curves.values()])
    _number_axis(axes[-1], "epoch", epochs.min(), epochs.max())
    return figure


def draw_cmc(results: Mapping[str, npt.ArrayLike], max_rank: int = 20) -> "Figure":
    """The CMC curves of several results in one picture.

    Args:
        results: by name, shares of 0 to 1 at rank 1, 2, ...; shorter ones end where they end.
        max_rank: the last rank drawn.

    Raises:
        ValueError: no curve, an empty one, values that are no shares, or max_rank < 1.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank must be 1 or more, got {max_rank}")
    if not results:
        raise ValueError("no CMC curve to draw: results is empty")
    percents = {name: 100 * read_shares(f"the CMC of {name!r}", cmc)[:max_rank] for name, cmc in results.items()}
    curves = {f"{name}  (rank-1 {cmc[0]:.1f} %)": (np.arange(1.0, len(cmc) + 1), cmc) for name, cmc in percents.items()}
    figure = new_figure()
    ax = figure.subplots()
    draw_lines(ax, curves)
    lowest = min(float(cmc.min()) for cmc in percents.values())
    ax.set_ylim(max(0.0, 10 * np.floor(lowest / 10 - 0.3)), 101)
    _number_axis(ax, "rank", 1, max(len(cmc) for cmc in percents.values()))
    ax.set_ylabel("queries with a match up to this rank (%)")
    ax.legend(loc="lower right", frameon=False)
    return figure


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
        _draw_levels(ax, system, heights, list(curves), _STROKES[1 + index % 3])
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


def _sort_into_panels(history: Mapping[str, Series]) -> dict[str, Curves]:
    panels: dict[str, Curves] = {kind: {} for kind in _PANELS}
    for name, series in history.items():
        if len(series):
            epochs, values = np.array(sorted(series), dtype=np.float64).T
            kind = "losses" if "loss" in name.lower() else "rates" if name.lower().startswith("lr") else "scores"
            panels[kind][name] = (epochs, values)
    return {kind: curves for kind, curves in panels.items() if curves}


def _draw_panel(ax: "Axes", kind: str, curves: Curves) -> None:
    draw_lines(ax, curves, "steps-post" if kind == "rates" else "default")
    values = np.concatenate([values for _, values in curves.values()])
    if kind == "rates" and (values > 0).all() and values.max() > 5 * values.min():
        ax.set_yscale("log")
    ax.set_ylabel(_PANELS[kind])
    ax.tick_params(labelbottom=True)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def new_figure(width: float = 7, height: float = 5) -> "Figure":
    """A figure of a size in inches with a margin around the drawing."""
    load_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))


def _number_axis(ax: "Axes", label: str, first: float, last: float) -> None:
    """An x axis of whole numbers with some room at both ends."""
    from matplotlib.ticker import MaxNLocator

    room = max(0.5, 0.02 * (last - first))
    ax.set_xlim(first - room, last + room)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    ax.set_xlabel(label)


def draw_lines(ax: "Axes", curves: Curves, drawstyle: str = "default") -> None:
    """Lines with their names; few points get a marker each, so that a single one is seen."""
    for index, (name, (x, y)) in enumerate(curves.items()):
        stroke = _STROKES[index // len(COLOURS) % len(_STROKES)]
        marker = "o" if len(x) <= 25 else ""
        colour = COLOURS[index % len(COLOURS)]
        (line,) = ax.plot(x, y, stroke, color=colour, marker=marker, markersize=3.5, linewidth=1.6)
        line.set(label=plain(name), drawstyle=drawstyle)
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def plain(name: str) -> str:
    """A name that the legend neither hides (leading underscore) nor reads as a formula (dollar)."""
    return name.lstrip("_").replace("$", r"\$")


def read_shares(name: str, values: npt.ArrayLike, length: int | None = None) -> Floats:
    """A row of shares between 0 and 1.

    Raises:
        ValueError: it is none, is empty or has another length.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or length not in (None, len(array)):
        wanted = "" if length is None else f"{length} "
        raise ValueError(f"{name} must be a row of {wanted}numbers, got shape {array.shape}")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} must be shares of 0 to 1, got {array.min():g} to {array.max():g}")
    return array


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
