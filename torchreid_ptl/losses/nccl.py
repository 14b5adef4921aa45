"""Neighbourhood consensus contrastive loss (NCCL)."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Range, check_numbers
from .class_sums import add_by_class
from .compatible import (
    CompatibleLoss,
    at_least_float32,
    check_batch,
    check_dimensions,
    check_finite,
    check_shapes,
    l2_normalize,
)
from .registry import register_loss

ROWS = 1 << 12  # features handled at a time
Credible = Literal["all", "entropy"]
_RANGES = {
    "dim": Range(1, whole=True),
    "queue_size": Range(1, 1_000_000, whole=True, usual="8192 in the paper"),
    "tau": Range(1e-8, 100, usual="0.05 by default"),
    "logit_weight": Range(0, 1_000_000, usual="0.01 in public code"),
}


def nccl_loss(
    new: Tensor,
    old: Tensor,
    pids: Tensor,
    queue: Tensor,
    queue_pids: Tensor,
    tau: float = 0.05,
    *,
    classifier: Tensor | None = None,
    logit_weight: float = 0.01,
) -> Tensor:
    r"""Each new feature against many old ones, its positives weighted by what the old model thinks of them.

    Wu et al., Neighborhood Consensus Contrastive Learning for Backward-Compatible Representation, AAAI 2022: a queue of
    old features and the weights (1 + o_i.o_j) / 2 [paper], on the positives [code]; that they sum to 1, rivals of other
    identities only, and tau [ours]. Features L2-normalised, P_i and N_i the old features of the same and of other
    identities::

        L = mean_i sum_{j in P_i} w_ij l_ij / sum_{j in P_i} w_ij        w_ij = (1 + o_i.o_j) / 2
        l_ij = -log( e^{f_i.o_j / tau} / (e^{f_i.o_j / tau} + sum_{k in N_i} e^{f_i.o_k / tau}) )

    With a classifier W, ``logit_weight`` times the same is added for class logits [code], W f_i and W o_j with
    normalised rows of W, in place of f_i and o_j; they are normalised, and gradient flows into W
    by the new ones alone [ours].

    Without an old feature of another identity an image costs nothing. A scalar, computed in float32 (float64 stays)
    outside autocast.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        pids: (B,) identities.
        queue: (Q, D) further old features, Q from 0; no gradient flows into them.
        queue_pids: (Q,) identities.
        tau: temperature, in cosine.
        classifier: (C, D) weights of the new model's classifier; None without the term on class logits.
        logit_weight: of that term, from 0.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or settings out of their range.

    Example:
        >>> nothing, pids = torch.zeros(0, 2), torch.tensor([0, 1])
        >>> nccl_loss(torch.eye(2), torch.eye(2), pids, nothing, torch.zeros(0), tau=1.0)
        tensor(0.3133)
    """
    check_numbers(_RANGES, tau=tau, logit_weight=logit_weight)
    check_batch(new, old, pids)
    check_shapes("queue (Q, D) and queue_pids (Q,)", queue, queue_pids)
    check_dimensions(new, queue)
    with torch.autocast(new.device.type, enabled=False):
        f, o = l2_normalize(new), l2_normalize(old.detach(), new)
        bank = torch.cat([o, l2_normalize(queue.detach(), new)])
        same = pids[:, None] == torch.cat([pids, queue_pids.to(pids)])[None, :]
        weight = ((1 + o @ bank.T) / 2).clamp(min=0).masked_fill(~same, 0.0)
        value = _contrast(f @ bank.T / tau, same, weight)
        if classifier is None or logit_weight == 0:
            return value
        check_dimensions(new, classifier)
        axes = l2_normalize(classifier, new)
        cosines = l2_normalize(f @ axes.T) @ l2_normalize(bank @ axes.detach().T).T
        return value + logit_weight * _contrast(cosines / tau, same, weight)


def _contrast(logits: Tensor, same: Tensor, weight: Tensor) -> Tensor:
    rivals = logits.masked_fill(same, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
    return ((weight * F.softplus(rivals - logits)).sum(dim=1) / weight.sum(dim=1)).mean()


def certain_mask(features: Tensor, pids: Tensor) -> Tensor:
    r"""The old features whose class the old space tells with certainty, as a bool (N,).

    NCCL chooses credible old samples by an entropy [paper]. With d_ik the distance of an L2-normalised feature from the
    mean of class k, v the variance of the distances from the own mean, and an entropy of at most log(C) / 2 [code];
    over all classes, and v of all together [ours]::

        p_i = softmax_k(-d_ik / v)        credible: -sum_k p_ik log p_ik <= log(C) / 2

    Args:
        features: (N, D) old features of all training images.
        pids: (N,) identities, any integers.

    Raises:
        ValueError: shapes that do not fit, or features that are not finite.

    Example:
        >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.1, 1.0], [1.0, 1.0]])
        >>> certain_mask(features, torch.tensor([7, 7, 7, 8, 8, 8]))
        tensor([ True,  True, False,  True,  True, False])
    """
    check_shapes("features (N, D) and pids (N,)", features, pids)
    check_finite(features.detach())
    present, label, counts = pids.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(present), features.shape[1], dtype=torch.float64, device=features.device)
    for part in torch.arange(len(pids), device=pids.device).split(ROWS):
        add_by_class(means, label[part], _unit(features[part]))
    means /= counts[:, None]
    parts = [slice(start, start + ROWS) for start in range(0, len(pids), ROWS)]
    own = torch.cat([(_unit(features[part]) - means[label[part]]).norm(dim=1) for part in parts])
    variance = own.var(correction=0).clamp(min=torch.finfo(torch.float64).eps)
    entropy = [
        torch.special.entr((-torch.cdist(_unit(features[part]), means) / variance).softmax(dim=1)).sum(dim=1)
        for part in parts
    ]
    return torch.cat(entropy) <= math.log(len(present)) / 2


def _unit(features: Tensor) -> Tensor:
    return l2_normalize(features.detach().double())


@register_loss("nccl")
class NCCLLoss(CompatibleLoss):
    """Module form of :func:`nccl_loss`; holds the queue, which a checkpoint keeps.

    Each training batch is compared with its own old features and the queue, then its old features enter the queue and
    the oldest leave. In evaluation mode the queue stands still.

    Args:
        dim: D.
        queue_size: Q, old features in the queue.
        tau: temperature, in cosine.
        logit_weight: weight of the term on class logits, from 0, without it; 0.01 in public code.
        credible: old features to compare with: all, or those with a certain class among the old (entropy).
    """

    ranges = _RANGES
    queue: Tensor
    queue_pids: Tensor
    seen: Tensor

    def __init__(
        self,
        dim: int,
        queue_size: int = 8192,
        tau: float = 0.05,
        logit_weight: float = 0.0,
        credible: Credible = "all",
    ) -> None:
        super().__init__()
        self.check_settings(dim=dim, queue_size=queue_size, tau=tau, logit_weight=logit_weight)
        if credible not in get_args(Credible):
            raise ValueError(f"credible is {credible!r}; it is one of {', '.join(get_args(Credible))}")
        self.tau, self.logit_weight, self.credible = tau, logit_weight, credible
        self.certain: Tensor | None = None
        needs = {"classifier": logit_weight > 0, "image_ids": credible == "entropy"}
        self.needs = tuple(name for name, needed in needs.items() if needed)
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("queue_pids", torch.zeros(queue_size, dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def set_gallery(self, gallery: Tensor, gallery_pids: Tensor) -> None:
        """Empties the queue, whose identities are others now, and finds the credible old features."""
        self.seen.zero_()
        if self.credible == "entropy":
            self.certain = certain_mask(gallery, gallery_pids)

    def remark(self) -> str:
        """Says how much of the queue is filled, until it is full."""
        filled, size = min(int(self.seen), len(self.queue)), len(self.queue)
        if filled == size:
            return ""
        return f"the queue has {filled} of {size} old features; the term rises until it is full"

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, **given: Tensor) -> Tensor:
        """Returns :func:`nccl_loss` of the credible part of a batch; in training its old features enter the queue."""
        check_dimensions(new, self.queue)
        if self.certain is not None:
            kept = self.certain.to(pids.device)[given["image_ids"]]
            if not kept.any():
                return (at_least_float32(new) * 0.0).sum()
            new, old, pids = new[kept], old[kept], pids[kept]
        filled = min(int(self.seen), len(self.queue))
        value = nccl_loss(
            new, old, pids, self.queue[:filled], self.queue_pids[:filled], self.tau,
            classifier=given.get("classifier"), logit_weight=self.logit_weight,
        )  # fmt: skip
        if self.training:
            size = len(self.queue)
            entering = l2_normalize(old)[-size:]
            places = (self.seen + torch.arange(len(entering), device=self.seen.device)) % size
            self.queue[places] = entering.to(self.queue)
            self.queue_pids[places] = pids[-size:].to(self.queue_pids)
            self.seen += len(entering)
        return value
