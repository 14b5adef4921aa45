"""What backward-compatible training minimises."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..losses.compatible import CompatibleLoss
from ..runtime.weights import unwrap
from .feature_objective import FeatureObjective
from .frozen import Preprocessing
from .objectives import Objective, Terms
from .old import OldModel
from .old_gallery import OldBatch, OldGallery, resized
from .outputs import Outputs

OF_BATCH = ("image_ids", "camids")


class CompatibleObjective(FeatureObjective):
    """The new model's own objective, and weighted losses that tie its descriptor to the old model's.

    Total = own terms + sum of weight * loss. Images without an old feature count for the own terms only, but for losses
    that want the whole batch.

    Args:
        losses: the compatible losses by the names their terms get: ``loss_<name>``.
        old: the old side of the training images.
        weights: of the losses by name; those not named have the loss's own ``weight``.
        base: the new model's own objective; None when a loss stands in its place (:class:`MixBCTLoss`).
        dimensions: where new and old descriptors differ in dimension: ``'error'``, ``'truncate'`` or ``'pad'``.
        old_model: the old model itself, where it is there: not for the training, but for comparing afterwards.

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

    def prepare(self, network: nn.Module, style: Preprocessing) -> None:
        """Checks the new model against the old side, and shows the old side to the losses.

        Args:
            network: the model to be trained.
            style: of the images it will get.

        Raises:
            ValueError: it gives no features, or dimensions differ and no rule was declared; a loss needs something
                that this training does not have.
        """
        super().prepare(network, style)
        self.dim = self.old.resize(self.dim, self.dimensions)
        self._network = [unwrap(network)]  # in a list: it is no part of this module
        self._show()
        for name, loss in self.losses.items():
            self._require(name, loss)

    def begin_epoch(self, engine: Any) -> None:
        """Lets the base objective find pseudo labels, and takes them over."""
        super().begin_epoch(engine)
        changed = self.old.update_labels(engine.datamanager)
        if changed or (self.base is not None and self.base.relabels):  # labels anew, even where they are the same
            self._show()

    def reference(self, images: Tensor, batch: Mapping[str, Any]) -> OldBatch:
        """The old side of a batch: looked up, not computed."""
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

    def _term(self, loss: Any, new: Tensor, pids: Tensor, batch: OldBatch) -> Tensor:
        known = batch.image_ids >= 0
        kept = torch.ones_like(known) if loss.whole_batch else known
        if not kept.any():
            return new.sum() * 0.0
        whole = bool(kept.all())  # the usual case: nothing is copied
        new, old, pids, ids, cams = (x if whole else x[kept] for x in (new, batch.features, pids, *batch[1:]))
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
            raise ValueError(
                f"The loss {name} needs {needed}: {_REMEDIES.get(needed, 'this training has no such thing')}"
            )


_REMEDIES = {
    "classifier": "the new model's classifier must be one linear layer on its descriptor, of the dimension of the "
    "comparison; choose a plain backbone, or an embedding head (model.embedding)",
    "old_classifier": "the weights of the old model's classifier are not known; use class means instead "
    "(compat.bct.prototypes means)",
    "old_classes": "which row of the old classifier stands for which training identity is not known; use class means "
    "instead (compat.bct.prototypes means)",
}


def named_losses(losses: CompatibleLoss | Mapping[str, CompatibleLoss]) -> dict[str, CompatibleLoss]:
    """Losses by the names of their terms: one loss has the name that it is registered by.

    Raises:
        ValueError: it is not registered.
    """
    if not isinstance(losses, CompatibleLoss):
        return dict(losses)
    if not losses.name:
        raise ValueError(
            f"{type(losses).__name__} has no name. Register it with torchreid_ptl.register_loss, or give the loss by a "
            "name of its term: losses={'name': loss}"
        )
    return {losses.name: losses}


def agreed_weights(
    losses: Mapping[str, CompatibleLoss], weights: Mapping[str, float] | None, base: Objective | None
) -> dict[str, float]:
    """The weight of each loss: what is said, else its own.

    Args:
        losses: by name.
        weights: by name, of those for which something is said.
        base: the new model's own objective, if it has one.

    Raises:
        ValueError: no losses, a weight for no loss, one that is negative or no number, or nothing to learn at all.
    """
    own = {name: loss.weight for name, loss in losses.items()}
    agreed = {**own, **(weights or {})}
    if not own or agreed.keys() - own.keys() or not all(0 <= weight < float("inf") for weight in agreed.values()):
        raise ValueError(
            "Backward-compatible training needs at least one loss and finite weights from 0 of these losses; got "
            f"losses {', '.join(own) or 'none'} and weights {agreed}"
        )
    if base is None and not any(agreed.values()):
        raise ValueError(f"Nothing is left to learn: no objective of the new model's own, and weights {agreed}")
    return agreed


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
