"""Fine-tunes a network with BConv-Cells on drawn pedestrians: log/fine_tune, which other examples begin from."""

import torchreid_ptl

data = {"sources": ["drawn_pedestrians_tiny"], "targets": ["drawn_pedestrians_tiny"], "save_dir": "log/fine_tune"}
engine = torchreid_ptl.train("quickstart", data=data, train={"max_epoch": 2, "batch_size": 8})
print(engine.results["drawn_pedestrians_tiny"])
model = torchreid_ptl.load_model(weights="log/fine_tune/model/model-best.pth.tar")  # maps images to descriptors
