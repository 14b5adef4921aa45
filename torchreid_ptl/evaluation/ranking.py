"""Ranking of a gallery for every query: mAP, CMC and mINP in bounded memory, near the time of the matrix product."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .arrays import Floats, Integers
from .blocks import Plan, make_plan
from .distances import Distances, FeatureDistances, Features, MatrixDistances
from .labels import Labels, PairLabels
from .lists import RankedLists, Sorter
from .result import RankingResult, Scores
from .single_shot import SingleShots

PROTOCOLS = ("market1501", "cuhk03")
ON_NO_MATCH = ("skip", "error")

Progress = Callable[[int, int], None]


def evaluate_ranking(
    query: Features | None,
    gallery: Features | None,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    metric: str = "euclidean",
    max_rank: int = 50,
    *,
    protocol: str = "market1501",
    on_no_match: str = "skip",
    memory_mb: float = 512,
    return_top: int = 0,
    distances: Distances | torch.Tensor | npt.NDArray[Any] | None = None,
    repeats: int = 10,
    seed: int = 0,
    device: torch.device | str | None = None,
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
        query: descriptors, shape (Q, D), any real dtype; computed in float32. None with `distances`.
        gallery: descriptors, shape (G, D); also a memory map or anything else with a shape and slices.
        query_pids: identities, shape (Q,).
        gallery_pids: identities, shape (G,).
        query_camids: cameras, shape (Q,).
        gallery_camids: cameras, shape (G,).
        metric: 'euclidean' (squared; the ranking is the same) or 'cosine' (1 - cos).
        max_rank: length of the CMC, clipped to G.
        protocol: 'market1501' or 'cuhk03' (single gallery shot).
        on_no_match: queries without a match count nowhere and are listed in the result ('skip', as the host does), or
            are an error ('error').
        memory_mb: MiB beside the inputs and the result.
        return_top: how many of the nearest gallery indices to return per query.
        distances: shape (Q, G), to rank by instead of the descriptors', for example from `rerank`; read as float32.
        repeats: draws for each query with 'cuhk03'.
        seed: of these draws.
        device: where to compute; that of the gallery, or of the distances, by default.
        progress: called with the number of queries ranked so far and in all, after each block.

    Raises:
        ValueError: the input does not fit together, is not finite, or no query has a match in another camera.

    Example:
        >>> import numpy as np
        >>> query, gallery = np.array([[0.0, 0.0]]), np.array([[0.0, 0.1], [0.5, 0.0], [3.0, 0.0]])
        >>> result = evaluate_ranking(query, gallery, [7], [7, 2, 7], [0], [0, 1, 1])
        >>> result.mAP, result.rank(1), int(result.first_hit[0])
        (0.5, 0.0, 2)
    """
    _check_settings(max_rank=(max_rank, 1), return_top=(return_top, 0), repeats=(repeats, 1))
    _check_choice("protocol", protocol, PROTOCOLS)
    _check_choice("on_no_match", on_no_match, ON_NO_MATCH)
    matrix = as_distances(query, gallery, metric, distances, device)
    labels = PairLabels(query_pids, gallery_pids, query_camids, gallery_camids, matrix.shape)
    skipped = lost_queries(labels, on_no_match)
    shots = (repeats, seed) if protocol == "cuhk03" else None
    work = _Work(matrix, labels, make_plan(matrix.shape, memory_mb, matrix.device), return_top, shots)
    work.run(progress)
    most = len(np.unique(labels.gallery_pids)) if shots else matrix.shape[1]
    result = work.scores.result(min(max_rank, most), skipped, work.shots)
    return replace(result, top=work.top, top_distances=work.near)


def as_distances(
    query: Features | None,
    gallery: Features | None,
    metric: str,
    distances: Distances | torch.Tensor | npt.NDArray[Any] | None,
    device: torch.device | str | None = None,
) -> Distances:
    """The distances to rank by: given ones, or those of descriptors.

    Raises:
        ValueError: neither is there, or they do not fit together.
    """
    if distances is None:
        if query is None or gallery is None:
            raise ValueError("give query and gallery descriptors, or distances; got neither")
        return FeatureDistances(query, gallery, metric, device)
    given = distances
    if not isinstance(given, Distances):
        given = MatrixDistances(given, None if device is None else torch.device(device))
    for side, features, found in zip(("queries", "gallery images"), (query, gallery), given.shape, strict=True):
        if features is not None and len(np.shape(features)) and np.shape(features)[0] != found:
            expected = f"{np.shape(features)[0]} {side}"
            raise ValueError(
                f"distances must have a row per query, a column per gallery image: expected {expected}, "
                f"got shape {given.shape}"
            )
    if not all(given.shape):
        raise ValueError(f"distances are empty: shape {given.shape}")
    return given


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
        self.top: Integers | None = None
        self.near: Floats | None = None
        if self.return_top:
            self.top = np.full((queries, self.return_top), -1, dtype=np.int64)
            self.near = np.full((queries, self.return_top), np.nan)
        self._zeros = np.zeros(gallery)

    def run(self, progress: Progress | None) -> None:
        """Scores every query."""
        plan, tiles = self.plan, self.plan.tiles()
        buffer = plan.buffer(self.distances.device)
        on_gpu = self.distances.device.type == "cuda"
        with torch.no_grad(), Sorter(0 if on_gpu else plan.chunk * plan.columns, plan.workers) as sorter:
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
        waiting: tuple[Any, ...] = ()
        for chunk in self.plan.chunks(rows):
            lists = self._lists(chunk)
            part = block[chunk.start - rows.start : chunk.stop - rows.start]
            for item in lists:
                item.read(part, tile)
            lists[0].order(part, tile, sorter)
            self._finish(*waiting)
            waiting = lists
        self._finish(*waiting)

    def _in_tiles(self, rows: slice, tiles: list[slice], buffer: torch.Tensor, sorter: Sorter) -> None:
        """Makes each tile twice: once for the matches' distances, once to count."""
        chunks = [self._lists(chunk) for chunk in self.plan.chunks(rows)]
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
        if top is not None and self.top is not None and self.near is not None:
            self.top[lists.rows], self.near[lists.rows] = top


def _check_settings(**settings: tuple[int, int]) -> None:
    for name, (value, least) in settings.items():
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")


def lost_queries(labels: PairLabels, on_no_match: str = "skip") -> Integers:
    """Queries without match; a ValueError if these are all, or if there are any and none may be."""
    lost = labels.without_match()
    total = len(labels.query_pids)
    if len(lost) == total:
        raise ValueError(
            f"none of the {total} queries has a match in another camera: {labels.explain(lost)}; check the labels"
        )
    if len(lost) and on_no_match == "error":
        raise ValueError(
            f"{len(lost)} of {total} queries have no match in another camera: {labels.explain(lost)}; remove them, "
            "or let on_no_match='skip' leave them out"
        )
    return lost
