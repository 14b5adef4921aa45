"""How descriptors are made and compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

PROTOCOLS = ("market1501", "cuhk03")
NO_MATCH = ("skip", "error")


@dataclass(frozen=True)
class EvaluationOptions:
    """How descriptors are made and compared.

    Attributes:
        metric: ``'euclidean'`` (squared; the ranking is the same) or ``'cosine'`` (1 - cos). None is ``'euclidean'``,
            and ``'cosine'`` in comparisons of models, whose descriptors are always L2-normalised.
        normalize: L2-normalise descriptors when they are extracted.
        flip: extract the mean of the descriptors of an image and of the mirrored image.
        precision: of the network's forward pass, ``'float32'``, ``'bfloat16'`` or ``'float16'``; descriptors are
            compared in float32.
        ranks: CMC ranks to print and to store.
        max_rank: length of the CMC, clipped to the size of the gallery.
        protocol: ``'market1501'``, or ``'cuhk03'`` (single gallery shot).
        repeats: draws for each query with ``'cuhk03'``.
        rerank: k-reciprocal re-ranking; see :func:`~torchreid_ptl.evaluation.rerank`.
        no_match: queries without a match count nowhere and are listed in the result (``'skip'``, as the host does), or
            are an error (``'error'``).
        return_top: number of nearest gallery images to keep for each query.
        seed: of every random choice: draws with ``'cuhk03'``, halves of identities, the order of re-encoding.
        memory_mb: MiB for ranking and re-ranking, inputs and results not counted.
        device: where to compute; the device of the gallery or of the distances by default.

    Raises:
        ValueError: a value that is not allowed.
    """

    metric: str | None = None
    normalize: bool = False
    flip: bool = False
    precision: str = "float32"
    ranks: tuple[int, ...] = (1, 5, 10, 20)
    max_rank: int = 50
    protocol: str = "market1501"
    repeats: int = 10
    rerank: bool = False
    no_match: str = "skip"
    return_top: int = 0
    seed: int = 0
    memory_mb: float = 512
    device: torch.device | str | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_rank", 1), ("return_top", 0), ("repeats", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, got {getattr(self, name)}")
        for name, allowed in (("protocol", PROTOCOLS), ("no_match", NO_MATCH)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")

    @classmethod
    def of(
        cls,
        *,
        dist_metric: str = "euclidean",
        normalize_feature: bool = False,
        ranks: Sequence[int] = ranks,
        visrank: bool = False,
        visrank_topk: int = 10,
        use_metric_cuhk03: bool = False,
        **fields: Any,
    ) -> "EvaluationOptions":
        """From the keywords of the host's ``Engine.test``.

        Args:
            dist_metric: ``metric``.
            normalize_feature: ``normalize``.
            ranks: the CMC is as long as the largest.
            visrank: keep the nearest images of each query, for pictures.
            visrank_topk: how many.
            use_metric_cuhk03: ``protocol='cuhk03'``.
            **fields: all others, by their names here.
        """
        return cls(
            metric=dist_metric,
            normalize=normalize_feature,
            ranks=tuple(ranks),
            max_rank=max(ranks),
            return_top=visrank_topk if visrank else 0,
            protocol=PROTOCOLS[use_metric_cuhk03],
            **fields,
        )


DEFAULTS = EvaluationOptions()
