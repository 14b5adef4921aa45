"""The engine of backward-compatible training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data.old_features import OldFeatures
from ..evaluation import VersionComparison
from .compatible_objective import CompatibleObjective, Losses
from .engine import ImagePTLEngine
from .objectives import Objective, SoftmaxObjective
from .old import OldModel


class ImageCompatibleEngine(ImagePTLEngine):
    """:class:`ImagePTLEngine` that trains a new model whose queries find their matches among old features.

    Args:
        datamanager: ``torchreid.data.ImageDataManager`` or this package's.
        model: the new model, built with ``loss='triplet'`` so that it gives features.
        optimizer: over its parameters and those of the losses, if any.
        old: the old model or its features; this, ``losses`` and the keywords as for :meth:`CompatibleObjective.build`.
        losses: a compatible loss or its name, several of them, or a mapping of names.
        scheduler: learning-rate scheduler; None for a constant rate.
        use_gpu: use a GPU when there is one.
        weights: of the losses by name; those not named have the loss's own ``weight``.
        base: the new model's own objective, ``'softmax'`` for cross-entropy; None when a loss replaces it.
        label_smooth: whether to smooth the labels by 0.1, of ``'softmax'``.
        dimensions: where descriptors differ in dimension: ``'error'``, ``'truncate'`` or ``'pad'``.
        bank: a .npy file that keeps the old features, to be used again by other runs; None for none.
        old_classes: (C,) row of the old classifier for each training identity, -1 for an unknown one.
        **options: further arguments of :class:`ImagePTLEngine`.

    Attributes:
        comparison: of the new model with the old one, by target; known after :meth:`run`.

    Raises:
        ValueError: as :meth:`CompatibleObjective.build`.

    Example::

        old = torchreid.models.build_model('osnet_x0_25', pretrained=False)
        load_weights(old, 'log/old/model/model-best.pth.tar')
        new = torchreid.models.build_model('osnet_x0_25_ptl', datamanager.num_train_pids, loss='triplet')
        optimizer = torchreid.optim.build_optimizer(new)
        engine = torchreid.engine.ImageCompatibleEngine(datamanager, new, optimizer, old, ['rbcl', 'nccl'])
        engine.run(save_dir='log/new', max_epoch=50)
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        old: nn.Module | OldModel | OldFeatures,
        losses: Losses,
        scheduler: Any = None,
        use_gpu: bool = True,
        *,
        weights: Mapping[str, float] | None = None,
        base: Objective | str | None = "softmax",
        label_smooth: bool = True,
        dimensions: str = "error",
        bank: str | None = None,
        old_classes: Tensor | None = None,
        **options: Any,
    ) -> None:
        objective = CompatibleObjective.build(
            model,
            datamanager,
            old,
            losses,
            weights=weights,
            base=SoftmaxObjective(label_smooth) if base == "softmax" else base,
            dimensions=dimensions,
            bank=bank,
            old_classes=old_classes,
            channels_last=options.get("channels_last", False),
        )
        super().__init__(datamanager, model, optimizer, objective, scheduler, use_gpu, **options)
        self.comparison: dict[str, VersionComparison] = {}

    def run(self, *args: Any, **kwargs: Any) -> None:
        """As :meth:`ImagePTLEngine.run`; at the end the new model is compared with the old one, if that is given."""
        super().run(*args, **kwargs)
        objective: Any = self.objective
        if objective.old_model is not None:
            self.comparison = self.compare(objective.old_model, dimensions=objective.dimensions)
            print(*self.comparison.values(), sep="\n")
