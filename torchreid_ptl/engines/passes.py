"""What a training step may do once: a pass of each image through the model, and a step of the learning rate."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..cells import BConvCell


@contextmanager
def one_pass_per_image(model: nn.Module) -> Iterator[Callable[[int], None]]:
    """Counts the images that pass through a model with BConv-Cells in training.

    Args:
        model: without cells that carry a state, nothing is counted.

    Yields:
        To be called after each step with the number of images in its batch.

    Raises:
        RuntimeError: from that call, when more images passed: the states are those of another batch.
    """
    passed = [0]

    def count(module: nn.Module, images: tuple[Any, ...]) -> None:
        passed[0] += len(images[0]) if module.training and images and not _kept(module) else 0

    def check(size: int) -> None:
        seen, passed[0] = passed[0], 0
        if seen > size:
            raise RuntimeError(
                f"A step with a batch of {size} images passed {seen} through the model in training mode. BConv-Cells "
                "take each pass for a new batch, and the second one meets the state that the first one left. Do all "
                "passes but one inside torchreid_ptl.states_kept(model), or use a model with ptl.cells False"
            )

    carrying = any(isinstance(module, BConvCell) and module.carry for module in model.modules())
    handle = model.register_forward_pre_hook(count) if carrying else None
    try:
        yield check
    finally:
        if handle is not None:
            handle.remove()


def _kept(model: nn.Module) -> bool:
    return any(isinstance(module, BConvCell) and module.kept for module in model.modules())


def step_at(scheduler: Any, done: float) -> None:
    """Steps a scheduler of batches; one that knows its end, like OneCycleLR, goes to where the training is.

    Args:
        scheduler: with ``total_steps`` when it knows its end.
        done: part of the whole training, from 0 to 1.
    """
    total = getattr(scheduler, "total_steps", None)
    if total:
        scheduler.last_epoch = round(total * done) - 1  # step() adds the 1
    scheduler.step()
