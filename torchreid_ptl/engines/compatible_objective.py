"""The objective of backward-compatible training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.old_features import OldFeatures
from ..losses import CompatibleLoss, build_loss
from ..runtime.errors import ArgumentError
from ..runtime.seeding import random_state_kept
from ..runtime.weights import unwrap
from .feature_objective import FeatureObjective, descriptor_dim
from .frozen import Preprocessing
from .objectives import Objective, SoftmaxObjective, Terms
from .old import OldModel, build_bank
from .old_gallery import OldGallery, compared_dim, resized
from .outputs import Outputs

OF_BATCH = ("image_ids", "camids")
Losses = str | CompatibleLoss | Sequence[str | CompatibleLoss] | Mapping[str, CompatibleLoss | Mapping[str, Any]]


class CompatibleObjective(FeatureObjective):
    """The new model's own objective, and weighted losses on its and the old model's descriptors.

    Total = own terms + sum of weight * loss. Images without an old feature count only for the own terms, and for losses
    with ``whole_batch``.

    Args:
        losses: the compatible losses by the names their terms get: ``loss_<name>``.
        old: old features of the training images.
        weights: of the losses by name; those not named have the loss's own ``weight``.
        base: the new model's own objective; None when a loss replaces it (:class:`MixBCTLoss`).
        dimensions: where new and old descriptors differ in dimension: ``'error'``, ``'truncate'`` or ``'pad'``.
        old_model: the old model, if it is given: not for the training, but for the comparison afterwards.

    Raises:
        ValueError: as :func:`agreed_weights`.
    """

    def __init__(
        self,
        losses: Mapping[str, CompatibleLoss],
        old: OldGallery,
        weights: Mapping[str, float] | None = None,
        base: Objective | None = None,
        dimensions: str = "error",
        old_model: OldModel | None = None,
    ) -> None:
        super().__init__(base)
        self.weights = agreed_weights(losses, weights, base)
        self.old_model = old_model
        self.losses, self.old, self.dimensions = nn.ModuleDict(losses), old, dimensions
        self._network: Any = None

    @classmethod
    def build(
        cls,
        model: nn.Module,
        datamanager: Any,
        old: nn.Module | OldModel | OldFeatures,
        losses: Losses,
        *,
        weights: Mapping[str, float] | None = None,
        base: Objective | str | None = "softmax",
        dimensions: str = "error",
        bank: str | Path | None = None,
        keep_bank: bool = True,
        old_classes: Tensor | None = None,
        seed: int = 0,
        channels_last: bool = False,
    ) -> "CompatibleObjective":
        """Builds the objective; settings are checked before old features are computed.

        Args:
            model: the new model, on its device, built with ``loss='triplet'`` so that it gives features.
            datamanager: ``torchreid.data.ImageDataManager`` or this package's.
            old: the old model: any of the host or the plugin with its weights, on images of the training's
                size; an :class:`OldModel`, for one with another size or normalisation; or an :class:`OldFeatures`.
            losses: as for :func:`named_losses`.
            weights: of the losses by name; those not named have the loss's own ``weight``.
            base: the new model's own objective, ``'softmax'`` for cross-entropy; None when a loss replaces it.
            dimensions: where descriptors differ in dimension: ``'error'``, ``'truncate'`` or ``'pad'``.
            bank: a .npy file that keeps the old features, to be used again by other runs; None for none.
            keep_bank: a bank of something else is an error; False replaces it.
            old_classes: (C,) row of the old classifier for each training identity, -1 for an unknown one; for losses
                that use the classifier of an :class:`OldModel`.
            seed: of random losses that are built here.
            channels_last: layout of the old model's maps.

        Raises:
            ValueError: a model without features, dimensions that differ, a loss that lacks what it needs, or a bank of
                something else.
        """
        style, device = Preprocessing.of(datamanager), next(model.parameters()).device
        if isinstance(old, nn.Module):
            old = OldModel(old, style, device, channels_last=channels_last)
        if isinstance(base, str):
            base = _named_base(base)
        common = compared_dim(descriptor_dim(model, style), old.dim, dimensions)
        named = named_losses(losses, dim=common, num_classes=datamanager.num_train_pids, seed=seed)
        agreed_weights(named, weights, base)
        require_classifier(named, model, common)
        features = old if isinstance(old, OldFeatures) else build_bank(old, datamanager, bank, keep_bank)
        classifier = getattr(old, "classifier", None) if old_classes is not None else None
        gallery = OldGallery(features, datamanager, classifier, old_classes, device)
        old_model = old if isinstance(old, OldModel) else None
        objective = cls(named, gallery, weights, base, dimensions, old_model).to(device)
        objective.prepare(model, style)
        return objective

    def prepare(self, network: nn.Module, style: Preprocessing) -> None:
        """Checks the new model against the old features, and passes these to the losses.

        Args:
            network: the model to be trained.
            style: of the images it will get.

        Raises:
            ValueError: it gives no features, or dimensions differ and no rule was declared; a loss needs an
                input that this training does not have.
        """
        super().prepare(network, style)
        self.dim = self.old.resize(self.dim, self.dimensions)
        self._network = [unwrap(network)]  # in a list: it is no part of this module
        self._show()
        for name, loss in self.losses.items():
            self._require(name, loss)

    def begin_epoch(self, engine: Any) -> None:
        """Prepares the base objective, and takes over its pseudo labels."""
        super().begin_epoch(engine)
        changed = self.old.update_labels(engine.datamanager)
        if changed or (self.base is not None and self.base.relabels):  # labels anew, even where they are the same
            self._show()
        for name, loss in self.losses.items():
            if remark := loss.remark():  # type: ignore[operator]
                print(f"loss_{name}: {remark}")

    def reference(self, images: Tensor, batch: Mapping[str, Any]) -> Any:
        """The old features of a batch: looked up, not computed."""
        return self.old.batch(batch)

    def fingerprint(self) -> str:
        """Of the old features."""
        return self.old.fingerprint

    def forward(self, outputs: Outputs, pids: Tensor, reference: Any = None) -> Terms:
        """Returns the base objective's terms, and ``loss_<name>`` of each loss whose weight is above zero."""
        terms = self.base_terms(outputs, pids)
        new = resized(self.descriptor(outputs), self.dim)
        for name, loss in self.losses.items():
            if self.weights[name] > 0:
                terms[f"loss_{name}"] = self.weights[name] * self._term(loss, new, pids, reference)
        return terms

    def _term(self, loss: Any, new: Tensor, pids: Tensor, batch: Any) -> Tensor:
        known = batch.image_ids >= 0
        kept = torch.ones_like(known) if loss.whole_batch else known
        if not kept.any():
            return (new.float() * 0.0).sum()  # whatever the size of the features
        every = bool(kept.all())  # the usual case: nothing is copied
        new, old, pids, ids, cams = (x if every else x[kept] for x in (new, batch.features, pids, *batch[1:]))
        of_batch = {"image_ids": ids, "camids": cams}
        return loss(new, old, pids, **{name: self._given(name, of_batch) for name in (*loss.needs, *loss.accepts)})

    def _given(self, name: str, of_batch: Mapping[str, Tensor]) -> Tensor | None:
        if name in of_batch:
            return of_batch[name]
        if name == "classifier":
            return classifier_weights(self._network[0], self.dim)
        found: Tensor | None = getattr(self.old, name, None)
        return found

    def _show(self) -> None:
        for loss in self.losses.values():
            loss.set_gallery(self.old.gallery, self.old.gallery_pids)  # type: ignore[operator]

    def _require(self, name: str, loss: Any) -> None:
        for needed in loss.needs:
            if needed in OF_BATCH or self._given(needed, {}) is not None:
                continue
            raise ArgumentError(
                f"The loss {name} needs {needed}: {_REMEDIES.get(needed, 'this training has no such thing')}"
            )


