"""Batch-hard triplet loss."""

import torch
from torch import Tensor, nn

from ..runtime.ranges import Range, check_numbers
from .compatible import at_least_float32, check_shapes

MARGIN = {"margin": Range(0, 1_000_000, usual="in the features' unit")}


def batch_hard_triplet_loss(features: Tensor, pids: Tensor, margin: float = 0.3) -> Tensor:
    r"""Mean hinge between each sample's farthest positive and nearest negative.

    Hermans et al., In Defense of the Triplet Loss, arXiv 1703.07737, Eq. 5 [paper]; Euclidean distances, features as
    they come, each sample a positive of itself as in the host::

        L = mean_a max(0, margin + max_{p: y_p = y_a} d(a, p) - min_{n: y_n != y_a} d(a, n))

    A scalar, computed in float32 (float64 stays) outside autocast. Samples whose identity is the only one in the batch
    have no negative and are left out; when none is left the loss is zero [ours].

    Args:
        features: (N, D), any float dtype.
        pids: (N,) integer identities.
        margin: in the features' unit.

    Raises:
        ValueError: shapes that do not fit, or a margin out of its range.

    Example:
        >>> batch_hard_triplet_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]))
        tensor(0.3000)
    """
    check_numbers(MARGIN, margin=margin)
    check_shapes("features (N, D) and pids (N,)", features, pids)
    with torch.autocast(features.device.type, enabled=False):
        x = at_least_float32(features)
        squared = x.pow(2).sum(dim=1)
        distance = (squared[:, None] + squared[None, :] - 2 * x @ x.T).clamp(min=1e-12).sqrt()
        same = pids[:, None] == pids[None, :]
        farthest = distance.masked_fill(~same, 0.0).amax(dim=1)
        nearest = distance.masked_fill(same, torch.finfo(distance.dtype).max).amin(dim=1)
        counted = (~same).any(dim=1)
        hinge = torch.where(counted, (margin + farthest - nearest).clamp(min=0), 0.0)
        return hinge.sum() / counted.sum().clamp(min=1)


class BatchHardTripletLoss(nn.Module):
    """Module form of :func:`batch_hard_triplet_loss`."""

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        check_numbers(MARGIN, margin=margin)
        self.margin = margin

    def forward(self, features: Tensor, pids: Tensor) -> Tensor:
        """Returns the loss of features (N, D) with identities (N,)."""
        return batch_hard_triplet_loss(features, pids, self.margin)
