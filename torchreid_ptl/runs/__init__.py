"""The functions of the commands, callable from Python."""

from .chain import Chain
from .evaluate import evaluate, evaluate_files
from .run import Run
from .sweep import Sweep
from .train import train

__all__ = ["Chain", "Run", "Sweep", "evaluate", "evaluate_files", "train"]
