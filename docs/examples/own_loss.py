"""A loss of one's own: compat.losses takes its name, compat.cosine_distance.weight is a key. After fine_tune.py."""

from pathlib import Path

import torch.nn.functional as F

import torchreid_ptl


@torchreid_ptl.register_loss("cosine_distance")
class CosineDistanceLoss(torchreid_ptl.losses.CompatibleLoss):
    """Mean cosine distance of new and old feature of an image."""

    def compute_loss(self, new, old, pids):
        """Returns the loss of a batch."""
        return (1 - F.cosine_similarity(new, old)).mean()


if __name__ == "__main__":
    torchreid_ptl.train(Path(__file__).with_suffix(".yaml"))
