"""Ranked lists of a few queries, of which only the ranks of the matches are worked out."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .labels import Integers, PairLabels

Floats: TypeAlias = npt.NDArray[np.float64]
Distances32: TypeAlias = npt.NDArray[np.float32]


class RankedLists:
    """The lists of a few queries over a gallery that may come in several parts.

    No list is ever sorted with its indices. The rank of a match is one more than the number of nearer images, found
    by a binary search in the sorted distances alone, plus the images at the same distance that stand before it in the
    gallery. Junk counts nowhere. First every part is read, then every part is counted, with the same distances.

    Args:
        labels: of all images.
        rows: the queries.
        count_top: nearest images to keep for each query.
    """

    def __init__(self, labels: PairLabels, rows: slice, count_top: int = 0) -> None:
        self.rows = rows
        self.size = rows.stop - rows.start
        same = labels.same_identity(rows)
        self._junk_rows, self._junk_columns = same.junk_places
        self._match_rows, self._match_columns = same.matches
        self._values = np.empty(len(self._match_rows), dtype=np.float32)
        self._before = np.zeros(len(self._match_rows), dtype=np.int64)
        self._ends = np.searchsorted(self._match_rows, np.arange(self.size + 1))
        self._top = _Nearest(self.size, count_top) if count_top else None

    @property
    def junk_counts(self) -> Integers:
        """Number of junk images of each query, shape (B,)."""
        return np.bincount(self._junk_rows, minlength=self.size)

    def read(self, block: Tensor, columns: slice) -> None:
        """Takes the matches' distances from the part (B, columns) of the matrix."""
        inside = _inside(self._match_columns, columns)
        places = self._match_rows[inside], self._match_columns[inside] - columns.start
        self._values[inside] = _take(block, *places)

    def count(self, block: Tensor, columns: slice, sorter: "Sorter") -> None:
        """Adds the images of a part that stand before each match."""
        inside = _inside(self._junk_columns, columns)
        junk = self._junk_rows[inside], self._junk_columns[inside] - columns.start
        first, last = self._search(sorter(block, junk))
        self._before += first
        self._count_equal(block, columns, junk, first, last)
        if self._top is not None:
            self._top.add(block, columns, junk)

    def ranks(self) -> tuple[Integers, Integers]:
        """Row and rank of every match, ordered by both; ranks count from 1."""
        order = np.lexsort((self._before, self._match_rows))
        return self._match_rows[order], self._before[order] + 1

    def top(self) -> tuple[Integers, Floats] | None:
        """Gallery indices (B, count_top) and distances of the nearest images; -1 and NaN where there are no more."""
        return None if self._top is None else self._top.filled()

    def _search(self, ordered: Tensor) -> tuple[Integers, Integers]:
        """How many sorted distances are below each match's, and how many are not above it."""
        if ordered.device.type != "cpu":
            return self._search_on_device(ordered)
        first, last = np.empty_like(self._before), np.empty_like(self._before)
        ends = self._ends.tolist()
        # row by row: torch's search leaves threads behind that spin while the next rows are sorted
        for row, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            values, found = self._values[start:stop], ordered.numpy()[row]
            first[start:stop] = found.searchsorted(values, "left")
            last[start:stop] = found.searchsorted(values, "right")
        return first, last

    def _search_on_device(self, ordered: Tensor) -> tuple[Integers, Integers]:
        places = np.arange(len(self._match_rows)) - self._ends[self._match_rows]
        padded = np.full((self.size, int(places.max(initial=0)) + 1), math.inf, dtype=np.float32)
        padded[self._match_rows, places] = self._values
        asked = torch.from_numpy(padded).to(ordered.device)
        found = (torch.searchsorted(ordered, asked, right=right).cpu().numpy() for right in (False, True))
        first, last = (table[self._match_rows, places] for table in found)
        return first, last

    def _count_equal(
        self, block: Tensor, columns: slice, junk: tuple[Integers, Integers], first: Integers, last: Integers
    ) -> None:
        """Adds the images at exactly a match's distance that stand before it in the gallery."""
        later = self._match_columns >= columns.stop
        inside = _inside(self._match_columns, columns)
        # Junk was set to infinity for the sort, so there ties are looked at.
        endless = np.isinf(self._values)
        self._before += np.where(later & ~endless, last - first, 0)
        entries = np.flatnonzero((inside & (last - first > 1)) | ((inside | later) & endless))
        if not len(entries):
            return
        distances = block.cpu().numpy()
        for entry in entries:
            row, value = self._match_rows[entry], self._values[entry]
            stop = self._match_columns[entry] - columns.start
            own = junk[1][(junk[0] == row) & (junk[1] < stop)]
            equal = np.count_nonzero(distances[row, :stop] == value)
            self._before[entry] += equal - np.count_nonzero(distances[row, own] == value)


