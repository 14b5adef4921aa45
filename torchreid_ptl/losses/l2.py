"""Distance to the old feature, plain and weakened."""

import torch
from torch import Tensor

from ..runtime.ranges import Open, Range, check_numbers
from .compatible import CompatibleLoss, check_batch, l2_normalize
from .registry import register_loss

_RANGES = {"t": Range(0, Open(2), usual="the distance of features of norm 1 that costs nothing; 0 for none")}


def l2_loss(new: Tensor, old: Tensor, t: float = 0.0) -> Tensor:
    r"""Mean Euclidean distance between new and old feature of an image, as far as it exceeds ``t``.

    The baseline MixBCT compares with, arXiv 2308.06948 [paper]; features L2-normalised, t = 0 plain, t = 0.2 weakened::

        L = mean_i max(||f_i - o_i|| - t, 0)

    A scalar, computed in float32 (float64 stays) outside autocast. The gradient of a distance of zero is zero [ours].

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model, of the same images; no gradient flows into them.
        t: distance that costs nothing, from 0, below 2.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or ``t`` out of its range.

    Example:
        >>> l2_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]), t=0.2)
        tensor(0.4325)
    """
    check_numbers(_RANGES, t=t)
    check_batch(new, old)
    with torch.autocast(new.device.type, enabled=False):
        distance = torch.linalg.vector_norm(l2_normalize(new) - l2_normalize(old.detach()), dim=1)
        return (distance - t).clamp(min=0).mean()


@register_loss("l2")
class FeatureL2Loss(CompatibleLoss):
    """Module form of :func:`l2_loss`; weight 10 beside the new model's own loss [paper].

    Args:
        t: distance that costs nothing, from 0, below 2; 0.2 for the weakened form.
    """

    weight = 10.0
    ranges = _RANGES

    def __init__(self, t: float = 0.0) -> None:
        super().__init__()
        self.check_settings(t=t)
        self.t = t

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor) -> Tensor:
        """Returns :func:`l2_loss` of the batch; identities play no part."""
        return l2_loss(new, old, self.t)
