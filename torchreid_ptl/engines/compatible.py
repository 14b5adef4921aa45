"""The engine of backward-compatible training."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..data.old_features import OldFeatures
from ..losses.compatible import CompatibleLoss
from .compatible_objective import CompatibleObjective, agreed_weights, named_losses, require_classifier
from .engine import ImagePTLEngine
from .feature_objective import descriptor_dim
from .frozen import Preprocessing
from .objectives import Objective, SoftmaxObjective
from .old import OldModel, build_bank
from .old_gallery import OldGallery, compared_dim


class ImageCompatibleEngine(ImagePTLEngine):
    """:class:`ImagePTLEngine` that trains a new model whose queries find their matches among old features.

    Args:
        datamanager: ``torchreid.data.ImageDataManager`` or this package's.
        model: the new model, built with ``loss='triplet'`` so that it gives features.
        optimizer: over its parameters and those of the losses, where they have some.
        old: the old model: any of the host or the plugin with its weights, which sees images of the training's size;
            an :class:`OldModel`, for one with another size or normalisation; or an :class:`OldFeatures`.
        losses: the compatible losses by the names of their terms, or one of them.
        scheduler: learning-rate scheduler; None for a constant rate.
        use_gpu: use a GPU when there is one.
        weights: of the losses by name; those not named have the loss's own ``weight``.
        base: the new model's own objective; cross-entropy, smoothed as ``label_smooth`` says, if it is ``'softmax'``;
            None when a loss stands in its place.
        label_smooth: whether to smooth the labels by 0.1.
        dimensions: where descriptors differ in dimension: ``'error'``, ``'truncate'`` or ``'pad'``.
        bank: a .npy file that keeps the old features, to be used again by other runs; None for none.
        old_classes: (C,) row of the old classifier for each training identity, -1 for an unknown one; for losses that
            use the classifier of an :class:`OldModel`.
        **options: further arguments of :class:`ImagePTLEngine`.

    Raises:
        ValueError: a model without features, dimensions that differ, a loss that lacks what it needs, or a bank of
            something else.

    Example::

        old = torchreid.models.build_model('osnet_x0_25', pretrained=False)
        load_weights(old, 'log/old/model/model-best.pth.tar')
        new = torchreid.models.build_model('osnet_x0_25_ptl', datamanager.num_train_pids, loss='triplet')
        optimizer = torchreid.optim.build_optimizer(new)
        loss = torchreid.losses.RBCLLoss(gallery='full', dgr='lift')
        engine = torchreid.engine.ImageCompatibleEngine(datamanager, new, optimizer, old, loss, weights={'rbcl': 5.0})
        engine.run(save_dir='log/new', max_epoch=50)
    """

    def __init__(
        self,
        datamanager: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        old: nn.Module | OldModel | OldFeatures,
        losses: CompatibleLoss | Mapping[str, CompatibleLoss],
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
        style = Preprocessing.of(datamanager)
        device = "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
        if isinstance(old, nn.Module):
            old = OldModel(old, style, device, channels_last=options.get("channels_last", False))
        losses = named_losses(losses)
        if isinstance(base, str):
            base = named_base(base, label_smooth)
        agreed_weights(losses, weights, base)  # what can be refused is refused before old features are computed
        require_classifier(losses, model, compared_dim(descriptor_dim(model, style), old.dim, dimensions))
        features = old if isinstance(old, OldFeatures) else build_bank(old, datamanager, bank)
        classifier = getattr(old, "classifier", None) if old_classes is not None else None
        side = OldGallery(features, datamanager, classifier, old_classes, device)
        objective = CompatibleObjective(losses, side, weights, base, dimensions).to(device)
        objective.prepare(model, style)
        super().__init__(datamanager, model, optimizer, objective, scheduler, use_gpu, **options)


def named_base(name: str, label_smooth: bool) -> Objective:
    """The objective of a name.

    Raises:
        ValueError: another name than ``'softmax'``.
    """
    if name != "softmax":
        raise ValueError(f"base is {name!r}; it is 'softmax', an objective of torchreid_ptl.engines, or None")
    return SoftmaxObjective(label_smooth)
