"""The least memory with which a test can be ranked."""

import torch

from .blocks import make_plan
from .options import EvaluationOptions
from .rerank import rows_per_block


def require_memory(queries: int, gallery: int, options: EvaluationOptions, device: torch.device) -> None:
    """Makes sure that ``options.memory_mb`` allows a test to be ranked, before there are descriptors.

    Args:
        queries: number of query images.
        gallery: number of gallery images.
        options: ``memory_mb``, in MiB, and ``rerank`` are read.
        device: where it will be ranked.

    Raises:
        ValueError: it does not; the message says the least that does.
    """
    make_plan((queries, gallery), options.memory_mb, device)
    if options.rerank:
        rows_per_block(queries + gallery, options.memory_mb)
