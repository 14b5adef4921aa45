"""Kinds of arrays, and what is done to blocks of distances everywhere."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Integers: TypeAlias = npt.NDArray[np.int64]
Integers32: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
Floats32: TypeAlias = npt.NDArray[np.float32]

NAMED_IN_ERRORS = 5


def slices(whole: slice, size: int) -> Iterator[slice]:
    """A range, both ends given, in parts of a size; the last one may be smaller."""
    for start in range(whole.start, whole.stop, size):
        yield slice(start, min(start + size, whole.stop))


def inside(indices: Integers, part: slice) -> npt.NDArray[np.bool_]:
    """Which of some indices lie in a part, both ends given."""
    return (indices >= part.start) & (indices < part.stop)


def take(block: Tensor, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]) -> Floats32:
    """Entries of a block on any device."""
    if block.device.type == "cpu":
        return block.numpy()[rows, columns]
    return block[torch.from_numpy(rows).to(block.device), torch.from_numpy(columns).to(block.device)].cpu().numpy()
