"""CUHK03's protocol: a gallery with one image of each identity, drawn many times."""

import numpy as np
from torch import Tensor

from .arrays import Integers, inside, take
from .labels import PairLabels


class SingleShots:
    """Ranks of the first match when one gallery image of every identity is drawn.

    Li et al., CVPR 2014 [paper], in the form torchreid evaluates [code]: junk leaves the gallery before the draw, the
    draw is made anew for each query. Every query has a random generator of its own [ours], so that its draws depend
    neither on the other queries nor on the size of blocks.
    """

    def __init__(self, labels: PairLabels, rows: slice, repeats: int, seed: int) -> None:
        owners, columns, junk = labels.same_identity(rows)
        self._matches = owners[~junk], columns[~junk]
        size = rows.stop - rows.start
        order, self._starts, self._counts = labels.groups
        self._own = np.searchsorted(labels.gallery_pids[order][self._starts], labels.query_pids[rows])
        self.valid = np.bincount(self._matches[0], minlength=size) > 0
        shape = (size, repeats, len(self._starts))
        self._drawn = np.empty(shape, dtype=np.int64)
        self._values = np.zeros(shape, dtype=np.float32)
        for row in np.flatnonzero(self.valid).tolist():
            generator = np.random.default_rng([seed, rows.start + row])
            self._drawn[row] = self._draw(generator, row, repeats, order)
        self._drawn[~self.valid] = -1

    def _draw(self, generator: np.random.Generator, row: int, repeats: int, order: Integers) -> Integers:
        """A gallery image (repeats, identities) of every identity; of the query's own one a match."""
        uniform = generator.random((repeats, len(self._starts)))
        drawn = order[self._starts + (uniform * self._counts).astype(np.int64)]
        rows, columns = self._matches
        matches = columns[rows == row]
        own = self._own[row]
        drawn[:, own] = matches[(uniform[:, own] * len(matches)).astype(np.int64)]
        return drawn

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
