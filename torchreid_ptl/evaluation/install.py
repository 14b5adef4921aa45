"""This package's ranking and re-ranking inside the host's own engines."""

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .. import host
from .descriptors import Descriptors
from .distances import Distances, FeatureDistances
from .options import EvaluationOptions
from .ranking import evaluate_ranking
from .rerank import rerank


class _HostDistances(FeatureDistances):
    """What the host's engines take for a tensor of distances; the matrix is made only where an entry is read."""

    def numpy(self) -> "Distances":
        return self


def install(memory_mb: float = 512) -> None:
    """Makes every engine of the host, and those derived from them, evaluate in bounded memory.

    Ranking and, with ``rerank=True``, re-ranking go through :func:`evaluate_ranking` and :func:`rerank`; nothing else
    about the engines changes, and neither do their figures but for the order of equal distances, which is the
    gallery's. ``visrank=True`` still makes the complete matrix, because the host's pictures need it. Repeated calls
    change nothing; :func:`uninstall` undoes it.

    Args:
        memory_mb: MiB, descriptors not counted.

    Example:
        >>> import torchreid_ptl
        >>> torchreid_ptl.evaluation.install()
        >>> torchreid_ptl.evaluation.uninstall()
    """

    def compute_distance_matrix(input1: Tensor, input2: Tensor, metric: str = "euclidean") -> Distances:
        return _HostDistances(input1, input2, metric)

    def re_ranking(
        q_g_dist: Any, q_q_dist: Any, g_g_dist: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
    ) -> Distances:
        matrices = (q_g_dist, q_q_dist, g_g_dist)
        return rerank(None, None, k1, k2, lambda_value, memory_mb=memory_mb, distances=matrices)

    def evaluate_rank(
        distmat: Any,
        q_pids: npt.NDArray[Any],
        g_pids: npt.NDArray[Any],
        q_camids: npt.NDArray[Any],
        g_camids: npt.NDArray[Any],
        max_rank: int = 50,
        use_metric_cuhk03: bool = False,
        use_cython: bool = True,
    ) -> tuple[npt.NDArray[np.float32], float]:
        query, gallery = Descriptors(None, q_pids, q_camids), Descriptors(None, g_pids, g_camids)
        options = EvaluationOptions.of(ranks=[max_rank], use_metric_cuhk03=use_metric_cuhk03, memory_mb=memory_mb)
        result = evaluate_ranking(query, gallery, options, distances=distmat)
        # The host reads ranks beyond a small gallery.
        return np.pad(result.cmc, (0, max_rank - len(result.cmc)), mode="edge"), result.mAP

    host.replace_evaluation(compute_distance_matrix, evaluate_rank, re_ranking)


def uninstall() -> None:
    """Gives the host's engines their own evaluation back."""
    host.restore_evaluation()
