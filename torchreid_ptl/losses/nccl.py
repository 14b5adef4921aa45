"""Neighbourhood consensus contrastive loss (NCCL)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .compatible import CompatibleLoss, check_batch, check_dimensions, check_shapes, check_temperature, l2_normalize
from .registry import register_loss


def nccl_loss(new: Tensor, old: Tensor, pids: Tensor, queue: Tensor, queue_pids: Tensor, tau: float = 0.05) -> Tensor:
    r"""Each new feature against many old ones, its positives weighted by what the old model thinks of them.

    Wu et al., Neighborhood Consensus Contrastive Learning for Backward-Compatible Representation, AAAI 2022: a queue of
    old features and the weights (1 + o_i.o_j) / 2 [paper]; where they enter, tau, and that the batch's own old features
    stand before the queue [ours]. Features L2-normalised, P_i and N_i the old features of the same and of other
    identities::

        L = mean_i sum_{j in P_i} w_ij l_ij / sum_{j in P_i} w_ij        w_ij = (1 + o_i.o_j) / 2
        l_ij = -log( e^{f_i.o_j / tau} / (e^{f_i.o_j / tau} + sum_{k in N_i} e^{f_i.o_k / tau}) )

    Without an old feature of another identity an image costs nothing. A scalar, computed in float32 (float64 stays)
    outside autocast.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        pids: (B,) identities.
        queue: (Q, D) further old features, Q from 0; no gradient flows into them.
        queue_pids: (Q,) identities.
        tau: temperature, in cosine.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or ``tau`` out of its range.

    Example:
        >>> nothing, pids = torch.zeros(0, 2), torch.tensor([0, 1])
        >>> nccl_loss(torch.eye(2), torch.eye(2), pids, nothing, torch.zeros(0), tau=1.0)
        tensor(0.3133)
    """
    check_temperature(tau, "0.05 by default")
    check_batch(new, old, pids)
    check_shapes("queue (Q, D) and queue_pids (Q,)", queue, queue_pids)
    check_dimensions(new, queue)
    with torch.autocast(new.device.type, enabled=False):
        f, o = l2_normalize(new), l2_normalize(old.detach(), new)
        bank = torch.cat([o, l2_normalize(queue.detach(), new)])
        same = pids[:, None] == torch.cat([pids, queue_pids.to(pids)])[None, :]
        logits = f @ bank.T / tau
        rivals = logits.masked_fill(same, torch.finfo(logits.dtype).min).logsumexp(dim=1, keepdim=True)
        weight = ((1 + o @ bank.T) / 2).clamp(min=0).masked_fill(~same, 0.0)
        return ((weight * F.softplus(rivals - logits)).sum(dim=1) / weight.sum(dim=1)).mean()


@register_loss("nccl")
class NCCLLoss(CompatibleLoss):
    """Module form of :func:`nccl_loss`; holds the queue, which a checkpoint keeps.

    Each training batch is compared with its own old features and the queue, then its old features enter the queue and
    the oldest leave. In evaluation mode the queue stands still.

    Args:
        dim: D.
        queue_size: Q, old features in the queue.
        tau: temperature, in cosine.
    """

    queue: Tensor
    queue_pids: Tensor
    seen: Tensor

    def __init__(self, dim: int, queue_size: int = 8192, tau: float = 0.05) -> None:
        super().__init__()
        check_temperature(tau, "0.05 by default")
        if queue_size < 1:
            raise ValueError(f"queue_size is {queue_size}; 1 or more, 8192 in the paper")
        self.tau = tau
        self.register_buffer("queue", torch.zeros(queue_size, dim))
        self.register_buffer("queue_pids", torch.zeros(queue_size, dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def set_gallery(self, gallery: Tensor, gallery_pids: Tensor) -> None:
        """Empties the queue, whose identities are others now."""
        self.seen.zero_()

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor) -> Tensor:
        """Returns :func:`nccl_loss` of the batch; in training its old features enter the queue."""
        check_dimensions(new, self.queue)
        filled = min(int(self.seen), len(self.queue))
        value = nccl_loss(new, old, pids, self.queue[:filled], self.queue_pids[:filled], self.tau)
        if self.training:
            size = len(self.queue)
            entering = l2_normalize(old)[-size:]
            places = (self.seen + torch.arange(len(entering), device=self.seen.device)) % size
            self.queue[places] = entering.to(self.queue)
            self.queue_pids[places] = pids[-size:].to(self.queue_pids)
            self.seen += len(entering)
        return value
