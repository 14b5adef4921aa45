"""One tested data set: descriptors, ranking, and whether a threshold tells people apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from yacs.config import CfgNode

from ..evaluation import (
    Descriptors,
    EvaluationOptions,
    RankingResult,
    VerificationResult,
    VersionComparison,
    verify,
)
from .visual import CHOICES, Match, RankRow, choose_queries

FILES = "features"
"""The target's name when descriptors come from files."""


@dataclass(frozen=True)
class TargetResult:
    """Results of the test on one data set.

    Attributes:
        name: of the data set.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        result: the ranking, with the nearest images of each query.
        verification: errors of a threshold; None if they cannot be measured.
        reason: why they cannot.
    """

    name: str
    query: Descriptors
    gallery: Descriptors
    result: RankingResult
    verification: VerificationResult | None
    reason: str = ""


def add_verification(
    name: str, query: Descriptors, gallery: Descriptors, result: RankingResult, config: CfgNode
) -> TargetResult:
    """Adds the verification to a ranking; a set of images that allows none is no error."""
    options = EvaluationOptions(metric=config.test.dist_metric, seed=config.train.seed, memory_mb=config.eval.memory_mb)
    try:
        verification = verify(query, gallery, options, far=config.eval.far)
    except ValueError as error:
        return TargetResult(name, query, gallery, result, None, str(error))
    return TargetResult(name, query, gallery, result, verification)


def has_images(found: TargetResult | VersionComparison) -> bool:
    """Whether the files of the images are known, so that they can be shown."""
    return bool(found.query.paths and found.gallery.paths)


def chosen_rows(tested: TargetResult, config: CfgNode, given: Sequence[int] = ()) -> tuple[str, list[RankRow]]:
    """Rank lists of some queries, and in words which these are.

    Args:
        tested: with the nearest images of each query.
        config: ``eval.rank_lists`` and ``eval.rank_list_queries``.
        given: queries to show instead.
    """
    how = "given" if len(given) else config.eval.rank_lists
    chosen = choose_queries(
        tested.result, how, config.eval.rank_list_queries, seed=config.train.seed, given=np.asarray(given, dtype=int)
    )
    return CHOICES[how], [_row(tested, int(index)) for index in chosen]


def check_shown(shown: Sequence[int], queries: int, name: str) -> None:
    """Makes sure the queries to be shown are there, before anything is computed.

    Raises:
        ValueError: an index out of range.
    """
    beyond = [index for index in shown if not 0 <= index < queries]
    if beyond:
        raise ValueError(f"--show counts the {queries} queries of {name} from 0 to {queries - 1}; got {beyond}")


def path_of(side: Descriptors, index: int) -> str:
    """An image's file; its number where files are not known."""
    return side.paths[index] if side.paths else f"image {index}"


def camera_of(found: TargetResult | VersionComparison, side: Descriptors, index: int) -> int:
    """An image's camera as file names of data sets count it, from 1; that of files of features as it is there."""
    return int(side.camids[index]) + (found.name != FILES)


def describe_query(found: TargetResult | VersionComparison, index: int) -> str:
    """A query's number, identity and camera in words."""
    return f"query {index}: identity {found.query.pids[index]}, camera {camera_of(found, found.query, index)}"


def matches_of(found: TargetResult | VersionComparison, result: RankingResult, index: int) -> list[Match]:
    """The nearest images of a query."""
    assert result.top is not None
    assert result.top_distances is not None
    gallery, pid = found.gallery, found.query.pids[index]
    return [
        Match(path_of(gallery, g), bool(gallery.pids[g] == pid), distance, camera_of(found, gallery, g))
        for g, distance in zip(result.top[index].tolist(), result.top_distances[index].tolist(), strict=True)
        if g >= 0
    ]


def _row(tested: TargetResult, index: int) -> RankRow:
    score = 100 * tested.result.average_precision[index]
    caption = f"{describe_query(tested, index)}, AP {score:.1f} %"
    return RankRow(path_of(tested.query, index), caption, matches_of(tested, tested.result, index))
