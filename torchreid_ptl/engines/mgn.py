"""The engine with MGN's objective."""

from typing import Any

import torch
from torch import nn

from .engine import ImagePTLEngine
from .objectives import MGNObjective


class ImageMGNEngine(ImagePTLEngine):
    """:class:`ImagePTLEngine` with MGN's objective and the signature of the host's engines.

    Args:
        datamanager: ``torchreid.data.ImageDataManager`` or this package's, with ``RandomIdentitySampler``.
        model: ``mgn``, ``mgn_ptl`` or ``mgn_ptl_v2`` built with ``loss='triplet'``.
        optimizer: over the model's parameters.
        margin: of the triplet loss.
        scheduler: learning-rate scheduler; None for a constant rate.
        use_gpu: use a GPU when there is one.
        label_smooth: whether to smooth the labels by 0.1; off in the authors' code.
        **options: further arguments of :class:`ImagePTLEngine`.
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        margin: float = 1.2,
        scheduler: Any = None,
        use_gpu: bool = True,
        label_smooth: bool = False,
        **options: Any,
    ) -> None:
        objective = MGNObjective(margin=margin, label_smooth=label_smooth)
        super().__init__(datamanager, model, optimizer, objective, scheduler, use_gpu, **options)
