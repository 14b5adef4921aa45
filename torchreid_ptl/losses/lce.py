"""Learning compatible embeddings (LCE)."""

import torch
from torch import Tensor

from ..runtime.ranges import Range, check_numbers
from .boundary import boundary_loss, old_radii
from .compatible import CompatibleLoss, l2_normalize
from .registry import register_loss

_RANGES = {"align_weight": Range(0, 1_000_000, usual="100 in the paper")}


def lce_loss(
    new: Tensor, pids: Tensor, classifier: Tensor, class_means: Tensor, radii: Tensor, align_weight: float = 100.0
) -> Tensor:
    r"""Holds the new classifier at the old class means, and new features inside the old class boundaries.

    Meng et al., Learning Compatible Embeddings, ICCV 2021: alignment of the weights with c_y and a hinge at the
    old boundary [paper]; the weight of 100 and the squared difference [code]; the hinge by cosine [ours]::

        L = align_weight * mean_{y, d} (W^_yd - c^_yd)^2 + mean_i max(1 - cos(f_i, c_{y_i}) - r_{y_i}, 0)

    with hats for L2-normalised rows, the mean over identities with old features and over dimensions. Without any the
    loss is zero. A scalar, computed in float32 (float64 stays) outside autocast.

    Args:
        new: (B, D) features of the new model.
        pids: (B,) identities from 0 to C - 1.
        classifier: (C, D) weights of the new model's classifier, with gradient.
        class_means: (C, D), a row of NaN for an identity without old features; no gradient flows into them.
        radii: (B,) of :func:`.boundary.old_radii`.
        align_weight: of the alignment, from 0.

    Raises:
        ValueError: shapes that do not fit, or ``align_weight`` below 0.

    Example:
        >>> eye, pids = torch.eye(2), torch.tensor([0, 1])
        >>> lce_loss(eye, pids, eye.flip(0), eye, torch.zeros(2), align_weight=1.0)
        tensor(1.)
    """
    check_numbers(_RANGES, align_weight=align_weight)
    if classifier.shape != class_means.shape:
        raise ValueError(
            f"Expected classifier and class_means of one shape (C, D); got {tuple(classifier.shape)} and "
            f"{tuple(class_means.shape)}: the new model's classifier must act on features of the old dimension"
        )
    with torch.autocast(new.device.type, enabled=False):
        known = class_means.isfinite().all(dim=1, keepdim=True)
        means = l2_normalize(class_means.detach().masked_fill(~known, 0.0), classifier)
        squared = (l2_normalize(classifier) - means).square().masked_fill(~known, 0.0)
        aligned = squared.sum() / (known.sum() * means.shape[1]).clamp(min=1)
        return align_weight * aligned + boundary_loss(new, pids, class_means, radii)


@register_loss("lce")
class LCELoss(CompatibleLoss):
    """Module form of :func:`lce_loss`; the boundary is the farthest old feature of an identity [code].

    Args:
        align_weight: weight of aligning the classifier with class means, from 0.
    """

    needs = ("classifier", "class_means", "gallery", "gallery_pids")
    ranges = _RANGES

    def __init__(self, align_weight: float = 100.0) -> None:
        super().__init__()
        self.check_settings(align_weight=align_weight)
        self.align_weight = align_weight

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, **given: Tensor) -> Tensor:
        """Returns :func:`lce_loss` of the batch."""
        means = given["class_means"]
        radii = old_radii(given["gallery"], given["gallery_pids"], means, pids)
        return lce_loss(new, pids, given["classifier"], means, radii, self.align_weight)