class _Nearest:
    """The nearest images of each query among the parts seen so far, equal distances by gallery index."""

    def __init__(self, queries: int, count: int) -> None:
        self._queries, self._count = queries, count
        self._rows, self._columns = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._values = np.empty(0, dtype=np.float32)

    def add(self, block: Tensor, columns: slice, junk: tuple[Integers, Integers]) -> None:
        rows, places, values = _nearest(block, junk, min(self._count, block.shape[1]))
        kept = ~np.isin(rows * block.shape[1] + places, junk[0] * block.shape[1] + junk[1])
        rows = np.concatenate([self._rows, rows[kept]])
        found = np.concatenate([self._columns, places[kept] + columns.start])
        values = np.concatenate([self._values, values[kept]])
        order = np.lexsort((found, values, rows))
        first = np.searchsorted(rows[order], np.arange(self._queries))
        order = order[np.arange(len(order)) - first[rows[order]] < self._count]
        self._rows, self._columns, self._values = rows[order], found[order], values[order]

    def filled(self) -> tuple[Integers, Floats]:
        first = np.searchsorted(self._rows, np.arange(self._queries))
        places = np.arange(len(self._rows)) - first[self._rows]
        indices = np.full((self._queries, self._count), -1, dtype=np.int64)
        distances = np.full((self._queries, self._count), math.nan)
        indices[self._rows, places] = self._columns
        distances[self._rows, places] = self._values
        return indices, distances


class Sorter:
    """Sorts the rows of blocks, junk at the end, with all threads and into the same memory each time.

    On the CPU it is numpy's sort of values, many times faster than torch's; each thread has one call for its share of
    the rows, because threads of Python that call often wait for each other.

    Args:
        values: the largest number of values in a block.
        workers: threads.
    """

    def __init__(self, values: int, workers: int) -> None:
        self._memory = torch.empty(values)
        self._count = workers
        self._workers = ThreadPoolExecutor(workers)

    def __enter__(self) -> "Sorter":
        return self

    def __exit__(self, *error: object) -> None:
        self._workers.shutdown()

    def __call__(self, block: Tensor, junk: tuple[Integers, Integers]) -> Tensor:
        """Sorted distances (B, C), those of junk infinite."""
        if block.device.type != "cpu":
            return _without(block, junk).sort(dim=1).values
        distances, ordered = block.numpy(), self._memory[: block.numel()].view(block.shape)

        def work(rows: slice) -> None:
            part = ordered.numpy()[rows]
            part[:] = distances[rows]
            own = (junk[0] >= rows.start) & (junk[0] < rows.stop)
            part[junk[0][own] - rows.start, junk[1][own]] = math.inf
            part.sort(axis=1)

        bounds = np.linspace(0, len(distances), self._count + 1).astype(int).tolist()
        list(self._workers.map(work, map(slice, bounds[:-1], bounds[1:])))
        return ordered


def _inside(indices: Integers, columns: slice) -> npt.NDArray[np.bool_]:
    return (indices >= columns.start) & (indices < columns.stop)


def _take(block: Tensor, rows: Integers, columns: Integers) -> Distances32:
    if block.device.type == "cpu":
        return block.numpy()[rows, columns]
    return block[torch.from_numpy(rows).to(block.device), torch.from_numpy(columns).to(block.device)].cpu().numpy()


def _without(block: Tensor, junk: tuple[Integers, Integers]) -> Tensor:
    """A copy in which junk is infinitely far."""
    places = tuple(torch.from_numpy(index).to(block.device) for index in junk)
    return block.clone().index_put_(places, torch.full((), math.inf, device=block.device))


def _nearest(block: Tensor, junk: tuple[Integers, Integers], count: int) -> tuple[Integers, Integers, Distances32]:
    """Rows, columns and values of all entries that are not above the `count`-th of their row without junk."""
    if block.device.type == "cpu":
        distances = block.numpy()
        free = distances.copy()
        free[junk] = math.inf
        rows, columns = np.nonzero(distances <= np.partition(free, count - 1, axis=1)[:, count - 1, None])
        return rows, columns, distances[rows, columns]
    bound = _without(block, junk).topk(count, dim=1, largest=False).values[:, -1:]
    places = torch.nonzero(block <= bound, as_tuple=True)
    return places[0].cpu().numpy(), places[1].cpu().numpy(), block[places].cpu().numpy()
