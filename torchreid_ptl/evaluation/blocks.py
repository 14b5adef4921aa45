"""How much of a distance matrix is made at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from .arrays import slices

# More rows make the matrix product no faster, fewer than the second make it slow.
_MOST_ROWS, _FEW_ROWS = 2048, 32
# What a thread sorts at a time: enough to be worth the call.
_SORT_BYTES = 5 * 2**20
# A sort on the CPU: distances that may come before a match, and a mask, twice.
_CPU_SORT_BYTES = 10
# A sort on a GPU: the copy, sorted values, their indices and its own memory.
_GPU_SORT_BYTES = 32
# A distance, what its sort needs, and the precision at its rank.
_LEAST_BYTES = {"cpu": 22, "cuda": 44}


@dataclass(frozen=True)
class Plan:
    """Queries and gallery images in a block, queries whose distances are sorted at a time, and threads that sort."""

    shape: tuple[int, int]
    rows: int
    columns: int
    chunk: int
    workers: int

    def row_blocks(self) -> Iterator[slice]:
        """Blocks of queries of nearly equal size."""
        return slices(slice(0, self.shape[0]), self.rows)

    def tiles(self) -> list[slice]:
        """Gallery images in parts; a single one if a few complete rows fit into the memory."""
        return list(slices(slice(0, self.shape[1]), self.columns))

    def buffer(self, device: torch.device) -> torch.Tensor:
        """Memory for a block, to be used for each."""
        if device.type == "cpu":  # numpy asks for huge pages, with which the first touch costs a fraction
            return torch.from_numpy(np.empty(self.rows * self.columns, dtype=np.float32))
        return torch.empty(self.rows * self.columns, device=device)


def make_plan(shape: tuple[int, int], memory_mb: float, device: torch.device) -> Plan:
    """Sizes with which blocks and what is sorted of them stay within MiB; a ValueError says the least that works."""
    queries, gallery = shape
    budget = int(memory_mb * 2**20)
    least = gallery * _LEAST_BYTES.get(device.type, 44)
    if budget < least:
        raise ValueError(
            f"memory_mb={memory_mb} does not hold one query row against {gallery} gallery images; "
            f"the least that works is {math.ceil(least / 2**20)}"
        )
    per_pair = _GPU_SORT_BYTES if device.type == "cuda" else _CPU_SORT_BYTES
    workers = max(1, min(torch.get_num_threads(), queries))
    sorting = max(per_pair * gallery, min(budget // 4, workers * _SORT_BYTES))
    room = max(4 * gallery, budget - 8 * gallery - sorting)
    rows = max(1, min(queries, _MOST_ROWS, room // (4 * gallery)))
    columns = gallery
    if rows < min(queries, _FEW_ROWS):  # a second product over parts of the gallery costs less than thin blocks
        rows = min(queries, _MOST_ROWS, room // 4)
        columns = min(gallery, max(1, room // (4 * rows)))
    rows = math.ceil(queries / math.ceil(queries / rows))
    return Plan(shape, rows, columns, max(1, min(rows, sorting // (per_pair * columns))), workers)
