"""The smoothed average precision, evaluated as a stream over pairs of a query and one of its positives."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..runtime.ranges import Range, check_numbers

Kind = Literal["none", "lift", "restore"]
LIMITS = dict.fromkeys(("lift_limit", "restore_from"), Range(0, 2, usual="a difference of cosines, 0.03 or 0.1"))
BLOCK = 1 << 18  # numbers of (pair, gallery) held at a time: 1 MB in float32, which a processor's cache takes


@dataclass(frozen=True)
class Reactivation:
    """Dynamic gradient reactivation (DGR) [ours], with the limits of :func:`.rbcl.rbcl_loss`."""

    kind: Kind = "none"
    lift_limit: float = 0.1
    restore_from: float = 0.03

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"dgr is {self.kind!r}; it is one of {', '.join(get_args(Kind))}")
        check_numbers(LIMITS, lift_limit=self.lift_limit, restore_from=self.restore_from)


def ranking_loss(
    similarity: Tensor, positive: Tensor, negative: Tensor, tau: float, reactivation: Reactivation
) -> Tensor:
    r"""One minus the smoothed average precision, the mean over queries that have a positive.

    With :math:`\sigma(x) = 1 / (1 + e^{-x})` and s the similarities of a query::

        R_i = 1 + sum_{k in P, k != i} sigma((s_k - s_i) / tau)        N_i = sum_{j in N} sigma((s_j - s_i) / tau)
        L = mean_q mean_{i in P_q} N_i / (R_i + N_i)

    The similarities are float32 or float64, (Q, G); positives and negatives are disjoint bools (Q, G), and what is in
    neither plays no part. The scalar is zero, with a gradient of zeros, when no query has a positive.

    The gradient is computed along with the value, a block of pairs (q, i) at a time, so that besides a few matrices of
    the size of ``similarity`` no more than ``BLOCK`` numbers are alive. No term is left out. There is no second
    derivative.

    Example:
        >>> first, second = torch.tensor([[True, False]]), torch.tensor([[False, True]])
        >>> ranking_loss(torch.tensor([[0.5, 0.5]]), first, second, 0.01, Reactivation())
        tensor(0.3333)
    """
    return _StreamedRanking.apply(similarity, positive, negative, tau, reactivation)


class _StreamedRanking(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, similarity: Tensor, positive: Tensor, negative: Tensor, tau: float, reactivation: Reactivation
    ) -> Tensor:
        stream = _Stream(similarity / tau, positive, negative, tau, reactivation)
        for start in range(0, stream.pairs, stream.rows):
            stream.add(start, min(start + stream.rows, stream.pairs))
        ctx.save_for_backward(stream.gradient().div_(tau))
        return stream.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return upstream[0] * gradient, None, None, None, None


class _Stream:
    """Sums over the pairs (query, positive) of a batch; everything is in units of tau.

    ``query``, ``column``, ``slot``, ``own``: (M,) of each pair its query, its column, its place among the query's
    positives, its similarity. ``positives`` (Q, P) and ``negatives`` (Q, G): similarities, -inf where there is none.
    """

    def __init__(
        self, scaled: Tensor, positive: Tensor, negative: Tensor, tau: float, reactivation: Reactivation
    ) -> None:
        counts = positive.sum(dim=1)
        self.query, self.column = positive.nonzero(as_tuple=True)
        self.pairs = len(self.query)
        self.queries = self.query.tolist()
        self.slot = torch.arange(self.pairs, device=scaled.device) - (counts.cumsum(0) - counts)[self.query]
        self.own = scaled[self.query, self.column]
        self.positives = scaled.new_full((len(scaled), int(counts.max()) if self.pairs else 0), -torch.inf)
        self.positives[self.query, self.slot] = self.own
        self.negatives = scaled.masked_fill(~negative, -torch.inf)
        self.share = 1 / (counts[self.query] * (counts > 0).sum()).to(scaled)
        self.rows = max(1, BLOCK // max(scaled.shape[1], 1))
        self.mark, self.cap = self.own, None
        if reactivation.kind == "lift" and self.pairs:
            lead = self.own - self.negatives.amax(dim=1)[self.query]
            self.mark = self.own - lead.clamp(0, reactivation.lift_limit / tau)
        elif reactivation.kind == "restore":
            self.cap = float(torch.tensor(reactivation.restore_from / tau, dtype=torch.float64).sigmoid())
        self.value = scaled.new_zeros(())
        self.of_own = torch.zeros_like(self.own)
        self.of_positives = torch.zeros_like(self.positives)
        self.of_negatives = torch.zeros_like(scaled)

    def add(self, start: int, stop: int) -> None:
        """Adds value and gradient of the pairs from ``start`` to ``stop``."""
        query = self.query[start:stop]
        among = self.positives.index_select(0, query).sub_(self.own[start:stop, None]).sigmoid_()
        among.scatter_(1, self.slot[start:stop, None], 0.0)
        before = self.negatives.index_select(0, query).sub_(self.mark[start:stop, None]).sigmoid_()
        better, worse = 1 + among.sum(dim=1), before.sum(dim=1)
        share = self.share[start:stop]
        self.value += (share * worse / (better + worse)).sum()
        per_rank = share / (better + worse).square()
        if self.cap is not None:
            before.clamp_(max=self.cap)
        self._descend(self.of_positives, among, -worse * per_rank, start, stop)
        self._descend(self.of_negatives, before, better * per_rank, start, stop)

    def _descend(self, target: Tensor, sigmoid: Tensor, factor: Tensor, start: int, stop: int) -> None:
        """Adds ``factor`` (R,) times the slopes of ``sigmoid`` (R, K) to their queries' rows of ``target``."""
        slope = sigmoid.addcmul_(sigmoid, sigmoid, value=-1)
        first, last = self.queries[start], self.queries[stop - 1] + 1
        of_query = factor.new_zeros(last - first, stop - start)
        of_query.scatter_(0, (self.query[start:stop] - first)[None, :], factor[None, :])
        target[first:last].addmm_(of_query, slope)
        self.of_own[start:stop] -= factor * slope.sum(dim=1)

    def gradient(self) -> Tensor:
        """(Q, G), in units of 1 / tau."""
        self.of_negatives[self.query, self.column] += self.of_positives[self.query, self.slot] + self.of_own
        return self.of_negatives
