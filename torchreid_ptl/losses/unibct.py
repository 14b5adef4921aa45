"""UniBCT: backward-compatible training with prototypes that the new features refine."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Open, Range, check_numbers
from .bct import SCALE, bct_loss
from .compatible import CompatibleLoss, check_batch, l2_normalize
from .registry import register_loss

_RANGES = {
    "lambda_": Range(0, Open(1), usual="0.9 in the paper"),
    "tau": Range(1e-8, 100, usual="0.05 in the paper"),
    **SCALE,
}


def refine_prototypes(
    new: Tensor, old: Tensor, pids: Tensor, class_means: Tensor, lambda_: float = 0.9, tau: float = 0.05
) -> Tensor:
    r"""Mean old features in which the images of the batch count by how well they agree in the new space.

    Zhang et al., Towards Universal Backward-Compatible Representation Learning, IJCAI 2022: prototypes refined by
    propagation over the new features, lambda and tau [paper]; all else [ours]. Between the images of one identity in
    the batch, A_ij is the softmax over j != i of cos(f_i, f_j) / tau, an image alone keeps its own old feature, and::

        O' = (1 - lambda) (I - lambda A)^-1 O        prototype of y = mean of O'_i over its images in the batch

    As published A has columns that sum to 1, 1' (I - lambda A)^-1 = 1' / (1 - lambda), and the prototype is
    provably the plain mean of O; the rows of A sum to 1 here [ours].

    Identities that are not in the batch keep their mean old feature. The prototypes (C, D) have norm 1, in float32 or
    float64. Nothing here has a gradient.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images.
        pids: (B,) identities, rows of ``class_means``.
        class_means: (C, D), a row of NaN for an identity without old features.
        lambda_: share of the neighbours, from 0, below 1.
        tau: temperature, in cosine.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or settings out of their range.

    Example:
        >>> old, pids = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> refine_prototypes(torch.eye(2), old, pids, torch.tensor([[0.0, 1.0], [0.0, 2.0]]))
        tensor([[0.7071, 0.7071],
                [0.0000, 1.0000]])
    """
    check_numbers(_RANGES, lambda_=lambda_, tau=tau)
    check_batch(new, old, pids)
    with torch.no_grad(), torch.autocast(new.device.type, enabled=False):
        points, targets = l2_normalize(new), l2_normalize(old, new)
        itself = torch.eye(len(pids), dtype=torch.bool, device=pids.device)
        same = pids[:, None] == pids[None, :]
        linked = torch.where(same.sum(dim=1, keepdim=True) > 1, same & ~itself, itself)
        share = (points @ points.T / tau).masked_fill(~linked, -torch.inf).softmax(dim=1)
        spread = torch.linalg.solve(itself.to(share) - lambda_ * share, (1 - lambda_) * targets)
        present, place = pids.unique(return_inverse=True)
        prototypes = l2_normalize(class_means, new)
        prototypes[present] = l2_normalize(F.one_hot(place, len(present)).T.to(spread) @ spread)
        return prototypes


def unibct_loss(
    new: Tensor,
    old: Tensor,
    pids: Tensor,
    class_means: Tensor,
    lambda_: float = 0.9,
    tau: float = 0.05,
    scale: float = 16.0,
) -> Tensor:
    r"""Cross-entropy of the new features under refined prototypes.

    :func:`.bct.bct_loss`, its scalar and its ``scale``, with the prototypes, arguments and errors of
    :func:`refine_prototypes` in place of the old classifier, which is not needed.

    Example:
        >>> unibct_loss(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), torch.ones(2, 2), scale=2.0)
        tensor(0.1269)
    """
    return bct_loss(new, refine_prototypes(new, old, pids, class_means, lambda_, tau), pids, scale)


@register_loss("unibct")
class UniBCTLoss(CompatibleLoss):
    """Module form of :func:`unibct_loss`.

    Args:
        lambda_: share of the neighbours in the refinement, from 0, below 1.
        tau: temperature of the refinement, in cosine.
        scale: of the cosines.
    """

    needs = ("class_means",)
    ranges = _RANGES

    def __init__(self, lambda_: float = 0.9, tau: float = 0.05, scale: float = 16.0) -> None:
        super().__init__()
        self.check_settings(lambda_=lambda_, tau=tau, scale=scale)
        self.lambda_, self.tau, self.scale = lambda_, tau, scale

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, class_means: Tensor) -> Tensor:
        """Returns :func:`unibct_loss` of the batch."""
        return unibct_loss(new, old, pids, class_means, self.lambda_, self.tau, self.scale)
