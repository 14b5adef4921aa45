"""Keeps torchreid's person re-identification models current; importing it registers everything with torchreid."""

from . import evaluation, host, losses, models
from .cells import BConvCell, BConvCellV2, reset_states
from .engines import evaluating
from .losses import register_loss
from .models import PTL, available_models
from .registration import register
from .runtime.weights import load_weights
from .version import __version__

register()

__all__ = [
    "PTL",
    "BConvCell",
    "BConvCellV2",
    "__version__",
    "available_models",
    "evaluating",
    "evaluation",
    "host",
    "load_weights",
    "losses",
    "models",
    "register",
    "register_loss",
    "reset_states",
]
