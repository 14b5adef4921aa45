"""How far an identity reaches in the old space, and what a new feature outside of it costs."""

import torch
from torch import Tensor

from ..runtime.ranges import Range, check_numbers
from .class_sums import add_by_class
from .compatible import check_dimensions, check_finite, check_shapes, l2_normalize

ELASTICITY = {"elasticity": Range(0, 1, usual="from the mean distance to the mean to the farthest")}


def old_radii(
    gallery: Tensor, gallery_pids: Tensor, class_means: Tensor, pids: Tensor, elasticity: float = 1.0
) -> Tensor:
    r"""Distance from its mean within which the old features of an identity lie [ours].

    Radii (B,), float32 or float64; infinite for an identity without old features. With d = 1 - cos to the mean old
    feature of the identity, over its old features::

        r_y = mean d + elasticity * (max d - mean d)

    Args:
        gallery: (G, D) old features; those of the wanted identities alone are touched.
        gallery_pids: (G,) identities.
        class_means: (C, D), a row of NaN for an identity without old features.
        pids: (B,) the identities wanted, rows of ``class_means``.
        elasticity: from 0, the mean distance, to 1, the farthest.

    Raises:
        ValueError: shapes that do not fit, old features that are not finite, or ``elasticity`` out of its range.

    Example:
        >>> gallery, pids = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 0])
        >>> old_radii(gallery, pids, torch.tensor([[1.0, 0.0]]), pids[:1], elasticity=0.5)
        tensor([0.3000])
    """
    check_numbers(ELASTICITY, elasticity=elasticity)
    check_shapes("gallery (G, D) and gallery_pids (G,)", gallery, gallery_pids)
    check_dimensions(class_means, gallery)
    present, place = pids.unique(return_inverse=True)
    wanted = torch.isin(gallery_pids, present.to(gallery_pids))
    features, label = gallery[wanted].detach(), torch.searchsorted(present, gallery_pids[wanted].to(present))
    check_finite(features, "gallery")
    with torch.autocast(gallery.device.type, enabled=False):
        centres = l2_normalize(class_means.detach(), features)[present[label]]
        distance = 1 - (l2_normalize(features) * centres).sum(dim=1)
        largest = distance.new_full((len(present),), -torch.inf).scatter_reduce(0, label, distance, "amax")
        mean = torch.zeros_like(largest)
        add_by_class(mean, label, distance)
        mean /= label.bincount(minlength=len(present))
        return (mean + elasticity * (largest - mean)).nan_to_num(nan=torch.inf)[place]


def boundary_loss(new: Tensor, pids: Tensor, class_means: Tensor, radii: Tensor) -> Tensor:
    r"""Mean distance by which new features leave the old boundary of their identity [ours].

    ::

        L = mean_i max(1 - cos(f_i, c_{y_i}) - r_{y_i}, 0)

    Images of an identity without old features are left out; when all are, the loss is zero. A scalar, computed in
    float32 (float64 stays) outside autocast.

    Args:
        new: (B, D) features of the new model.
        pids: (B,) identities, rows of ``class_means``.
        class_means: (C, D) mean old features; no gradient flows into them.
        radii: (B,) as :func:`old_radii` gives them.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> boundary_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.eye(2), torch.tensor([0.3]))
        tensor(0.7000)
    """
    check_shapes("new features (B, D), pids (B,) and radii (B,)", new, pids, radii)
    check_dimensions(new, class_means)
    with torch.autocast(new.device.type, enabled=False):
        centres = class_means.detach()[pids]
        counted = centres.isfinite().all(dim=1) & radii.isfinite()
        centres = l2_normalize(centres.masked_fill(~counted[:, None], 0.0), new)
        beyond = 1 - (l2_normalize(new) * centres).sum(dim=1) - radii.masked_fill(~counted, 2.0).to(centres)
        return beyond.clamp(min=0).masked_fill(~counted, 0.0).sum() / counted.sum().clamp(min=1)
