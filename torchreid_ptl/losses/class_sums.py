"""Sums of rows by class, the same on every device and in every run."""

import torch
from torch import Tensor


def add_by_class(sums: Tensor, labels: Tensor, rows: Tensor) -> None:
    """Adds each of the rows (N, ...) to its class in ``sums`` (C, ...), in place, in the order of the rows.

    Where several rows have one class, ``index_add_`` sums them on a GPU in an order that changes from run to run.

    Args:
        sums: float32 or float64.
        labels: (N,) classes from 0 to C - 1.
        rows: of the dtype of ``sums``; no gradient flows into them.

    Example:
        >>> sums = torch.zeros(2)
        >>> add_by_class(sums, torch.tensor([1, 0, 1]), torch.tensor([1.0, 2.0, 4.0]))
        >>> sums
        tensor([2., 5.])
    """
    present, lengths = labels.unique(return_counts=True)
    if len(present):
        order = labels.argsort(stable=True)
        sums[present] += torch.segment_reduce(rows.detach()[order], "sum", lengths=lengths, unsafe=True)
