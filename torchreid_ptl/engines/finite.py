"""Stopping a run at a number that is not finite."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..runtime.errors import WordedError


class NonFiniteLossError(WordedError, FloatingPointError):
    """A loss, a gradient or a weight became NaN or infinite; training stopped."""


def require_finite(figures: Mapping[str, float], where: str, last_checkpoint: Path | None) -> None:
    """Requires every figure to be finite.

    Args:
        figures: by name.
        where: in the run, for the message.
        last_checkpoint: the last good one, if any.

    Raises:
        NonFiniteLossError: names the figures, the last good checkpoint and what to do.
    """
    if all(math.isfinite(value) for value in figures.values()):
        return
    shown = ", ".join(f"{name} {value}" for name, value in figures.items())
    remedy = "Lower {lr} or set {precision} float32"
    if last_checkpoint is None:
        raise NonFiniteLossError(f"NaN or infinite {where}: {shown}. No checkpoint has been written yet. {remedy}.")
    raise NonFiniteLossError(
        f"NaN or infinite {where}: {shown}. The last good checkpoint is {last_checkpoint}. {remedy}, and begin again "
        f"from it with {{load_weights}} {last_checkpoint}."
    )


def gradient_norm(optimizer: torch.optim.Optimizer) -> float:
    """Euclidean norm of all gradients an optimiser is about to use."""
    found = (p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    gradients = [grad if torch.finfo(grad.dtype).bits >= 32 else grad.float() for grad in found]  # squares overflow
    return torch.nn.utils.get_total_norm(gradients).item()


def weights_sum(model: nn.Module) -> float:
    """Sum of the magnitudes of weights and statistics: finite if and only if, but for overflow, each of them is."""
    sums = [item.double().abs().sum() for item in model.state_dict().values() if item.is_floating_point()]
    return torch.stack(sums).sum().item()
