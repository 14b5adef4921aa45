"""AdvBCT: a discriminator between old and new features, and an elastic boundary."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.ranges import Range, check_numbers
from .boundary import ELASTICITY, boundary_loss, old_radii
from .compatible import CompatibleLoss, check_batch, l2_normalize
from .registry import register_loss

Boundary = Literal["fixed", "learned"]
_RANGES = {
    "hidden": Range(1, 65536, whole=True, usual="256 by default"),
    **ELASTICITY,
    "reversal": Range(0, 1_000_000, usual="1 by default"),
    "boundary_weight": Range(0, 1_000_000, usual="1 by default"),
    "limit": Range(0, 2, usual="1 minus a cosine; 0.5 in the authors' code"),
    "dim": Range(1, whole=True),
    "num_classes": Range(0, whole=True),
}


def adversarial_loss(
    new: Tensor, old: Tensor, discriminator: Callable[[Tensor], Tensor], reversal: float = 1.0
) -> Tensor:
    r"""Cross-entropy of telling old from new features, which the new features make as large as they can.

    Pan et al., Boundary-Aware Backward-Compatible Representation via Adversarial Learning in Image Retrieval, CVPR
    2023: a discriminator that the new model works against [paper], by a reversed gradient [code]. With p
    the discriminator's probability that a feature is old, features L2-normalised::

        L = - mean( log(1 - p(f_i)), log p(o_i) )

    The discriminator descends on L, the new features ascend, by ``reversal`` times the gradient. A scalar, computed in
    float32 (float64 stays) outside autocast.

    Args:
        new: (B, D) features of the new model.
        old: (B, D) features of the old model; no gradient flows into them.
        discriminator: maps (2B, D) to logits (2B,).
        reversal: factor of the gradient that reaches the new features, from 0.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or ``reversal`` out of its range.

    Example:
        >>> adversarial_loss(torch.eye(2), torch.eye(2), lambda x: x.sum(dim=1))
        tensor(0.8133)
    """
    check_numbers(_RANGES, reversal=reversal)
    check_batch(new, old)
    with torch.autocast(new.device.type, enabled=False):
        points = l2_normalize(new)
        if points.requires_grad:
            points.register_hook(lambda gradient: -reversal * gradient)
        logits = discriminator(torch.cat([points, l2_normalize(old.detach(), new)]))
        is_old = torch.arange(len(logits), device=logits.device) >= len(new)
        return F.binary_cross_entropy_with_logits(logits, is_old.to(logits))


def elastic_radii(radii: Tensor, share: Tensor, limit: float) -> Tensor:
    """Radii (B,) moved towards ``limit`` by the sigmoid of a learned share (B,), AdvBCT [code]; infinite ones stay.

    Example:
        >>> elastic_radii(torch.tensor([0.1, 0.7]), torch.zeros(2), limit=0.5)
        tensor([0.3000, 0.6000])
    """
    finite = radii.masked_fill(~radii.isfinite(), limit)
    moved = finite + (limit - finite) * share.to(radii).sigmoid()
    return torch.where(radii.isfinite(), moved, radii)


class Discriminator(nn.Module):
    """Tells old from new features (N, dim): one hidden layer with ReLU [code]."""

    def __init__(self, dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(dim, hidden), nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (N, D) to logits (N,), large for old ones."""
        return self.output(self.hidden(features.to(self.hidden.weight.dtype)).relu()).squeeze(1)


@register_loss("advbct")
class AdvBCTLoss(CompatibleLoss):
    """:func:`adversarial_loss`, and a hinge where new features leave the elastic boundary of their identity.

    A fixed boundary lies between the mean and the largest distance of an identity's old features from their mean,
    :func:`.boundary.old_radii` [ours]. A learned one lies between the largest distance r and a limit T [code], at
    ``r + (T - r) sigmoid(e)`` with a parameter e for each identity, begun in (-1, 1); T = 0.5 is a Euclidean distance
    of 1. All parameters belong into the optimiser.

    Args:
        dim: D.
        hidden: width of the discriminator.
        elasticity: of the boundary: from 0, the mean old distance, to 1, the farthest.
        reversal: factor of the reversed gradient.
        boundary_weight: weight of the hinge at the boundary.
        boundary: fixed, by the elasticity, or learned, for each identity.
        limit: T of a learned boundary, 1 minus a cosine, from 0 to 2.
        num_classes: C, for a learned boundary.
    """

    needs = ("class_means", "gallery", "gallery_pids")
    ranges = _RANGES
    share: Tensor | None

    def __init__(
        self,
        dim: int,
        hidden: int = 256,
        elasticity: float = 0.5,
        reversal: float = 1.0,
        boundary_weight: float = 1.0,
        boundary: Boundary = "fixed",
        limit: float = 0.5,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.check_settings(
            dim=dim, hidden=hidden, elasticity=elasticity, reversal=reversal, boundary_weight=boundary_weight,
            limit=limit, num_classes=num_classes,
        )  # fmt: skip
        _check_boundary(boundary, num_classes)
        self.elasticity, self.reversal, self.boundary_weight = elasticity, reversal, boundary_weight
        self.discriminator = Discriminator(dim, hidden)
        self.limit = limit
        share = nn.Parameter(torch.empty(num_classes).uniform_(-1, 1)) if boundary == "learned" else None
        self.register_parameter("share", share)

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, **given: Tensor) -> Tensor:
        """Returns the two terms' sum for the batch."""
        means = given["class_means"]
        elasticity = self.elasticity if self.share is None else 1.0
        radii = old_radii(given["gallery"], given["gallery_pids"], means, pids, elasticity)
        if self.share is not None:
            radii = elastic_radii(radii, self.share[pids], self.limit)
        outside = boundary_loss(new, pids, means, radii)
        return adversarial_loss(new, old, self.discriminator, self.reversal) + self.boundary_weight * outside


def _check_boundary(boundary: str, num_classes: int) -> None:
    if boundary not in get_args(Boundary):
        raise ValueError(f"boundary is {boundary!r}; it is one of {', '.join(get_args(Boundary))}")
    if boundary == "learned" and num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; a learned boundary needs the number of training identities")