_REMEDIES = {
    "classifier": "the new model's classifier must be one linear layer on its descriptor, of the dimension of the "
    "comparison; choose a plain backbone, or give it an embedding head",
    "old_classifier": "the weights of the old model's classifier are not known; use class means instead "
    "({prototypes} 'means')",
    "old_classes": "the row of the old classifier for each training identity is not known; use class means "
    "instead ({prototypes} 'means')",
}


def named_losses(losses: Losses, **supplied: Any) -> dict[str, CompatibleLoss]:
    """Losses by the names of their terms.

    Args:
        losses: a loss, the name of a registered one, several of both, or a mapping: a name of a term to its loss, or a
            registered name to arguments of its constructor.
        **supplied: arguments for those that are built here; see :func:`~torchreid_ptl.losses.build_loss`.

    Raises:
        ValueError: a loss that is not registered or is named twice, or settings out of their range.
    """
    if isinstance(losses, (str, CompatibleLoss)):
        losses = [losses]
    if not isinstance(losses, Mapping):
        names = [item if isinstance(item, str) else _name_of(item) for item in losses]
        if len(set(names)) < len(names):
            raise ValueError(f"losses are {', '.join(names)}; each is named once, or has a name: {{'name': loss}}")
        losses = {name: {} if isinstance(loss, str) else loss for name, loss in zip(names, losses, strict=True)}
    with random_state_kept():  # a criterion draws its weights; the training is not affected
        return {
            name: loss if isinstance(loss, CompatibleLoss) else build_loss(name, loss, **supplied)
            for name, loss in losses.items()
        }


