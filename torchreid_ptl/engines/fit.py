"""Whether model, optimiser and objective fit."""

import torch
from torch import nn

from ..runtime.errors import ArgumentError
from ..runtime.weights import unwrap
from .objectives import Objective


def require_fit(model: nn.Module, optimizer: torch.optim.Optimizer, objective: Objective) -> None:
    """Requires the outputs that an objective uses, and all of its parameters in the optimiser.

    Raises:
        TypeError: it is no objective.
        ValueError: the model was built for another kind of loss, or the optimiser lacks parameters.
    """
    kind = type(objective).__name__
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective is a {kind}; expected an Objective, which returns named terms: "
            "torchreid_ptl.engines.SoftmaxObjective() for cross-entropy"
        )
    built_for = getattr(unwrap(model), "loss", objective.model_loss)
    if built_for != objective.model_loss:
        raise ValueError(
            f"The model was built with loss={built_for!r}; {kind} needs one built with loss={objective.model_loss!r}"
        )
    learning = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    forgotten = [name for name, parameter in objective.named_parameters() if id(parameter) not in learning]
    if forgotten:
        raise ValueError(
            f"The optimiser lacks parameters of {kind}: {', '.join(forgotten)}. Before a scheduler is made: "
            "optimizer.add_param_group({'params': objective.parameters()})"
        )


def require_epochs(start_epoch: int, max_epoch: int) -> None:
    """Makes sure that a run with a first epoch of its own has one left to train; a run without epochs only tests."""
    if start_epoch >= max(1, max_epoch):
        raise ArgumentError(f"{{start_epoch}} is {start_epoch} and {{max_epoch}} {max_epoch}: nothing is trained")
