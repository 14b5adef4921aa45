"""Trains every combination of values with every seed; log/sweep/sweep.md has mean and spread over seeds."""

from torchreid_ptl.runs import Sweep

data = {"sources": ["drawn_pedestrians_tiny"], "targets": ["drawn_pedestrians_tiny"], "save_dir": "log/sweep"}
train = {"max_epoch": 1, "batch_size": 8}
sweep = Sweep("quickstart", {"ptl.state": ["carry", "reset"]}, seeds=[1, 2], data=data, train=train)
print(sweep.execute(resume=True), "runs failed")
