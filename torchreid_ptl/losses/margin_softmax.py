"""Softmax with an additive angular margin (ArcFace)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Open, Range, check_numbers
from .compatible import check_shapes, l2_normalize

MARGIN = {
    "scale": Range(Open(0), 10_000, usual="64 for faces, about 30 for re-ID"),
    "margin": Range(0, math.pi, usual="an angle; 0.5 for faces, about 0.3 for re-ID"),
}


def margin_softmax_loss(
    features: Tensor, weight: Tensor, targets: Tensor, scale: float = 64.0, margin: float = 0.5
) -> Tensor:
    r"""Cross-entropy of scaled cosines, the angle to the own class enlarged by a margin.

    Deng et al., ArcFace, arXiv 1801.07698, Eq. 3 [paper], easy margin off [code]. With theta the angle between feature
    and weight of a class::

        L = mean CE(s * psi, y)        psi_y = cos(theta_y + m), psi_j = cos(theta_j)

    and cos(theta_y) - m sin(m) in place of cos(theta_y + m) where theta_y + m passes pi. The cosine of the sum is
    cos(theta) cos(m) - sin(theta) sin(m), without an arc cosine, whose slope has no bound [ours]; a feature parallel to
    the weight of its class counts sin(theta) as a constant. A scalar, computed in float32 (float64 stays) outside
    autocast.

    Args:
        features: (N, D), of any length.
        weight: (C, D), of any length.
        targets: (N,) classes from 0 to C - 1.
        scale: s, above 0.
        margin: m, in radians, from 0 to pi.

    Raises:
        ValueError: shapes that do not fit, or settings out of their range.

    Example:
        >>> margin_softmax_loss(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), scale=4.0, margin=0.5)
        tensor(0.0295)
    """
    check_numbers(MARGIN, scale=scale, margin=margin)
    check_shapes("features (N, D), weight (C, D) and targets (N,)", features, weight, targets)
    with torch.autocast(features.device.type, enabled=False):
        cosine = l2_normalize(features) @ l2_normalize(weight, features).T
        own = cosine.gather(1, targets[:, None])
        sine = (1 - own.square()).clamp(min=torch.finfo(own.dtype).eps).sqrt()
        inside = own * math.cos(margin) - sine * math.sin(margin)
        enlarged = torch.where(own > -math.cos(margin), inside, own - margin * math.sin(margin))
        return F.cross_entropy(scale * cosine.scatter(1, targets[:, None], enlarged), targets)
