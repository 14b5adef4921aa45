"""Ranking of a gallery for every query by the Market-1501 protocol: mAP, CMC and mINP in bounded memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

METRICS = ("euclidean", "cosine")

Features: TypeAlias = torch.Tensor | npt.NDArray[Any]
Labels: TypeAlias = Sequence[int] | torch.Tensor | npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

# Distance 4, sorted distance 4, its gallery index 8, masks 4; the rest is room for the sort itself.
_BYTES_PER_PAIR = 28
# The sum |q|^2 + |g|^2 + 2 |q| |g| must stay finite in float32.
_LARGEST_NORM = math.sqrt(torch.finfo(torch.float32).max) / 2
_NAMED_IN_ERRORS = 5


@dataclass(frozen=True, eq=False)
class RankingResult:
    """What one query set retrieves from one gallery; all scores are shares between 0 and 1.

    Attributes:
        mAP: mean of the average precision over the queries that have a match.
        mINP: mean of (number of matches / rank of the last match) over the same queries.
        cmc: share of these queries whose first match stands at rank 1, 2, ... or before, shape (min(max_rank, G),).
        average_precision: shape (Q,); NaN for a query without match.
        first_hit: rank of the first match in the list without junk, counted from 1, shape (Q,); 0 without match.
        skipped: indices of the queries without match in another camera.
        top: gallery indices of the nearest images without junk, shape (Q, return_top), filled up with -1; or None.
        top_distances: their distances as ranked, shape (Q, return_top), NaN where -1 stands; or None.
    """

    mAP: float
    mINP: float
    cmc: Floats
    average_precision: Floats
    first_hit: Integers
    skipped: Integers
    top: Integers | None = None
    top_distances: Floats | None = None

    def rank(self, k: int) -> float:
        """Share of the queries whose first match is among the first `k`; any `k` >= 1, also beyond the gallery."""
        if k < 1:
            raise ValueError(f"ranks count from 1, got {k}")
        hits = self.first_hit[self.first_hit > 0]
        return float(np.count_nonzero(hits <= k) / len(hits))

    def as_dict(self, ranks: Sequence[int] = (1, 5, 10, 20)) -> dict[str, Any]:
        """Plain Python numbers for JSON, with the CMC at the given ranks."""
        return {
            "mAP": float(self.mAP),
            "mINP": float(self.mINP),
            "cmc": {str(k): self.rank(k) for k in ranks},
            "queries": len(self.first_hit),
            "skipped": len(self.skipped),
        }

    def __str__(self) -> str:
        return self.summary()

    def summary(self, ranks: Sequence[int] = (1, 5, 10, 20)) -> str:
        """A few lines in percent, with the CMC at the given ranks."""
        cmc = "   ".join(f"rank-{k} {self.rank(k):.2%}" for k in ranks)
        without = f", {len(self.skipped)} of them skipped: no match in another camera" if len(self.skipped) else ""
        return f"mAP {self.mAP:.2%}   mINP {self.mINP:.2%}\n{cmc}\n{len(self.first_hit)} queries{without}"


@dataclass(frozen=True, eq=False)
class _Side:
    """Query or gallery: descriptors (N, D) in float32, identities (N,) and cameras (N,), all on one device."""

    features: torch.Tensor
    pids: torch.Tensor
    camids: torch.Tensor

    def __len__(self) -> int:
        return len(self.features)


def evaluate_ranking(
    query: Features,
    gallery: Features,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels,
    gallery_camids: Labels,
    metric: str = "euclidean",
    max_rank: int = 50,
    *,
    memory_mb: int = 512,
    return_top: int = 0,
    distances: Features | None = None,
) -> RankingResult:
    """Ranks the gallery for every query and scores the lists by the Market-1501 protocol.

    Zheng et al., ICCV 2015 (protocol, mAP, CMC) and Ye et al., TPAMI 2021 (mINP) [paper]. AP is the one torchreid
    computes [code]. Equal distances keep the order of the gallery [ours].

    For each query, gallery images of its identity in its own camera are junk and leave the list; images of its
    identity in another camera are the matches. With r_1 < ... < r_n the ranks of the matches in that list::

        AP = 1/n sum_i i / r_i        INP = n / r_n        CMC(k) = share of queries with r_1 <= k

    Queries without a match count nowhere; the result lists them.

    Args:
        query: descriptors, shape (Q, D), any real dtype; computed in float32 on the device of the gallery.
        gallery: descriptors, shape (G, D).
        query_pids: identities, shape (Q,).
        gallery_pids: identities, shape (G,).
        query_camids: cameras, shape (Q,).
        gallery_camids: cameras, shape (G,).
        metric: 'euclidean' (squared; the ranking is the same) or 'cosine' (1 - cos).
        max_rank: length of the CMC, clipped to G.
        memory_mb: MiB for one block of query rows against the whole gallery, the descriptors not counted.
        return_top: how many of the nearest gallery indices to return per query.
        distances: shape (Q, G), to rank by instead of the descriptors', for example after re-ranking.

    Raises:
        ValueError: the input does not fit together, is not finite, or no query has a match in another camera.

    Example:
        >>> import numpy as np
        >>> query, gallery = np.array([[0.0, 0.0]]), np.array([[0.0, 0.1], [0.5, 0.0], [3.0, 0.0]])
        >>> result = evaluate_ranking(query, gallery, [7], [7, 2, 7], [0], [0, 1, 1])
        >>> result.mAP, result.rank(1), int(result.first_hit[0])
        (0.5, 0.0, 2)
    """
    _check_settings(metric, max_rank, return_top)
    images = _read_side("gallery", gallery, gallery_pids, gallery_camids)
    queries = _read_side("query", query, query_pids, query_camids, images.features.device)
    dims = queries.features.shape[1], images.features.shape[1]
    if dims[0] != dims[1]:
        raise ValueError(f"descriptors must have the same dimension, got {dims[0]} (query) and {dims[1]} (gallery)")
    rows = _rows_per_block(len(images), memory_mb)
    skipped = _queries_without_match(queries, images)
    given = None if distances is None else _read_distances(distances, queries, images)
    owners, ranks, top, near = _ranks_of_matches(queries, images, metric, rows, return_top, given)
    result = _score(owners, ranks, skipped, len(queries), min(max_rank, len(images)))
    return replace(result, top=top, top_distances=near) if return_top else result


def _check_settings(metric: str, max_rank: int, return_top: int) -> None:
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; allowed: {', '.join(METRICS)}")
    for name, value, least in (("max_rank", max_rank, 1), ("return_top", return_top, 0)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}")


def _read_side(
    name: str, features: Features, pids: Labels, camids: Labels, device: torch.device | None = None
) -> _Side:
    matrix = _as_float32(features).to(device)
    if matrix.dim() != 2:
        raise ValueError(f"{name} descriptors must be a matrix (images, dimensions), got shape {tuple(matrix.shape)}")
    if matrix.numel() == 0:
        raise ValueError(f"{name} is empty: got descriptors of shape {tuple(matrix.shape)}")
    _check_finite(name, matrix)
    return _Side(matrix, _read_labels(f"{name}_pids", pids, matrix), _read_labels(f"{name}_camids", camids, matrix))


def _as_float32(features: Features) -> torch.Tensor:
    if not isinstance(features, torch.Tensor):
        # Too large a float64 becomes infinite here and is reported with its row.
        with np.errstate(over="ignore"):
            features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
    return features.detach().float()


def _check_finite(name: str, matrix: torch.Tensor) -> None:
    norms = torch.linalg.vector_norm(matrix, dim=1)
    bad = torch.nonzero(~(norms <= _LARGEST_NORM)).flatten().tolist()
    if bad:
        named = ", ".join(map(str, bad[:_NAMED_IN_ERRORS])) + (", ..." if len(bad) > _NAMED_IN_ERRORS else "")
        raise ValueError(
            f"{len(bad)} of {len(matrix)} {name} rows hold NaN, infinite or, for float32, too large values: {named}"
        )


def _read_labels(name: str, labels: Labels, features: torch.Tensor) -> torch.Tensor:
    array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
    if array.shape != (len(features),):
        raise ValueError(f"{name} must hold one number for each of {len(features)} descriptors, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64)).to(features.device)


def _read_distances(distances: Features, query: _Side, gallery: _Side) -> torch.Tensor:
    matrix = _as_float32(distances).to(gallery.features.device)
    if matrix.shape != (len(query), len(gallery)):
        raise ValueError(
            f"distances must have shape ({len(query)}, {len(gallery)}), a row per query, got {tuple(matrix.shape)}"
        )
    if torch.isnan(matrix).any():
        raise ValueError(f"distances hold NaN in {int(torch.isnan(matrix).any(dim=1).sum())} of {len(matrix)} rows")
    return matrix


def _rows_per_block(gallery_size: int, memory_mb: int) -> int:
    row = gallery_size * _BYTES_PER_PAIR
    rows = int(memory_mb * 2**20) // row
    if rows < 1:
        raise ValueError(
            f"memory_mb={memory_mb} does not hold one query row against {gallery_size} gallery images; "
            f"the least that works is {math.ceil(row / 2**20)}"
        )
    return rows


def _queries_without_match(query: _Side, gallery: _Side) -> Integers:
    """Indices of the queries whose identity no other camera of the gallery sees; an error if these are all."""
    cameras: dict[int, set[int]] = {pid: set() for pid in query.pids.tolist()}
    for pid, camid in zip(gallery.pids.tolist(), gallery.camids.tolist(), strict=True):
        if pid in cameras:
            cameras[pid].add(camid)
    own = zip(query.pids.tolist(), query.camids.tolist(), strict=True)
    skipped = [index for index, (pid, camid) in enumerate(own) if cameras[pid] <= {camid}]
    if len(skipped) == len(query):
        named = [_where_seen(pid, cameras[pid]) for pid in sorted(cameras)[:_NAMED_IN_ERRORS]]
        seen = "; ".join(named) + ("; ..." if len(cameras) > _NAMED_IN_ERRORS else "")
        raise ValueError(f"none of the {len(query)} queries has a match in another camera: {seen}; check the labels")
    return np.array(skipped, dtype=np.int64)


def _where_seen(pid: int, cameras: set[int]) -> str:
    if not cameras:
        return f"identity {pid} is not in the gallery"
    return f"identity {pid} is seen in the gallery by cameras {sorted(cameras)} only, which is the query's own"


@torch.no_grad()
def _ranks_of_matches(
    query: _Side, gallery: _Side, metric: str, rows: int, return_top: int, given: torch.Tensor | None
) -> tuple[Integers, Integers, Integers, Floats]:
    """Query index and junk-free rank of every match, ordered by both; gallery index and distance of the nearest."""
    owners, ranks, tops, nearest = [], [], [], []
    # Autocast would turn the product into half precision.
    with torch.autocast(gallery.features.device.type, enabled=False):
        images, squares = _prepare(gallery.features, metric)
        for start in range(0, len(query), rows):
            part = slice(start, start + rows)
            same = query.pids[part, None] == gallery.pids
            junk = same & (query.camids[part, None] == gallery.camids)
            distances = _distances(query.features[part], images, squares) if given is None else given[part].clone()
            owner, rank, top, near = _rank_block(distances, same & ~junk, junk, return_top)
            owners.append(owner + start)
            ranks.append(rank)
            tops.append(top)
            nearest.append(near)
            del distances  # not beside those of the next block
    return np.concatenate(owners), np.concatenate(ranks), np.concatenate(tops), np.concatenate(nearest)


def _rank_block(
    distances: torch.Tensor, matches: torch.Tensor, junk: torch.Tensor, return_top: int
) -> tuple[Integers, Integers, Integers, Floats]:
    """Row and rank of every match in a block (B, G) of distances, and the nearest of each row; spoils distances."""
    order = torch.sort(distances.masked_fill_(junk, math.inf), dim=1, stable=True).indices
    rows, places = torch.nonzero(matches.gather(1, order), as_tuple=True)
    return rows.cpu().numpy(), places.cpu().numpy() + 1, *_nearest(distances, order, junk, return_top)


def _prepare(gallery: torch.Tensor, metric: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gallery of unit length for 'cosine'; the gallery and its squared lengths (G,) for 'euclidean'."""
    if metric == "cosine":
        return functional.normalize(gallery), None
    return gallery, torch.cat([part.square().sum(1) for part in gallery.split(4096)])


