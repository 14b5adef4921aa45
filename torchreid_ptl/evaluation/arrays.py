"""Kinds of arrays, and operations on blocks of distances that several files share."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, from_numpy

Integers: TypeAlias = npt.NDArray[np.int64]
Integers32: TypeAlias = npt.NDArray[np.int32]
Floats: TypeAlias = npt.NDArray[np.float64]
Floats32: TypeAlias = npt.NDArray[np.float32]
Booleans: TypeAlias = npt.NDArray[np.bool_]

Progress: TypeAlias = Callable[[int, int], object]
"""Called with how much is done, and how much there is."""

NAMED_IN_ERRORS = 5


def name_some(indices: Sequence[int]) -> str:
    """The first indices of some, for a message."""
    return ", ".join(map(str, indices[:NAMED_IN_ERRORS])) + (", ..." if len(indices) > NAMED_IN_ERRORS else "")


def slices(rows: slice, size: int) -> Iterator[slice]:
    """A range, both ends given, in parts of a size; the last one may be smaller."""
    for start in range(rows.start, rows.stop, size):
        yield slice(start, min(start + size, rows.stop))


def inside(indices: Integers, part: slice) -> Booleans:
    """Which of some indices lie in a part, both ends given."""
    return (indices >= part.start) & (indices < part.stop)


def take(block: Tensor, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.integer]) -> Floats32:
    """Entries of a block on any device."""
    if block.device.type == "cpu":
        return block.numpy()[rows, columns]
    return block[from_numpy(rows).to(block.device), from_numpy(columns).to(block.device)].cpu().numpy()
