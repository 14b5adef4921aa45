"""Ranking of a gallery for every query: mAP, CMC and mINP in bounded memory, near the time of the matrix product."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from .all_pairs import load_features
from .arrays import Floats, Integers, Progress, slices
from .blocks import Plan, make_plan
from .descriptors import Descriptors
from .distances import Distances, FeatureDistances, MatrixDistances, Rows, device_of
from .labels import PairLabels
from .lists import RankedLists, SingleShots, Sorter
from .options import DEFAULTS, EvaluationOptions
from .rerank import RerankedDistances, rerank
from .result import RankingResult, Scores

GivenDistances: TypeAlias = Distances | torch.Tensor | npt.NDArray[Any]


def evaluate_ranking(
    query: Descriptors,
    gallery: Descriptors,
    options: EvaluationOptions = DEFAULTS,
    *,
    distances: GivenDistances | None = None,
    progress: Progress | None = None,
) -> RankingResult:
    """Ranks the gallery for every query and scores the lists.

    Zheng et al., ICCV 2015 (protocol, mAP, CMC), Li et al., CVPR 2014 (single gallery shot) and Ye et al., TPAMI 2021
    (mINP) [paper]. AP is the one torchreid computes, equal to it in every bit on the same float32 distances in a stable
    order [code]. Equal distances keep the order of the gallery [ours].

    For each query, gallery images of its identity in its own camera are junk and leave the list; images of its
    identity in another camera are the matches. With r_1 < ... < r_n the ranks of the matches in that list::

        AP = 1/n sum_i i / r_i        INP = n / r_n        CMC(k) = share of queries with r_1 <= k

    With the protocol 'cuhk03' CMC(k) is instead the share of draws in which the match is among the first k, when one
    image of each gallery identity is drawn, `repeats` times for each query; mAP and mINP stay as they are.

    Args:
        query: Q images.
        gallery: G images.
        options: metric, protocol, re-ranking and limits; how descriptors are extracted plays no part.
        distances: shape (Q, G), to rank by instead of those of the descriptors; read as float32.
        progress: called with the number of queries ranked so far and in all, after each block.

    Raises:
        ValueError: the input does not fit together, is not finite, or no query has a match in another camera.

    Example:
        >>> query = Descriptors([[0.0, 0.0]], pids=[7], camids=[0])
        >>> gallery = Descriptors([[0.0, 0.1], [0.5, 0.0], [3.0, 0.0]], pids=[7, 2, 7], camids=[0, 1, 1])
        >>> result = evaluate_ranking(query, gallery)
        >>> result.mAP, result.rank(1), int(result.first_hit[0])
        (0.5, 0.0, 2)
    """
    if options.rerank and distances is None:
        distances = _rerank(query, gallery, options)
    matrix = as_distances(query, gallery, options, distances)
    labels = PairLabels(query, gallery)
    skipped = lost_queries(labels, options.no_match)
    shots = (options.repeats, options.seed) if options.protocol == "cuhk03" else None
    plan = make_plan(matrix.shape, options.memory_mb, matrix.device)
    work = _Work(matrix, labels, plan, options.return_top, shots)
    work.run(progress)
    most = len(np.unique(labels.gallery_pids)) if shots else matrix.shape[1]
    result = work.scores.result(min(options.max_rank, most), skipped, work.shots)
    return replace(result, top=work.top, top_distances=work.near) if options.return_top else result


def rank(
    query: Descriptors,
    gallery: Descriptors,
    options: EvaluationOptions = DEFAULTS,
    *,
    progress: Callable[[str], Progress] | None = None,
) -> RankingResult:
    """:func:`evaluate_ranking` with a progress of its own for each part of the work.

    Args:
        query: Q images.
        gallery: G images.
        options: how to compare.
        progress: called with 'neighbours', if images are re-ranked, and with 'ranking'; returns what is called with
            (done, total) of that part.
    """
    reranked = _rerank(query, gallery, options, progress and progress("neighbours")) if options.rerank else None
    return evaluate_ranking(query, gallery, options, distances=reranked, progress=progress and progress("ranking"))


def _rerank(
    query: Descriptors, gallery: Descriptors, options: EvaluationOptions, progress: Progress | None = None
) -> RerankedDistances:
    """Distances after re-ranking; what the ranking would refuse is refused before."""
    features = _features_of(query, gallery)
    device = device_of(features[1], options.device)
    lost_queries(PairLabels(query, gallery), options.no_match)
    make_plan((len(query), len(gallery)), options.memory_mb, device)
    metric, memory_mb = options.metric or "euclidean", options.memory_mb
    return rerank(
        features[0], load_features(features[1], device), metric=metric, memory_mb=memory_mb, progress=progress
    )


def _features_of(query: Descriptors, gallery: Descriptors) -> tuple[Rows, Rows]:
    if query.features is None or gallery.features is None:
        raise ValueError("give query and gallery descriptors, or distances; got neither")
    return query.features, gallery.features


def as_distances(
    query: Descriptors, gallery: Descriptors, options: EvaluationOptions, distances: GivenDistances | None
) -> Distances:
    """The distances to evaluate: given ones, which must fit, or those of descriptors; never re-ranked."""
    if distances is None:
        return FeatureDistances(*_features_of(query, gallery), options.metric or "euclidean", options.device)
    if not isinstance(distances, Distances):
        distances = MatrixDistances(distances, None if options.device is None else torch.device(options.device))
    for name, side, found in zip(("queries", "gallery images"), (query, gallery), distances.shape, strict=True):
        if len(side) != found:
            raise ValueError(
                f"distances must have a row per query, a column per gallery image: expected {len(side)} {name}, "
                f"got shape {distances.shape}"
            )
    if not all(distances.shape):
        raise ValueError(f"distances are empty: shape {distances.shape}")
    return distances


@dataclass
class _Work:
    """One evaluation: blocks of the matrix are made one after another, and a few queries of them scored at a time."""

    distances: Distances
    labels: PairLabels
    plan: Plan
    return_top: int
    shot_settings: tuple[int, int] | None

    def __post_init__(self) -> None:
        queries, gallery = self.distances.shape
        self.scores = Scores(queries, gallery)
        self.shots: Integers | None = None
        if self.shot_settings:
            self.shots = np.zeros((queries, self.shot_settings[0]), dtype=np.int64)
        self.top: Integers = np.full((queries, self.return_top), -1, dtype=np.int64)
        self.near: Floats = np.full((queries, self.return_top), np.nan)
        self._zeros = np.zeros(gallery)

    def run(self, progress: Progress | None) -> None:
        """Scores every query."""
        plan, tiles = self.plan, self.plan.tiles()
        buffer = plan.buffer(self.distances.device)
        on_gpu = self.distances.device.type == "cuda"
        with torch.no_grad(), ThreadPoolExecutor(plan.workers) as pool:
            sorter = Sorter(0 if on_gpu else plan.chunk * plan.columns, plan.workers, pool)
            for rows in plan.row_blocks():
                if len(tiles) == 1:
                    self._whole_rows(rows, tiles[0], buffer, sorter)
                else:
                    self._in_tiles(rows, tiles, buffer, sorter)
                if progress is not None:
                    progress(rows.stop, len(self.distances))

    def _whole_rows(self, rows: slice, tile: slice, buffer: torch.Tensor, sorter: Sorter) -> None:
        """Reads and counts from one block; a part of it is sorted while the one before is counted."""
        block = self.distances.block(rows, tile, buffer)
        pending: tuple[Any, ...] = ()
        for chunk in slices(rows, self.plan.chunk):
            lists = self._lists(chunk)
            part = block[chunk.start - rows.start : chunk.stop - rows.start]
            for item in lists:
                item.read(part, tile)
            lists[0].order(part, tile, sorter)
            self._finish(*pending)
            pending = lists
        self._finish(*pending)

    def _in_tiles(self, rows: slice, tiles: list[slice], buffer: torch.Tensor, sorter: Sorter) -> None:
        """Makes each tile twice: once for the matches' distances, once to count."""
        chunks = [self._lists(chunk) for chunk in slices(rows, self.plan.chunk)]
        for counting in (False, True):
            for tile in tiles:
                block = self.distances.block(rows, tile, buffer)
                for lists in chunks:
                    own = lists[0].rows
                    part = block[own.start - rows.start : own.stop - rows.start]
                    if counting:
                        lists[0].order(part, tile, sorter)
                        lists[0].count()
                    else:
                        for item in lists:
                            item.read(part, tile)
        for lists in chunks:
            self._score(*lists)

    def _finish(self, *lists: Any) -> None:
        if lists:
            lists[0].count()
            self._score(*lists)

    def _lists(self, rows: slice) -> tuple[Any, ...]:
        lists = RankedLists(self.labels, rows, self.return_top)
        return (lists, SingleShots(self.labels, rows, *self.shot_settings)) if self.shot_settings else (lists,)

    def _score(self, lists: RankedLists, shots: SingleShots | None = None) -> None:
        self.scores.add(lists.rows, *lists.ranks(), lists.junk_counts, self._zeros)
        if shots is not None and self.shots is not None:
            self.shots[lists.rows] = shots.ranks()
        top = lists.top()
        if top is not None:
            self.top[lists.rows], self.near[lists.rows] = top


def lost_queries(labels: PairLabels, no_match: str = "skip") -> Integers:
    """Queries without match; a ValueError if these are all, or if there are any and none may be."""
    lost = labels.without_match()
    total = len(labels.query_pids)
    if len(lost) == total:
        raise ValueError(
            f"none of the {total} queries has a match in another camera: {labels.explain(lost)}; check the labels"
        )
    if len(lost) and no_match == "error":
        raise ValueError(
            f"{len(lost)} of {total} queries have no match in another camera: {labels.explain(lost)}; remove them, "
            "or let no_match='skip' leave them out"
        )
    return lost