def _name_of(loss: CompatibleLoss) -> str:
    if not loss.name:
        raise ValueError(
            f"{type(loss).__name__} has no name. Register it with torchreid_ptl.register_loss, or give the loss by a "
            "name of its term: losses={'name': loss}"
        )
    return loss.name


def agreed_weights(
    losses: Mapping[str, CompatibleLoss], weights: Mapping[str, float] | None, base: Objective | None
) -> dict[str, float]:
    """The weight of each loss: the given one, else its own.

    Args:
        losses: by name.
        weights: by name; those not named have the loss's own ``weight``.
        base: the new model's own objective, if it has one.

    Raises:
        ValueError: no losses, a weight for no loss, a negative or infinite one, or no term with a positive weight.
    """
    own = {name: loss.weight for name, loss in losses.items()}
    agreed = {**own, **(weights or {})}
    if not own or agreed.keys() - own.keys() or not all(0 <= weight < float("inf") for weight in agreed.values()):
        raise ValueError(
            "Backward-compatible training needs at least one loss and finite weights from 0 of these losses; got "
            f"losses {', '.join(own) or 'none'} and weights {agreed}"
        )
    if base is None and not any(agreed.values()):
        raise ValueError(f"There is nothing to minimise: no objective of the new model's own, and weights {agreed}")
    return agreed


def _named_base(name: str) -> Objective:
    if name != "softmax":
        raise ValueError(f"base is {name!r}; it is 'softmax', an objective of torchreid_ptl.engines, or None")
    return SoftmaxObjective()


def require_classifier(losses: Mapping[str, CompatibleLoss], network: nn.Module, dim: int) -> None:
    """Makes sure that a network has the classifier that a loss needs.

    Args:
        losses: by name.
        network: the new model.
        dim: in which features are compared.

    Raises:
        ValueError: it has none that is one linear layer on the descriptor.
    """
    for name, loss in losses.items():
        if "classifier" in loss.needs and classifier_weights(unwrap(network), dim) is None:
            raise ValueError(f"The loss {name} needs classifier: {_REMEDIES['classifier']}")


def classifier_weights(network: nn.Module, dim: int) -> Tensor | None:
    """(C, dim) weights of a network's classifier, where it is one linear layer on the descriptor; else None."""
    classifier = getattr(network, "classifier", None)
    if isinstance(classifier, nn.Linear) and classifier.in_features == dim:
        return classifier.weight
    return None
