"""A loss of one's own, used by its name; its settings are keys (compat.hinge_cosine.t). After fine_tune.py."""

from pathlib import Path

import torch.nn.functional as F

import torchreid_ptl


@torchreid_ptl.register_loss("hinge_cosine")
class CosineLoss(torchreid_ptl.losses.CompatibleLoss):
    """Cosine distance of new and old feature of an image, as far as it exceeds t.

    Args:
        t: distance that costs nothing.
    """

    def __init__(self, t: float = 0.1) -> None:
        super().__init__()
        self.t = t

    def compute_loss(self, new, old, pids):
        """Returns the loss of a batch."""
        return (1 - F.cosine_similarity(new, old) - self.t).clamp(min=0).mean()


if __name__ == "__main__":
    torchreid_ptl.train(Path(__file__).with_suffix(".yaml"))
