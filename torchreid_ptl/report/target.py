"""One tested data set: descriptors, ranking, and whether a threshold tells people apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from yacs.config import CfgNode

from ..engines import Descriptors
from ..evaluation import RankingResult, VerificationResult, verify
from .visual import CHOICES, Match, RankRow, choose_queries

FILES = "features"
"""The target's name when descriptors come from files."""


@dataclass(frozen=True)
class TargetResult:
    """What is known of a target after its test.

    Attributes:
        name: of the data set.
        query: descriptors of the queries.
        gallery: descriptors of the gallery.
        result: the ranking, with the nearest images of each query.
        verification: how well a threshold works; None if it cannot be said.
        reason: why it cannot.
        first_camera: number people give to the camera 0; the host counts from 0, file names from 1.
    """

    name: str
    query: Descriptors
    gallery: Descriptors
    result: RankingResult
    verification: VerificationResult | None
    reason: str
    first_camera: int = 1

    @property
    def has_images(self) -> bool:
        """Whether the images' files are known, so that they can be shown."""
        return bool(self.query.paths and self.gallery.paths)


def add_verification(
    name: str, query: Descriptors, gallery: Descriptors, result: RankingResult, config: CfgNode, first_camera: int = 1
) -> TargetResult:
    """Adds the threshold; that there is none stops nothing, for the ranking is done."""
    try:
        verification = verify(
            query.features,
            gallery.features,
            query.pids,
            gallery.pids,
            query.camids,
            gallery.camids,
            config.test.dist_metric,
            far=config.eval.far,
            seed=config.train.seed,
            memory_mb=config.eval.memory_mb,
        )
    except ValueError as error:
        return TargetResult(name, query, gallery, result, None, str(error), first_camera)
    return TargetResult(name, query, gallery, result, verification, "", first_camera)


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


def _row(tested: TargetResult, index: int) -> RankRow:
    query, gallery, result = tested.query, tested.gallery, tested.result
    assert result.top is not None
    assert result.top_distances is not None
    matches = [
        Match(
            path_of(gallery, g),
            bool(gallery.pids[g] == query.pids[index]),
            distance,
            int(gallery.camids[g]) + tested.first_camera,
        )
        for g, distance in zip(result.top[index].tolist(), result.top_distances[index].tolist(), strict=True)
        if g >= 0
    ]
    camera = query.camids[index] + tested.first_camera
    score = 100 * result.average_precision[index]
    caption = f"query {index}: identity {query.pids[index]}, camera {camera}, AP {score:.1f} %"
    return RankRow(path_of(query, index), caption, matches)
