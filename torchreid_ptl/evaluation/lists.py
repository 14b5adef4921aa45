"""Ranked lists of a few queries, of which only the ranks of the matches are worked out; single shots too."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import Floats, Floats32, Integers, inside, take
from .labels import PairLabels

# Picking out costs less than sorting below this part of a row.
_FEW = 8


class RankedLists:
    """The lists of a few queries over a gallery that may come in several parts.

    No list is ever sorted with its indices. The rank of a match is one more than the number of nearer images, found
    by a binary search in the sorted distances alone, plus the images at the same distance that come before it in the
    gallery. Junk counts nowhere. First every part is read, then every part is counted, with the same distances.
    """

    def __init__(self, labels: PairLabels, rows: slice, count_top: int = 0) -> None:
        self.rows = rows
        self.size = rows.stop - rows.start
        owners, columns, junk = labels.same_identity(rows)
        self._junk_rows, self._junk_columns = owners[junk], columns[junk]
        self._match_rows, self._match_columns = owners[~junk], columns[~junk]
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
        within = inside(self._match_columns, columns)
        places = self._match_rows[within], self._match_columns[within] - columns.start
        self._values[within] = take(block, *places)

    def order(self, block: Tensor, columns: slice, sorter: "Sorter") -> None:
        """Has a part sorted; :meth:`count` takes it from there, and meanwhile the next one can be ordered."""
        within = inside(self._junk_columns, columns)
        junk = self._junk_rows[within], self._junk_columns[within] - columns.start
        farthest = np.full(self.size, -math.inf, dtype=np.float32)
        np.maximum.at(farthest, self._match_rows, self._values)
        on_cpu = block.device.type == "cpu"
        ordered = sorter(block.numpy(), junk, farthest) if on_cpu else _without(block, junk).sort(dim=1).values
        self._ordered = block, columns, junk, ordered

    def count(self) -> None:
        """Adds the images of the part that was ordered last that come before each match."""
        block, columns, junk, ordered = self._ordered
        first, last = self._search_on_device(ordered) if isinstance(ordered, Tensor) else self._search(ordered())
        self._before += first
        self._count_equal(block, columns, junk, first, last)
        if self._top is not None:
            self._top.add(block, columns, junk)
        del self._ordered

    def ranks(self) -> tuple[Integers, Integers]:
        """Row and rank of every match, ordered by both; ranks count from 1."""
        order = np.lexsort((self._before, self._match_rows))
        return self._match_rows[order], self._before[order] + 1

    def top(self) -> tuple[Integers, Floats] | None:
        """Gallery indices (B, count_top) and distances of the nearest images; -1 and NaN where there are no more."""
        return None if self._top is None else self._top.filled()

    def _search(self, ordered: list[Floats32]) -> tuple[Integers, Integers]:
        """How many distances without junk are below each match's, and how many are not above it."""
        first, last = np.empty_like(self._before), np.empty_like(self._before)
        ends = self._ends.tolist()
        # row by row: torch's search leaves threads behind that spin while the next rows are sorted
        for row, (start, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
            values, found = self._values[start:stop], ordered[row]
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
        """Adds the images at exactly a match's distance that come before it in the gallery."""
        later = self._match_columns >= columns.stop
        within = inside(self._match_columns, columns)
        # Junk was set to infinity for the sort, so there ties are looked at.
        endless = np.isinf(self._values)
        self._before += np.where(later & ~endless, last - first, 0)
        entries = np.flatnonzero((within & (last - first > 1)) | ((within | later) & endless))
        if not len(entries):
            return
        distances = block.cpu().numpy()
        for entry in entries:
            row, value = self._match_rows[entry], self._values[entry]
            stop = self._match_columns[entry] - columns.start
            own = junk[1][(junk[0] == row) & (junk[1] < stop)]
            equal = np.count_nonzero(distances[row, :stop] == value)
            self._before[entry] += equal - np.count_nonzero(distances[row, own] == value)


class SingleShots:
    """Ranks of the first match when one gallery image of every identity is drawn.

    Li et al., CVPR 2014 [paper], in the form torchreid evaluates [code]: junk leaves the gallery before the draw, the
    draw is made anew for each query. Every query has a random generator of its own [ours], so that its draws depend
    neither on the other queries nor on the size of blocks.
    """

    def __init__(self, labels: PairLabels, rows: slice, repeats: int, seed: int) -> None:
        owners, columns, junk = labels.same_identity(rows)
        size = rows.stop - rows.start
        order, starts, counts = labels.groups
        self._own = np.searchsorted(labels.gallery_pids[order][starts], labels.query_pids[rows])
        self.valid = np.bincount(owners[~junk], minlength=size) > 0
        shape = (size, repeats, len(starts))
        self._drawn = np.empty(shape, dtype=np.int64)
        self._values = np.zeros(shape, dtype=np.float32)
        for row in np.flatnonzero(self.valid).tolist():
            uniform = np.random.default_rng([seed, rows.start + row]).random(shape[1:])
            self._drawn[row] = order[starts + (uniform * counts).astype(np.int64)]
            own, matches = self._own[row], columns[(owners == row) & ~junk]
            self._drawn[row, :, own] = matches[(uniform[:, own] * len(matches)).astype(np.int64)]
        self._drawn[~self.valid] = -1

    def read(self, block: Tensor, columns: slice) -> None:
        """Takes the distances of the drawn images from the part (B, columns) of the matrix."""
        places = np.nonzero(inside(self._drawn, columns))
        self._values[places] = take(block, places[0], self._drawn[places] - columns.start)

    def ranks(self) -> Integers:
        """Rank of the match, counted from 1, shape (B, repeats); 0 for a query without match."""
        ranks = np.zeros(self._drawn.shape[:2], dtype=np.int64)
        for row in np.flatnonzero(self.valid).tolist():
            values, drawn = self._values[row], self._drawn[row]
            own = values[:, self._own[row], None], drawn[:, self._own[row], None]
            before = (values < own[0]) | ((values == own[0]) & (drawn < own[1]))
            ranks[row] = before.sum(axis=1) + 1
        return ranks


class _Nearest:
    """The nearest images of each query among the parts seen so far, equal distances by gallery index."""

    def __init__(self, queries: int, count: int) -> None:
        self._queries, self._count = queries, count
        self._rows, self._columns = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self._values = np.empty(0, dtype=np.float32)

    def add(self, block: Tensor, columns: slice, junk: tuple[Integers, Integers]) -> None:
        rows, places, values = _not_beyond(block, junk, min(self._count, block.shape[1]))
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
    """Sorts the distances that may come before a match in each row of a block on the CPU, with all threads.

    numpy sorts values many times faster than torch; each thread has one call for its share of the rows, because
    threads of Python that call often wait for each other. Where few come before the farthest match, only these
    are sorted.
    """

    def __init__(self, values: int, workers: int, pool: ThreadPoolExecutor) -> None:
        self._count, self._pool = workers, pool
        # One is worked on while the other one is read; fresh memory each time would cost as much as the sort.
        self._memory = [(np.empty(values, dtype=np.float32), np.empty(values, dtype=np.bool_)) for _ in range(2)]

    def __call__(
        self, distances: Floats32, junk: tuple[Integers, Integers], farthest: Floats32
    ) -> Callable[[], list[Floats32]]:
        """Begins to sort, for each row of (B, C) at least all distances up to its `farthest` but the junk's.

        The function returned waits for the sorted rows, with infinite values or nothing in place of the rest.
        """
        self._memory.reverse()
        memory = [part[: distances.size].reshape(distances.shape) for part in self._memory[0]]

        def work(rows: slice) -> list[Floats32]:
            own = (junk[0] >= rows.start) & (junk[0] < rows.stop)
            places = junk[0][own] - rows.start, junk[1][own]
            return _sorted(distances[rows], places, farthest[rows], memory[0][rows], memory[1][rows])

        bounds = np.linspace(0, len(distances), self._count + 1).astype(int).tolist()
        parts = self._pool.map(work, map(slice, bounds[:-1], bounds[1:]))
        return lambda: [row for part in parts for row in part]


def _sorted(
    distances: Floats32, junk: tuple[Integers, Integers], farthest: Floats32, memory: Any, wanted: Any
) -> list[Floats32]:
    np.less_equal(distances, farthest[:, None], out=wanted)
    wanted[junk] = False
    counts = np.array([np.count_nonzero(row) for row in wanted], dtype=np.int64)
    few = counts < distances.shape[1] // _FEW
    many = np.take(distances, np.flatnonzero(~few), axis=0, out=memory[: np.count_nonzero(~few)], mode="clip")
    kept = ~few[junk[0]]
    many[(np.cumsum(~few) - 1)[junk[0][kept]], junk[1][kept]] = math.inf
    many.sort(axis=1)
    wanted[~few] = False
    picked = np.full((np.count_nonzero(few), counts[few].max(initial=0)), math.inf, dtype=np.float32)
    picked[np.arange(picked.shape[1]) < counts[few, None]] = distances[wanted]
    picked.sort(axis=1)
    rows = iter(many), iter(picked)
    return [next(rows[int(is_few)]) for is_few in few]


def _without(block: Tensor, junk: tuple[Integers, Integers]) -> Tensor:
    """A copy in which junk is infinitely far."""
    places = tuple(torch.from_numpy(index).to(block.device) for index in junk)
    return block.clone().index_put_(places, torch.full((), math.inf, device=block.device))


def _not_beyond(block: Tensor, junk: tuple[Integers, Integers], count: int) -> tuple[Integers, Integers, Floats32]:
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
