"""The functions of the commands, callable from Python."""

from .chain import Chain
from .compatibility import compare_files, compare_models
from .evaluate import evaluate, evaluate_files
from .run import Run
from .sweep import Sweep
from .train import train

__all__ = ["Chain", "Run", "Sweep", "compare_files", "compare_models", "evaluate", "evaluate_files", "train"]
