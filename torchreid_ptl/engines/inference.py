"""From a loader to descriptors to a ranking."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluation import FeatureDistances, RankingResult, evaluate_ranking, rerank
from ..evaluation.blocks import make_plan
from ..evaluation.distances import Features
from ..evaluation.labels import PairLabels
from ..evaluation.ranking import lost_queries
from ..runtime.precision import autocast
from ..runtime.progress import Progress

LONG_WORK = 10**9
"""Pairs of images from which a ranking shows its progress."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How descriptors are made and compared; names and defaults are those of the host's ``Engine.test``.

    Attributes:
        dist_metric: ``'euclidean'`` or ``'cosine'``.
        normalize_feature: L2-normalise descriptors.
        flip: the descriptor is the mean of the image's and the mirrored image's.
        precision: of the network's forward pass, ``'float32'``, ``'bfloat16'`` or ``'float16'``; descriptors are
            compared in float32.
        ranks: CMC ranks to report; those beyond the gallery are clipped.
        rerank: k-reciprocal re-ranking (Zhong et al. 2017).
        visrank: keep the nearest images of each query, for pictures.
        visrank_topk: images in a rank list.
        use_metric_cuhk03: CUHK03's single-gallery-shot protocol.
        no_match: queries without a match: ``'skip'`` or ``'error'``.
        memory_mb: MiB for ranking and re-ranking beside the descriptors.
    """

    __test__ = False  # not a test class

    dist_metric: str = "euclidean"
    normalize_feature: bool = False
    flip: bool = False
    precision: str = "float32"
    ranks: tuple[int, ...] = (1, 5, 10, 20)
    rerank: bool = False
    visrank: bool = False
    visrank_topk: int = 10
    use_metric_cuhk03: bool = False
    no_match: str = "skip"
    memory_mb: float = 512

    @classmethod
    def of(cls, **fields: Any) -> "EvaluationOptions":
        """Takes the host's keywords."""
        return cls(**{**fields, "ranks": tuple(fields.get("ranks", cls.ranks))})


@dataclass(frozen=True)
class Descriptors:
    """Descriptors (N, D) of a set of images with identities, cameras and paths.

    Extracted ones are in float32 on the CPU; others may be anything with a shape and slices. Images that could not be
    read and were left out stand in ``bad_images``.
    """

    features: Features
    pids: np.ndarray
    camids: np.ndarray
    paths: list[str]
    bad_images: tuple[str, ...] = ()


def extract(
    forward: Callable[[Tensor], Tensor], loader: Iterable, label: str, device: torch.device, options: EvaluationOptions
) -> Descriptors:
    """Runs a loader's images through ``forward`` and collects the descriptors.

    Args:
        forward: maps images (N, 3, H, W) to descriptors (N, D), in evaluation mode and without gradient.
        loader: gives the host's batches.
        label: shown beside the progress.
        device: where ``forward`` works.
        options: flip, precision and normalisation.

    Raises:
        ValueError: no image could be read, or a descriptor is not finite; names the images.
    """
    features, pids, camids, paths, bad = [], [], [], [], []
    progress: Progress[dict[str, Any]] = Progress(loader, label)
    for batch in progress:
        bad += batch.get("bad_images", [])
        if len(batch["pid"]) == 0:
            continue
        feature = _describe(forward, batch["img"], device, options)
        _require_finite(feature, batch["impath"], options.precision)
        features.append(feature.cpu())
        pids += batch["pid"].tolist()
        camids += batch["camid"].tolist()
        paths += list(batch["impath"])
        progress.note(images=len(batch["pid"]))
    if not features:
        raise ValueError(f"No image of {label.strip()} could be read: {', '.join(bad[:5])}")
    return Descriptors(torch.cat(features), np.asarray(pids), np.asarray(camids), paths, tuple(bad))


def _describe(
    forward: Callable[[Tensor], Tensor], images: Tensor, device: torch.device, options: EvaluationOptions
) -> Tensor:
    with autocast(options.precision, device):
        feature = forward(images).float()
        if options.flip:
            feature = (feature + forward(images.flip(3)).float()) / 2
    return F.normalize(feature, dim=1) if options.normalize_feature else feature


def _require_finite(features: Tensor, paths: list[str], precision: str) -> None:
    bad = torch.nonzero(~torch.isfinite(features).all(dim=1)).flatten().tolist()
    if bad:
        remedy = "; eval.precision bfloat16 or float32 has a larger range" if precision == "float16" else ""
        named = ", ".join(paths[index] for index in bad[:5])
        raise ValueError(f"The network gives NaN or infinite descriptors for {named}{remedy}")


def rank(query: Descriptors, gallery: Descriptors, options: EvaluationOptions, device: torch.device) -> RankingResult:
    """Ranks the gallery for each query as the options say."""
    if options.rerank:  # what the ranking would refuse is refused before the long work
        shape = len(query.pids), len(gallery.pids)
        labels = PairLabels(query.pids, gallery.pids, query.camids, gallery.camids, shape)
        lost_queries(labels, options.no_match)
        make_plan(shape, options.memory_mb, device)
    distances = compare(query, gallery, options, device)
    long = len(query.pids) * len(gallery.pids) > LONG_WORK
    return evaluate_ranking(
        None,
        None,
        query.pids,
        gallery.pids,
        query.camids,
        gallery.camids,
        max_rank=max(options.ranks),
        protocol="cuhk03" if options.use_metric_cuhk03 else "market1501",
        on_no_match=options.no_match,
        memory_mb=options.memory_mb,
        return_top=options.visrank_topk if options.visrank else 0,
        distances=distances,
        progress=progress_printer("ranking") if long else None,
    )


def compare(query: Descriptors, gallery: Descriptors, options: EvaluationOptions, device: torch.device) -> Any:
    """The distances that are ranked, made block by block when they are needed."""
    if not options.rerank:
        return FeatureDistances(query.features, gallery.features, options.dist_metric, device)
    long = (len(query.pids) + len(gallery.pids)) ** 2 > LONG_WORK
    return rerank(
        _loaded(query.features).to(device),
        _loaded(gallery.features).to(device),
        metric=options.dist_metric,
        memory_mb=options.memory_mb,
        progress=progress_printer("neighbours") if long else None,
    )


def _loaded(features: Features) -> Tensor:
    return features if isinstance(features, Tensor) else torch.as_tensor(features[0 : features.shape[0]])


def progress_printer(label: str) -> Callable[[int, int], None]:
    """Prints how far long work is, at each tenth of it."""
    said = [0]

    def tell(done: int, total: int) -> None:
        if 10 * done // total > said[0]:
            said[0] = 10 * done // total
            print(f"  {label} [{done}/{total}]", flush=True)

    return tell
