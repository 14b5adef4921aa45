"""Fine-tunes along two data sets, then distils: each stage begins from the weights of the stage before it."""

from torchreid_ptl.runs import Chain

student = {"name": "student", "ptl": {"cells": False}, "data": {"sources": ["drawn_pedestrians_tiny"]},
           "loss": {"name": "std"}, "std": {"teacher": "osnet_x0_25_ptl"}}  # fmt: skip
stages = ["class50:drawn_pedestrians_tiny", "drawn_pedestrians_tiny", student]
data = {"targets": ["drawn_pedestrians_tiny"], "save_dir": "log/chain"}
chain = Chain.of("quickstart", chain=stages, data=data, train={"max_epoch": 1, "batch_size": 4})
chain.execute(resume=True)
print([stage.run.scores() for stage in chain.stages])
