"""Keeps torchreid's person re-identification models current; importing it registers everything with torchreid."""

import importlib
from typing import TYPE_CHECKING, Any

from . import data, evaluation, host, losses, models
from .cells import BConvCell, BConvCellV2, reset_states, states_kept
from .engines import evaluating
from .losses import register_loss
from .models import PTL, available_models
from .registration import register
from .runtime.weights import load_weights
from .version import __version__

if TYPE_CHECKING:
    from . import runs
    from .build.networks import load_model
    from .runs.train import train

register()

_ON_DEMAND = {"load_model": "build.networks", "runs": "", "train": "runs.train"}
"""What a program that only needs models does not import: names, and the modules they are in."""


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _ON_DEMAND[name]
    return (
        getattr(importlib.import_module(f".{module}", __name__), name)
        if module
        else importlib.import_module(f".{name}", __name__)
    )


__all__ = [
    "PTL",
    "BConvCell",
    "BConvCellV2",
    "__version__",
    "available_models",
    "data",
    "evaluating",
    "evaluation",
    "host",
    "load_model",
    "load_weights",
    "losses",
    "models",
    "register",
    "register_loss",
    "reset_states",
    "runs",
    "states_kept",
    "train",
]
