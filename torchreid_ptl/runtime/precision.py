"""Numeric precision of a network's forward pass."""

from contextlib import AbstractContextManager, nullcontext

import torch

_TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("float32", "bfloat16")
"""What training may use; an evaluation may use float16 too."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context of a forward pass in a precision of :data:`PRECISIONS` or float16; parameters stay in float32.

    Raises:
        ValueError: another precision.
    """
    if precision not in _TYPES:
        raise ValueError(f"unknown precision {precision!r}; allowed: {', '.join(_TYPES)}")
    dtype = _TYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
