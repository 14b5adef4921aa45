"""Influence loss of backward-compatible training (BCT)."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.ranges import Open, Range, check_numbers
from .compatible import CompatibleLoss, at_least_float32, check_dimensions, check_shapes, l2_normalize
from .registry import register_loss

Prototypes = Literal["auto", "classifier", "means"]
SCALE = {"scale": Range(Open(0), 10_000, usual="about 16")}


def bct_loss(new: Tensor, prototypes: Tensor, targets: Tensor, scale: float | None = 16.0) -> Tensor:
    r"""Cross-entropy of the new features under the frozen classifier of the old model.

    Shen et al., Towards Backward-Compatible Representation Learning, CVPR 2020 [paper]; cosine logits with a scale, so
    that class means and weights of a classifier go together, and the scale's value [ours]::

        L = mean_i CE(scale * cos(f_i, w), y_i)

    With ``scale`` None the logits are plain inner products, what the old model's own linear layer gives. A prototype
    that is not finite is no class; samples whose class is unknown are left out, and when all are the loss is zero. A
    scalar, computed in float32 (float64 stays) outside autocast.

    Args:
        new: (B, D) features of the new model.
        prototypes: (K, D) weights of the old classifier, or mean old features; no gradient flows into them.
        targets: (B,) the row of each sample's identity in ``prototypes``, -1 for an unknown one.
        scale: of the cosines; None for inner products.

    Raises:
        ValueError: shapes that do not fit, or ``scale`` out of its range.

    Example:
        >>> bct_loss(torch.eye(2), torch.eye(2), torch.tensor([0, -1]), scale=2.0)
        tensor(0.1269)
    """
    check_scale(scale)
    check_dimensions(new, prototypes)
    check_shapes("new features (B, D), prototypes (K, D) and targets (B,)", new, prototypes, targets)
    known = prototypes.isfinite().all(dim=1)
    weights = prototypes.detach().masked_fill(~known[:, None], 0.0)
    with torch.autocast(new.device.type, enabled=False):
        space = at_least_float32 if scale is None else l2_normalize
        logits = (scale or 1.0) * space(new) @ space(weights, new).T
        logits = logits.masked_fill(~known, torch.finfo(logits.dtype).min)
        counted = (targets >= 0) & known[targets.clamp(min=0)]
        total = F.cross_entropy(logits, targets.where(counted, -100), ignore_index=-100, reduction="sum")
        return total / counted.sum().clamp(min=1)


def join_prototypes(old_classifier: Tensor, old_classes: Tensor, class_means: Tensor) -> tuple[Tensor, Tensor]:
    """The old classifier, with mean old features as further classes for the identities it lacks [paper].

    Gives prototypes (C_old + M, D), and (C,) the row of each training identity there, -1 for one that has none.

    Args:
        old_classifier: (C_old, D).
        old_classes: (C,) its row for each training identity, -1 for an unknown one.
        class_means: (C, D), a row of NaN for an identity without old features.

    Example:
        >>> join_prototypes(torch.eye(2), torch.tensor([1, -1]), torch.tensor([[9.0, 9.0], [1.0, 1.0]]))[1]
        tensor([1, 2])
    """
    lacking = (old_classes < 0) & class_means.isfinite().all(dim=1)
    further = lacking.cumsum(0) - 1 + len(old_classifier)
    dtype = at_least_float32(old_classifier).dtype
    prototypes = torch.cat([at_least_float32(old_classifier), class_means[lacking].to(dtype)])
    return prototypes, old_classes.where(~lacking, further.to(old_classes))


@register_loss("bct")
class BCTLoss(CompatibleLoss):
    """Module form of :func:`bct_loss`.

    Args:
        prototypes: old classifier with means for those it lacks, class means, or auto: it, if it knows all identities,
            else means, since the two together did worse than means alone.
        scale: of the cosines.
            None for the old classifier's plain logits, identities it lacks being left out.
    """

    ranges = SCALE

    def __init__(self, prototypes: Prototypes = "auto", scale: float | None = 16.0) -> None:
        super().__init__()
        check_scale(scale)
        if prototypes not in get_args(Prototypes):
            raise ValueError(f"prototypes is {prototypes!r}; it is one of {', '.join(get_args(Prototypes))}")
        if prototypes != "classifier" and scale is None:
            raise ValueError("Logits of class means are cosines and need a scale, about 16")
        self.prototypes, self.scale = prototypes, scale
        means = () if scale is None else ("class_means",)
        old = ("old_classifier", "old_classes")
        self.needs = (*old, *means) if prototypes == "classifier" else means
        self.accepts = old if prototypes == "auto" else ()

    def compute_loss(self, new: Tensor, old: Tensor, pids: Tensor, **given: Tensor) -> Tensor:
        """Returns :func:`bct_loss` of the batch; the old features of its images play no part."""
        classes = given.get("old_classes")
        complete = self.prototypes == "auto" and classes is not None and bool((classes >= 0).all())
        if self.prototypes != "classifier" and not complete:
            return bct_loss(new, given["class_means"], pids, self.scale)
        prototypes, rows = given["old_classifier"], given["old_classes"]
        if self.scale is not None:
            prototypes, rows = join_prototypes(prototypes, rows, given["class_means"])
        return bct_loss(new, prototypes, rows[pids], self.scale)


def check_scale(scale: float | None) -> None:
    """Makes sure that the scale of cosines lies above 0, or is None."""
    if scale is not None:
        check_numbers(SCALE, scale=scale)
