"""Evaluating a model that is being trained."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..runtime.seeding import random_state_kept


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode for a model in training, without effect on the training.

    At the end the mode of each module, frozen ones included, the states of the cells and of the random generators are
    restored. (``model.train()`` would clear the states of the cells.)

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