def _distances(query: torch.Tensor, gallery: torch.Tensor, squares: torch.Tensor | None) -> torch.Tensor:
    """Distances (B, G) of raw query descriptors to a prepared gallery."""
    if squares is None:
        return (functional.normalize(query) @ gallery.T).neg_().add_(1)
    return (query.square().sum(1, keepdim=True) + squares).addmm_(query, gallery.T, alpha=-2)


def _nearest(distances: torch.Tensor, order: torch.Tensor, junk: torch.Tensor, count: int) -> tuple[Integers, Floats]:
    """The first `count` gallery indices of each row with their distances; -1 and NaN where junk or nothing stands."""
    kept = junk.shape[1] - junk.sum(1, keepdim=True)
    top = order[:, :count]
    beyond = torch.arange(top.shape[1], device=top.device) >= kept
    near = distances.gather(1, top).double().masked_fill(beyond, math.nan)
    missing = (0, count - top.shape[1])
    indices = functional.pad(top.masked_fill(beyond, -1), missing, value=-1)
    return indices.cpu().numpy(), functional.pad(near, missing, value=math.nan).cpu().numpy()


def _score(owners: Integers, ranks: Integers, skipped: Integers, queries: int, max_rank: int) -> RankingResult:
    """Scores from the ranks of the matches alone: (N,) query indices and (N,) ranks, ordered by both."""
    counts = np.bincount(owners, minlength=queries)
    valid = counts > 0
    ends = np.cumsum(counts)
    ordinal = np.arange(1, len(ranks) + 1) - (ends - counts)[owners]
    average_precision = np.full(queries, np.nan)
    average_precision[valid] = np.bincount(owners, ordinal / ranks, queries)[valid] / counts[valid]
    first_hit = np.zeros(queries, dtype=np.int64)
    first_hit[valid] = ranks[(ends - counts)[valid]]
    hits = np.bincount(first_hit[valid], minlength=max_rank + 1)[1 : max_rank + 1]
    return RankingResult(
        mAP=float(average_precision[valid].mean()),
        mINP=float((counts[valid] / ranks[ends[valid] - 1]).mean()),
        cmc=np.cumsum(hits) / np.count_nonzero(valid),
        average_precision=average_precision,
        first_hit=first_hit,
        skipped=skipped,
    )
