"""L2-normalised descriptors, made when they are needed, and rankings of the same images by several models."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .arrays import Progress, name_some, slices
from .descriptors import Pair
from .distances import Features, Rows, as_float32, shape_of
from .options import EvaluationOptions
from .ranking import evaluate_ranking
from .result import RankingResult

# Rows are read and checked in parts of this many bytes.
_PART_BYTES = 16 * 2**20


class NormalizedRows:
    r"""Descriptors (N, D) as x / \|x\| in float32, a slice at a time; only their lengths are kept.

    With ``dim``, the first dimensions are taken, or zeros added, before they are normalised. A ValueError names rows
    that are zero or not finite.

    Example:
        >>> rows = NormalizedRows("query", np.array([[3.0, 4.0], [0.0, 2.0]]))
        >>> rows[1:2].tolist(), rows.shape
        ([[0.0, 1.0]], (2, 2))
    """

    def __init__(
        self, name: str, features: Features | None, device: torch.device | None = None, dim: int | None = None
    ) -> None:
        self._name, self._device = name, device or torch.device("cpu")
        # a memory map stays one: nothing is read before it is asked for
        self._features = features if isinstance(features, Rows) else np.asarray(features)
        given = shape_of(name, self._features)
        self.shape = (given[0], given[1] if dim is None else dim)
        lengths = torch.empty(len(self), dtype=torch.float64)
        for place in slices(slice(0, len(self)), max(1, _PART_BYTES // (8 * self.shape[1]))):
            lengths[place] = self._read(place).double().norm(dim=1).cpu()
        limits = torch.finfo(torch.float32)
        self._refuse(lengths <= limits.tiny, "are zero and have no direction")
        self._refuse(~(lengths <= limits.max), "hold NaN, infinite or, for float32, too large values")
        self._lengths = lengths.float()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Some rows, shape (n, dim)."""
        return self._read(rows) / self._lengths[rows, None].to(self._device)

    def resized(self, dim: int) -> "NormalizedRows":
        """The same descriptors in another dimension, normalised there; nothing is read again where it is the same."""
        return self if dim == self.shape[1] else NormalizedRows(self._name, self._features, self._device, dim)

    def _read(self, rows: slice) -> Tensor:
        part = as_float32(self._features[rows], self._device)[:, : self.shape[1]]
        missing = self.shape[1] - part.shape[1]
        return functional.pad(part, (0, missing)) if missing else part

    def _refuse(self, wrong: Tensor, words: str) -> None:
        bad = torch.nonzero(wrong).flatten().tolist()
        if bad:
            where = f" in the {self.shape[1]} dimensions compared" if self.shape[1] < self._features.shape[1] else ""
            raise ValueError(f"{len(bad)} of {len(self)} {self._name} rows {words}{where}: {name_some(bad)}")


def normalized_sides(
    name: str, sides: Pair, device: torch.device, dim: int | None = None
) -> tuple[NormalizedRows, NormalizedRows]:
    """Queries and gallery of a model as :class:`NormalizedRows`."""
    query, gallery = (
        NormalizedRows(f"{name} {side}", each.features, device, dim)
        for side, each in zip(("query", "gallery"), sides, strict=True)
    )
    return query, gallery


def ranker(
    images: Pair, options: EvaluationOptions, count: int, progress: Progress | None
) -> Callable[[Rows, Rows], RankingResult]:
    """Ranks galleries of the same images by several models in turn, and reports the progress in all of them."""
    if options.rerank or options.protocol != "market1501":
        raise ValueError(
            "models are compared by plain rankings of the complete gallery: rerank=False and "
            f"protocol='market1501'; got rerank={options.rerank} and protocol={options.protocol!r}"
        )
    options = replace(options, metric=options.metric or "cosine")
    turns = itertools.count()

    def rank(query: Rows, gallery: Rows) -> RankingResult:
        turn = next(turns)
        sides = replace(images[0], features=query), replace(images[1], features=gallery)

        def report(done: int, queries: int) -> None:
            if progress is not None:
                progress(turn * queries + done, count * queries)

        return evaluate_ranking(*sides, options, progress=report)

    return rank
