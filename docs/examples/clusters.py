"""Trains without identities: clusters of the training images take their place before each epoch."""

import torchreid_ptl

settings = {
    "data": {"sources": ["drawn_pedestrians_tiny"], "targets": ["drawn_pedestrians_tiny"], "save_dir": "log/clusters"},
    "loss": {"name": "cluster", "cluster": {"min_samples": 2, "k1": 4, "k2": 1, "eps": 0.7}},
    "train": {"max_epoch": 1, "batch_size": 8, "lr_scheduler": "single_step"},
}
torchreid_ptl.train("quickstart", **settings)
