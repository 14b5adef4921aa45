"""Margin softmax as a network's own objective."""

from typing import Any

import torch
from torch import Tensor, nn

from ..losses import margin_softmax_loss
from ..losses.margin_softmax import MARGIN
from ..runtime.ranges import check_numbers
from .objectives import Objective, Terms
from .outputs import Outputs


class MarginSoftmaxObjective(Objective):
    """ArcFace on the descriptor, with its own class weights; the model's classifier is not used.

    Deng et al., arXiv 1801.07698 [paper]; scale 30 and margin 0.3 for re-ID [ours].

    Args:
        num_classes: C.
        dim: of the descriptor.
        scale: s, above 0.
        margin: m, in radians.

    Raises:
        ValueError: settings out of their range.
    """

    model_loss = "triplet"

    def __init__(self, num_classes: int, dim: int, scale: float = 30.0, margin: float = 0.3) -> None:
        super().__init__()
        check_numbers(MARGIN, scale=scale, margin=margin)
        self.scale, self.margin = scale, margin
        self.classes = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.normal_(self.classes, std=0.01)

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the term ``loss_x``."""
        features = torch.cat(outputs.features, dim=1)
        return {"loss_x": margin_softmax_loss(features, self.classes, pids, self.scale, self.margin)}
