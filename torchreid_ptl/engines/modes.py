"""Evaluating a model that is being trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..runtime.seeding import random_state_kept


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Puts a model into evaluation mode and back without a trace in its training.

    On leaving, each module has the mode it had, frozen ones included, the cells have their states, and the random
    generators stand where they stood. (``model.train()`` would clear the states.)

    Args:
        model: any network.

    Yields:
        The model.
    """
    modes = [(module, module.training) for module in model.modules()]
    with random_state_kept():
        model.eval()
        try:
            yield model
        finally:
            for module, mode in modes:
                module.training = mode
