"""Objectives: named, weighted terms from the outputs of a batch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses import batch_hard_triplet_loss
from ..losses.triplet import MARGIN
from ..runtime.ranges import Range, check_numbers
from .outputs import Outputs

Terms = dict[str, Tensor]
_TRIPLET = {**MARGIN, **dict.fromkeys(("weight_t", "weight_x"), Range(0, 1_000_000))}


class Objective(nn.Module):
    """Base of all objectives.

    A module, so that parameters of a criterion reach the optimiser and the checkpoint.

    Attributes:
        model_loss: the ``loss`` a model must be built with: ``'softmax'`` for logits, ``'triplet'`` for features too.
        relabels: whether :meth:`begin_epoch` gives the training images other identities.
    """

    model_loss = "softmax"
    relabels = False

    def begin_epoch(self, engine: Any) -> None:
        """Prepares an epoch, for objectives that use the training set; does nothing here.

        The engine calls it with the model in training mode and before the states of the cells are cleared; the loader
        of the epoch is ``engine.datamanager.train_loader`` afterwards.

        Args:
            engine: an ``ImagePTLEngine``, whose ``epoch`` counts from 0.
        """

    def reference(self, images: Tensor, batch: Mapping[str, Any]) -> Any:
        """Features of a batch by a frozen model, for objectives that compare with one; called before each step.

        Args:
            images: (N, 3, H, W), on the device.
            batch: the rest of the loader's batch, paths for example.

        Returns:
            The argument ``reference`` of :meth:`forward`: features (N, D) without gradient, for example; or None.
        """
        return None

    def fingerprint(self) -> str:
        """Identifies the frozen model of a run; empty without one."""
        return ""

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Maps a batch to weighted terms; the engine minimises their sum.

        Args:
            outputs: of the model.
            pids: (N,) identities.
            reference: what :meth:`reference` returned.
        """
        raise NotImplementedError

    def accuracy(self, outputs: Outputs, pids: Tensor) -> Tensor:
        """Accuracy on a batch in percent; called before :meth:`forward`, which may change the objective.

        Args:
            outputs: of the model.
            pids: (N,) identities.
        """
        return accuracy(outputs, pids)


class SoftmaxObjective(Objective):
    """Cross-entropy over the identities, the mean over all classifiers as in the host.

    Args:
        label_smooth: whether to smooth the labels by 0.1, the host's default.
    """

    def __init__(self, label_smooth: bool = True) -> None:
        super().__init__()
        self.smoothing = 0.1 if label_smooth else 0.0

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the term ``loss_x``."""
        return {"loss_x": _cross_entropy(outputs.logits, pids, self.smoothing)}


class TripletObjective(Objective):
    """Batch-hard triplet loss and cross-entropy, weighted as in the host.

    Args:
        margin: of the triplet loss.
        weight_t: weight of the triplet loss.
        weight_x: weight of the cross-entropy; 0 as in the host's configuration (the default of the host's engine is 1).
        label_smooth: whether to smooth the labels by 0.1.

    Raises:
        ValueError: a margin or a weight out of its range, or both weights zero.
    """

    model_loss = "triplet"

    def __init__(
        self, margin: float = 0.3, weight_t: float = 1.0, weight_x: float = 0.0, label_smooth: bool = True
    ) -> None:
        super().__init__()
        check_numbers(_TRIPLET, margin=margin, weight_t=weight_t, weight_x=weight_x)
        if weight_t + weight_x == 0:
            raise ValueError("weight_t and weight_x are 0: both at least 0, one of them above")
        self.margin, self.weight_t, self.weight_x = margin, weight_t, weight_x
        self.smoothing = 0.1 if label_smooth else 0.0

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the terms ``loss_t`` and ``loss_x``, those whose weight is above zero."""
        terms = {}
        if self.weight_t > 0:
            losses = [batch_hard_triplet_loss(feature, pids, self.margin) for feature in outputs.features]
            terms["loss_t"] = self.weight_t * torch.stack(losses).mean()
        if self.weight_x > 0:
            terms["loss_x"] = self.weight_x * _cross_entropy(outputs.logits, pids, self.smoothing)
        return terms


class MGNObjective(TripletObjective):
    """MGN's objective [code]: triplet loss over the global parts plus cross-entropy over all parts.

    Margin 1.2 on features that are not normalised, no label smoothing, both terms with weight 1.

    Args:
        margin: of the triplet loss.
        label_smooth: whether to smooth the labels by 0.1.
    """

    def __init__(self, margin: float = 1.2, label_smooth: bool = False) -> None:
        super().__init__(margin, weight_x=1.0, label_smooth=label_smooth)


def accuracy(outputs: Outputs, pids: Tensor) -> Tensor:
    """Share of the batch, in percent, whose identity has the largest mean logit over all classifiers."""
    named = torch.stack([logits.detach().float() for logits in outputs.logits]).mean(dim=0).argmax(dim=1)
    return 100.0 * (named == pids).float().mean()


def _cross_entropy(logits: Sequence[Tensor], pids: Tensor, smoothing: float) -> Tensor:
    losses = [F.cross_entropy(item.float(), pids, label_smoothing=smoothing) for item in logits]
    return torch.stack(losses).mean()
