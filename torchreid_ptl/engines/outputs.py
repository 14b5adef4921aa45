"""Outputs of a model in a training step, in one form for every objective."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """Logits and features of one batch.

    Attributes:
        logits: one (N, num_classes) tensor for each classifier.
        features: one (N, D) tensor for each feature a metric loss sees; empty for a model built for softmax.
    """

    logits: tuple[Tensor, ...]
    features: tuple[Tensor, ...]

    @classmethod
    def of(cls, raw: Any, loss: str) -> "Outputs":
        """Reads the output of a model in training mode by the host's contract.

        Args:
            raw: logits, or a pair (logits, features) from a model built with ``loss='triplet'``; each a tensor or a
                list of tensors.
            loss: what the model was built for.

        Raises:
            ValueError: a pair was expected; names the type.
        """
        if loss == "softmax":
            return cls(_as_tuple(raw), ())
        if not (isinstance(raw, (tuple, list)) and len(raw) == 2):
            raise ValueError(
                f"A model built for loss={loss!r} puts out (logits, features) in training; got {type(raw).__name__}. "
                "Build the model with loss='triplet'."
            )
        return cls(_as_tuple(raw[0]), _as_tuple(raw[1]))


def _as_tuple(item: Any) -> tuple[Tensor, ...]:
    return tuple(item) if isinstance(item, (tuple, list)) else (item,)
