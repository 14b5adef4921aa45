"""Numeric precision of a training step."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = ("float32", "bfloat16")


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which a forward pass runs.

    Args:
        precision: ``'float32'`` or ``'bfloat16'``; parameters and optimiser stay in float32 either way.
        device: the device of the batch.

    Raises:
        ValueError: another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"train.precision is {precision!r}; allowed: {', '.join(PRECISIONS)}")
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
