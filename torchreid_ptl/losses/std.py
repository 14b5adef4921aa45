"""Student-Teacher Distillation (STD)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.ranges import Range, check_numbers
from .compatible import at_least_float32, check_shapes

STD = {
    "lambda_": Range(0, 1, usual="from the plain training to one without labels; 0.8 in the paper"),
    "label_smoothing": Range(0, 1),
}


def std_loss(
    logits: Tensor | None,
    features: Tensor | None,
    teacher_features: Tensor | None,
    targets: Tensor | None,
    lambda_: float = 0.8,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Cross-entropy of the student, and its feature's distance to the teacher's.

    Progressive Transfer Learning, arXiv 1908.02492, Eq. 4 [paper]; the scalar, with the distance of
    :func:`feature_distance`, is::

        L = (1 - lambda) CE(logits, y) + lambda L1(f_student, f_teacher)

    A term of weight zero is not computed, and what it alone needs may be None: with ``lambda_`` 0 this is the plain
    cross-entropy, bit by bit, and needs no teacher; with 1 it needs no label.

    Args:
        logits: (N, C) of the student.
        features: (N, D) of the student.
        teacher_features: (N, D); no gradient flows into them.
        targets: (N,) identities from 0 to C - 1.
        lambda_: weight of the distillation, from 0 to 1; 0.8 in the paper.
        label_smoothing: of the cross-entropy; the paper names none.

    Raises:
        ValueError: ``lambda_`` outside [0, 1], shapes that do not fit, or None where a tensor is needed.

    Example:
        >>> f = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> std_loss(torch.zeros(2, 4), f, f + 0.5, torch.tensor([0, 3]), lambda_=1.0)
        tensor(0.5000)
    """
    check_numbers(STD, lambda_=lambda_, label_smoothing=label_smoothing)
    total = []
    if lambda_ < 1:
        if logits is None or targets is None:
            raise ValueError(f"logits and targets are needed with lambda {lambda_}; only lambda 1 does without")
        check_shapes("logits (N, C) and targets (N,)", logits, targets)
        with torch.autocast(logits.device.type, enabled=False):
            plain = F.cross_entropy(at_least_float32(logits), targets, label_smoothing=label_smoothing)
        total.append((1 - lambda_) * plain)
    if lambda_ > 0:
        if features is None or teacher_features is None:
            raise ValueError(f"Features of student and teacher are needed with lambda {lambda_}")
        total.append(lambda_ * feature_distance(features, teacher_features))
    return torch.stack(total).sum()


def feature_distance(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean absolute difference over the batch and the dimensions [ours: the paper says L1 and no more].

    A scalar in the unit of the features (N, D), in float32 (float64 stays), outside autocast; no gradient flows into
    the teacher's. A ValueError gives both shapes.
    """
    if features.dim() != 2 or features.shape != teacher_features.shape:
        raise ValueError(
            f"Features of student {tuple(features.shape)} and teacher {tuple(teacher_features.shape)} must have one "
            "shape (N, D); project the student's where the dimensions differ"
        )
    with torch.autocast(features.device.type, enabled=False):
        return (at_least_float32(features) - at_least_float32(teacher_features.detach())).abs().mean()


class STDLoss(nn.Module):
    """Module form of :func:`std_loss`, with its ``lambda_`` and its ``label_smoothing``."""

    def __init__(self, lambda_: float = 0.8, label_smoothing: float = 0.0) -> None:
        super().__init__()
        check_numbers(STD, lambda_=lambda_, label_smoothing=label_smoothing)
        self.lambda_, self.label_smoothing = lambda_, label_smoothing

    def forward(
        self, logits: Tensor | None, features: Tensor | None, teacher_features: Tensor | None, targets: Tensor | None
    ) -> Tensor:
        """Returns the loss of logits (N, C), features (N, D), the teacher's features (N, D) and identities (N,)."""
        return std_loss(logits, features, teacher_features, targets, self.lambda_, label_smoothing=self.label_smoothing)
