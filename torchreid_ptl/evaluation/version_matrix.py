"""Several versions of a model in time order: queries by each, galleries by it and by all before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.tables import as_markdown
from .arrays import Floats, Progress
from .descriptors import Pair, common_dimension, dimension_of, require_same_images
from .distances import device_of
from .normalized import normalized_sides, ranker
from .options import DEFAULTS, EvaluationOptions
from .result import Score

FIGURES = {"mAP": "mAP", "cmc1": "CMC-1"}
"""The figures of a matrix, and how they are written."""


def average_compatibility(scores: npt.ArrayLike) -> float:
    """AC: the share of pairs of versions of which the newer one's queries lose nothing on the older one's gallery.

    Over all k < t, of C[t][k] >= C[k][k] [paper], with C[t][k], shape (T, T), the score of queries by version t in the
    gallery of version k.

    Example:
        >>> average_compatibility([[0.5, 0], [0.6, 0.7]]), average_compatibility([[0.5, 0], [0.4, 0.7]])
        (1.0, 0.0)
    """
    matrix = np.asarray(scores, dtype=np.float64)
    newer, older = np.tril_indices(len(matrix), -1)
    return float(np.mean(matrix[newer, older] >= matrix[older, older])) if len(newer) else math.nan


def average_score(scores: npt.ArrayLike) -> float:
    """AM: the mean of the matrix where a version meets itself or an older one [paper].

    Example:
        >>> average_score([[0.5, 0], [0.6, 0.7]]).__round__(3)
        0.6
    """
    matrix = np.asarray(scores, dtype=np.float64)
    return float(matrix[np.tril_indices(len(matrix))].mean())


@dataclass(frozen=True, eq=False)
class VersionMatrix:
    """What each version finds in the galleries of itself and of all versions before it.

    Attributes:
        names: of the versions in time order.
        mAP: C[t][k], queries by version t in the gallery by version k, shape (T, T); NaN above the diagonal.
        cmc1: the same of CMC-1.

    Raises:
        ValueError: the shapes do not fit the names, or a score on or below the diagonal is no number.
    """

    names: tuple[str, ...]
    mAP: Floats
    cmc1: Floats

    def __post_init__(self) -> None:
        for figure in FIGURES:
            matrix = np.asarray(getattr(self, figure), dtype=np.float64)
            if matrix.shape != (len(self.names), len(self.names)):
                raise ValueError(f"{figure} of {len(self.names)} versions must be a square, got shape {matrix.shape}")
            if not np.isfinite(matrix[np.tril_indices(len(matrix))]).all():
                raise ValueError(f"{figure} must have a number for every pair of a version and one not newer")
            object.__setattr__(self, figure, matrix)

    @property
    def AC(self) -> Score:  # noqa: N802 - the field's name
        """Average compatibility by mAP and by CMC-1; see :func:`average_compatibility`."""
        return Score(average_compatibility(self.mAP), average_compatibility(self.cmc1))

    @property
    def AM(self) -> Score:  # noqa: N802 - the field's name
        """Average score by mAP and by CMC-1; see :func:`average_score`."""
        return Score(average_score(self.mAP), average_score(self.cmc1))

    def rows(self, figure: str) -> list[tuple[str, list[float | None]]]:
        """A row for each version's queries: its name, and its scores by gallery, None for newer ones."""
        matrix: Floats = getattr(self, figure)
        return [
            (name, [float(matrix[t, k]) if k <= t else None for k in range(len(self.names))])
            for t, name in enumerate(self.names)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain Python numbers for JSON; None above the diagonal."""
        tables = {figure: [scores for _, scores in self.rows(figure)] for figure in FIGURES}
        return {"versions": list(self.names), **tables, "AC": self.AC.as_dict(), "AM": self.AM.as_dict()}

    def as_markdown(self) -> str:
        """A table for each figure, in percent, with AC and AM; also to be read as it is."""
        return "\n\n".join(self._table(figure) for figure in FIGURES) + "\n"

    __str__ = as_markdown

    def _table(self, figure: str) -> str:
        lines = [[f"{FIGURES[figure]} (%): queries \\ gallery", *self.names]]
        for name, scores in self.rows(figure):
            lines.append([name, *("" if score is None else f"{100 * score:.2f}" for score in scores)])
        compatible, mean = getattr(self.AC, figure), getattr(self.AM, figure)
        return f"{as_markdown(lines)}\nAC {compatible:.2%}   AM {mean:.2%}"


def version_matrix(
    versions: Sequence[Pair | None] | Mapping[str, Pair | None],
    options: EvaluationOptions = DEFAULTS,
    *,
    dimensions: str = "error",
    progress: Progress | None = None,
) -> VersionMatrix:
    """Tests every version with its own gallery and with those of all versions before it.

    The compatibility matrix C[t][k] = M(t, k), k <= t, with its averages AC and AM, of Biondi et al., TPAMI 2023
    [paper]. Descriptors are always L2-normalised here. Where dimensions differ and a rule is declared, a pair is
    compared in the dimension of that pair, and the diagonal is of complete descriptors [ours].

    Args:
        versions: queries and gallery by each version in time order; by name, or named v1, v2, ...
        options: metric ('cosine' by default) and limits, as for :func:`compatibility`.
        dimensions: where they differ: 'error', 'truncate' or 'pad', as for :func:`compatibility`.
        progress: called with the number of queries ranked so far and in all.

    Raises:
        ValueError: fewer than two versions, one that is missing (names it), or anything that does not fit together.

    Example:
        >>> from torchreid_ptl.evaluation import Descriptors
        >>> first = Descriptors([[1.0, 0.2], [0.0, 1.0]], [0, 1], [0, 0]), Descriptors(np.eye(2), [0, 1], [1, 1])
        >>> matrix = version_matrix({"2023": first, "2024": first})
        >>> matrix.mAP[1].tolist(), matrix.AC.mAP, matrix.AM.mAP
        ([1.0, 1.0], 1.0, 1.0)
    """
    sides = _named(versions)
    require_same_images(sides)
    dims = {name: dimension_of(name, pair) for name, pair in sides.items()}
    names = tuple(sides)
    pairs = [(t, k) for t in range(len(names)) for k in range(t + 1)]
    common = {
        (t, k): common_dimension(dims[names[t]], dims[names[k]], dimensions, (names[t], names[k])) for t, k in pairs
    }
    device = device_of(sides[names[-1]][1].features, options.device)
    units = {name: normalized_sides(name, pair, device) for name, pair in sides.items()}
    rank = ranker(sides[names[0]], replace(options, max_rank=1, return_top=0, device=device), len(pairs), progress)
    scores = np.full((2, len(names), len(names)), np.nan)
    for (t, k), dim in common.items():
        query, gallery = (units[names[v]][side].resized(dim) for side, v in enumerate((t, k)))
        scores[:, t, k] = Score.of(rank(query, gallery))
    return VersionMatrix(names, *scores)


def _named(versions: Sequence[Pair | None] | Mapping[str, Pair | None]) -> dict[str, Pair]:
    if not isinstance(versions, Mapping):
        versions = {f"v{number}": pair for number, pair in enumerate(versions, start=1)}
    if len(versions) < 2:
        raise ValueError(f"a matrix compares two versions or more, got {len(versions)}: {', '.join(versions)}")
    named = {}
    for name, pair in versions.items():
        if pair is None or len(pair) != 2 or any(side is None for side in pair):
            raise ValueError(f"version {name!r} is missing: give its (query, gallery) descriptors, or leave it out")
        named[name] = pair
    return named
