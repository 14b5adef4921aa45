"""Contrastive losses of new features against old ones: plain and regression-alleviating (RACT)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Range, check_numbers
from .compatible import CompatibleLoss, check_batch, l2_normalize
from .registry import register_loss

_RANGES = {
    "tau": Range(1e-8, 100, usual="0.01 by default"),
    "negatives": Range(0, 1_000_000, whole=True, usual="0 for all"),
}


def contrastive_loss(new: Tensor, old: Tensor, pids: Tensor, tau: float = 0.01, negatives: int = 10) -> Tensor:
    r"""Each new feature picks the old feature of its image among those of other identities.

    The plain form of Zhang et al., Hot-Refresh Model Upgrades with Regression-Alleviating Compatible Training in Image
    Retrieval, ICLR 2022 [paper]; features L2-normalised::

        L = mean_i CE([f_i.o_i ; f_i.o_j for y_j != y_i] / tau, first)

    Of the negatives the hardest count. An image without a negative costs nothing [ours]. A scalar, computed in float32
    (float64 stays) outside autocast.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        pids: (B,) identities.
        tau: temperature, in cosine.
        negatives: number of hardest negatives of each image; 0 for all.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or settings out of their range.

    Example:
        >>> contrastive_loss(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), tau=1.0)
        tensor(0.3133)
    """
    return _against(new, old, pids, tau, negatives, with_new=False)


def ract_loss(new: Tensor, old: Tensor, pids: Tensor, tau: float = 0.01, negatives: int = 10) -> Tensor:
    r""":func:`contrastive_loss` with new features of other identities as further negatives; its arguments and errors.

    Zhang et al., ICLR 2022 [paper]: what makes retrieval regress while a gallery is refreshed are new negatives that
    lie nearer than the old positive::

        L = mean_i CE([f_i.o_i ; f_i.o_j ; f_i.f_j for y_j != y_i] / tau, first)

    The hardest are taken from both kinds together, and gradient flows into f_i and f_j alike [ours].

    Example:
        >>> ract_loss(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), tau=1.0)
        tensor(0.5514)
    """
    return _against(new, old, pids, tau, negatives, with_new=True)


@register_loss("contrastive")
class OldNewContrastiveLoss(CompatibleLoss):
    """Module form of :func:`contrastive_loss`.

    Args:
        tau: temperature, in cosine.
        negatives: number of hardest negatives of each image; 0 for all.
    """

    ranges = _RANGES
    with_new = False

    def __init__(self, tau: float = 0.01, negatives: int = 10) -> None:
        super().__init__()
        self.check_settings(tau=tau, negatives=negatives)
        self.tau, self.negatives = tau, negatives

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor) -> Tensor:
        """Returns the loss of the batch."""
        return _against(new, old, pids, self.tau, self.negatives, self.with_new)


@register_loss("ract")
class RACTLoss(OldNewContrastiveLoss):
    """Module form of :func:`ract_loss`, with the arguments of :class:`OldNewContrastiveLoss`."""

    with_new = True


def _against(new: Tensor, old: Tensor, pids: Tensor, tau: float, negatives: int, with_new: bool) -> Tensor:
    check_numbers(_RANGES, tau=tau, negatives=negatives)
    check_batch(new, old, pids)
    with torch.autocast(new.device.type, enabled=False):
        f, o = l2_normalize(new), l2_normalize(old.detach(), new)
        same = pids[:, None] == pids[None, :]
        lowest = torch.finfo(f.dtype).min
        kinds = [f @ o.T, f @ f.T] if with_new else [f @ o.T]
        against = torch.cat([(kind / tau).masked_fill(same, lowest) for kind in kinds], dim=1)
        hardest = against if negatives == 0 else against.topk(min(negatives, against.shape[1]), dim=1).values
        logits = torch.cat([(f * o).sum(dim=1, keepdim=True) / tau, hardest], dim=1)
        return F.cross_entropy(logits, torch.zeros_like(pids, dtype=torch.long))
