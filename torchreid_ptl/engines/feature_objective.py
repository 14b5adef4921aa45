"""Objectives with terms on the complete descriptor, in addition to those on labels."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.seeding import random_state_kept
from ..runtime.weights import unwrap
from .frozen import Preprocessing
from .objectives import Objective, Terms
from .outputs import Outputs

_FEW = 0.01  # share of values below 0 that is no reason to warn


class FeatureObjective(Objective):
    """A base objective, and terms on the descriptor, which is compared with another network's.

    Args:
        base: the network's own objective; None when there are only the further terms.

    Attributes:
        dim: dimension of the descriptor; known after :meth:`prepare`.
    """

    model_loss = "triplet"

    def __init__(self, base: Objective | None) -> None:
        super().__init__()
        self.base = base
        self.dim = 0
        self._base_features: int | None = None

    def prepare(self, network: nn.Module, style: Preprocessing) -> None:
        """Determines the dimension of the descriptor, before the first step.

        Args:
            network: the model to be trained; an MGN gives all its parts afterwards.
            style: of its images.

        Raises:
            ValueError: it gives no features.
        """
        plain: Any = unwrap(network)
        self._base_features = getattr(plain, "triplet_parts", None)
        self.dim = descriptor_dim(network, style)
        if self._base_features:
            plain.all_parts = True

    def begin_epoch(self, engine: Any) -> None:
        """Prepares the base objective."""
        if self.base is not None:
            self.base.begin_epoch(engine)

    def accuracy(self, outputs: Outputs, pids: Tensor) -> Tensor:
        """The base objective's."""
        return super().accuracy(outputs, pids) if self.base is None else self.base.accuracy(outputs, pids)

    def base_terms(self, outputs: Outputs, pids: Tensor) -> Terms:
        """The terms of the base objective, on the features it has without the further terms."""
        if self.base is None:
            return {}
        return self.base(Outputs(outputs.logits, outputs.features[: self._base_features]), pids)

    def descriptor(self, outputs: Outputs) -> Tensor:
        """(N, dim): all features, concatenated as in the descriptor."""
        return torch.cat(outputs.features, dim=1)


def unreachable(own: Tensor, wanted: Tensor) -> str:
    """What a network whose features are never negative cannot reach of others; empty where there is nothing to say.

    A mean of ReLU outputs, the descriptor of the host's plain ResNet and DenseNet, is never negative. The mean absolute
    difference to a feature t is then at least mean max(-t, 0).

    Args:
        own: (N, D) features of a batch.
        wanted: (N, D) features of the same images by another network.
    """
    negative = float((wanted < 0).float().mean())
    if float(own.detach().min()) < 0 or negative < _FEW:
        return ""
    floor, size = float((-wanted).clamp(min=0).mean()), float(wanted.abs().mean())
    return (
        f"no value of the features of this batch is below 0, and {negative:.0%} of the other network's are: their mean "
        f"absolute difference cannot fall below {floor:.3g}, {floor / size:.0%} of the mean absolute value there"
    )


def descriptor_dim(network: nn.Module, style: Preprocessing) -> int:
    """Dimension of the features a network gives in training; measured on a copy.

    Args:
        network: built with ``loss='triplet'``; of an MGN, all eight parts count.
        style: of its images.

    Raises:
        ValueError: it gives no features.
    """
    plain = unwrap(network)
    with random_state_kept(), torch.no_grad():
        tried: Any = copy.deepcopy(plain).train()
        tried.all_parts = True  # read by MGN only
        device = next(tried.parameters()).device
        try:
            out = Outputs.of(tried(torch.rand(2, 3, style.height, style.width, device=device)), "triplet")
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{type(plain).__name__} gives no features in training, which comparing them with another network's "
                f"needs ({error}). Build the model with loss='triplet', and choose one that supports it"
            ) from error
    if any(feature.dim() != 2 for feature in out.features):
        shapes = [tuple(feature.shape) for feature in out.features]
        raise ValueError(f"{type(plain).__name__} gives features of shapes {shapes}; (N, D) is needed")
    return sum(feature.shape[1] for feature in out.features)
