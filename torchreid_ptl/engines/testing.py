"""From a loader to descriptors to a ranking."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchreid
from torch import Tensor

from ..evaluation import RankingResult, evaluate_ranking
from ..runtime.progress import Progress


@dataclass(frozen=True)
class TestOptions:
    """How descriptors are compared; names and defaults are those of the host's ``Engine.test``.

    Attributes:
        dist_metric: ``'euclidean'`` or ``'cosine'``.
        normalize_feature: L2-normalise descriptors first.
        flip: add the descriptor of the mirrored image before that.
        ranks: CMC ranks to report; those beyond the gallery are clipped.
        rerank: k-reciprocal re-ranking (Zhong et al. 2017), by the host.
        visrank: keep the nearest images of each query, for pictures.
        visrank_topk: images in a rank list.
    """

    __test__ = False  # not a test class

    dist_metric: str = "euclidean"
    normalize_feature: bool = False
    flip: bool = False
    ranks: tuple[int, ...] = (1, 5, 10, 20)
    rerank: bool = False
    visrank: bool = False
    visrank_topk: int = 10

    @classmethod
    def of(cls, use_metric_cuhk03: bool = False, **fields: Any) -> "TestOptions":
        """Takes the host's keywords.

        Raises:
            ValueError: ``use_metric_cuhk03``, which only the host's engines evaluate.
        """
        if use_metric_cuhk03:
            raise ValueError(
                "use_metric_cuhk03: this engine ranks by the Market-1501 protocol; use torchreid's own engines"
            )
        return cls(**{**fields, "ranks": tuple(fields.get("ranks", cls.ranks))})


@dataclass(frozen=True)
class Descriptors:
    """Descriptors (N, D) of a set of images, in float32 on the CPU, with identities, cameras and paths.

    Images that could not be read and were left out stand in ``bad_images``.
    """

    features: Tensor
    pids: np.ndarray
    camids: np.ndarray
    paths: list[str]
    bad_images: tuple[str, ...] = ()


def extract(forward: Callable[[Tensor], Tensor], loader: Iterable, label: str, flip: bool = False) -> Descriptors:
    """Runs a loader's images through ``forward`` and collects the descriptors.

    Args:
        forward: maps images (N, 3, H, W) to descriptors (N, D), in evaluation mode and without gradient.
        loader: gives the host's batches.
        label: shown beside the progress.
        flip: add the descriptor of the mirrored image.
    """
    features, pids, camids, paths, bad = [], [], [], [], []
    progress: Progress[dict[str, Any]] = Progress(loader, label)
    for batch in progress:
        bad += batch.get("bad_images", [])
        if len(batch["pid"]) == 0:
            continue
        images = batch["img"]
        feature = forward(images).float()
        if flip:
            feature = feature + forward(images.flip(3)).float()
        features.append(feature.cpu())
        pids += batch["pid"].tolist()
        camids += batch["camid"].tolist()
        paths += list(batch["impath"])
        progress.note(images=len(images))
    if not features:
        raise ValueError(f"No image of {label.strip()} could be read: {', '.join(bad[:5])}")
    return Descriptors(torch.cat(features), np.asarray(pids), np.asarray(camids), paths, tuple(bad))


def rank(query: Descriptors, gallery: Descriptors, options: TestOptions) -> RankingResult:
    """Ranks the gallery for each query as the options say."""
    sides = [query.features, gallery.features]
    if options.normalize_feature:
        sides = [F.normalize(side, dim=1) for side in sides]
    distances = _reranked(sides[0], sides[1], options.dist_metric) if options.rerank else None
    return evaluate_ranking(
        sides[0],
        sides[1],
        query.pids,
        gallery.pids,
        query.camids,
        gallery.camids,
        metric=options.dist_metric,
        max_rank=max(options.ranks),
        return_top=options.visrank_topk if options.visrank else 0,
        distances=distances,
    )


def _reranked(query: Tensor, gallery: Tensor, metric: str) -> np.ndarray:
    """The host's k-reciprocal re-ranking; its memory grows with the square of all images."""

    def distances(a: Tensor, b: Tensor) -> np.ndarray:
        return torchreid.metrics.compute_distance_matrix(a, b, metric).numpy()

    return torchreid.utils.re_ranking(distances(query, gallery), distances(query, query), distances(gallery, gallery))
