"""Versions of a model on one set of images: the matrix of all, and every update from one to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .arrays import Progress
from .backfill import FRACTIONS
from .compatibility import compatibility
from .compatibility_result import CompatibilityResult
from .descriptors import Descriptors, Pair
from .options import DEFAULTS, EvaluationOptions
from .version_matrix import VersionMatrix, version_matrix


@dataclass(frozen=True)
class Update:
    """From one version to the next, by their names, and what the update does."""

    old: str
    new: str
    result: CompatibilityResult


@dataclass(frozen=True)
class VersionComparison:
    """How versions of a model work together on one set of images.

    Attributes:
        name: of the set of images.
        query: the queries; with paths, if one version has them.
        gallery: the gallery, likewise.
        matrix: every version's queries on the galleries of itself and of older ones.
        updates: from each version to the next.
    """

    name: str
    query: Descriptors
    gallery: Descriptors
    matrix: VersionMatrix
    updates: Sequence[Update]

    def __str__(self) -> str:
        start = f"{self.name}, " if self.name else ""
        updates = [f"{start}{update.old} to {update.new}\n{update.result}" for update in self.updates]
        return "\n".join([*([self.name] if self.name else []), str(self.matrix), *updates])


def compare(
    versions: Mapping[str, Pair],
    options: EvaluationOptions = DEFAULTS,
    *,
    name: str = "",
    independent: Pair | None = None,
    fractions: Sequence[float] = FRACTIONS,
    dimensions: str = "error",
    progress: Callable[[str], Progress] | None = None,
) -> VersionComparison:
    """Compares versions of a model: :func:`version_matrix` of all, :func:`compatibility` of every update.

    Args:
        versions: queries and gallery by each version, in time order, by name.
        options: as for :func:`compatibility`.
        name: of the set of images, for the text and the report.
        independent: the newest version trained without regard to the older ones, for the gain of the last update.
        fractions: parts of the gallery that are re-encoded, rising from 0 to 1.
        dimensions: where those of versions differ: 'error', 'truncate' or 'pad'.
        progress: called with the name of each part of the work, 'all pairs' or 'v1 to v2'; returns what is called with
            (done, total) of that part.

    Raises:
        ValueError: as :func:`version_matrix` and :func:`compatibility`.

    Example:
        >>> pair = Descriptors([[1.0, 0.2], [0.0, 1.0]], [0, 1], [0, 0]), Descriptors([[1, 0], [0, 1]], [0, 1], [1, 1])
        >>> comparison = compare({"2023": pair, "2024": pair})
        >>> comparison.updates[0].result.cross_test.mAP, comparison.matrix.AC.mAP
        (1.0, 1.0)
    """
    matrix = version_matrix(versions, options, dimensions=dimensions, progress=progress and progress("all pairs"))
    updates, names = [], list(versions)
    for old, new in zip(names[:-1], names[1:], strict=True):
        result = compatibility(
            versions[new],
            versions[old],
            options,
            independent=independent if new == names[-1] else None,
            fractions=fractions,
            dimensions=dimensions,
            progress=progress and progress(f"{old} to {new}"),
        )
        updates.append(Update(old, new, result))
    # the images are the same, but not every version needs to name their files
    pairs = [*versions.values(), *([independent] if independent else [])]
    query, gallery = max(pairs, key=lambda pair: bool(pair[0].paths and pair[1].paths))
    return VersionComparison(name, query, gallery, matrix, updates)
