"""The one decision where networks work."""

import torch


def device_of(use_gpu: bool) -> torch.device:
    """A GPU when one is asked for and there is one, else the CPU."""
    return torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
