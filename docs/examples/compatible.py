"""Trains a new model whose queries search the gallery of an old one, and compares both. After fine_tune.py."""

import torchreid

import torchreid_ptl

data = torchreid_ptl.data.ImageDataManager(root="reid-data", sources="drawn_pedestrians_tiny", height=128, width=64,
                                           batch_size_train=8)  # fmt: skip
old = torchreid_ptl.load_model(weights="log/fine_tune/model/model-best.pth.tar")
new = torchreid.models.build_model("osnet_x0_5", data.num_train_pids, loss="triplet", pretrained=False)
optimizer = torchreid.optim.build_optimizer(new, lr=0.003)
engine = torchreid.engine.ImageCompatibleEngine(data, new, optimizer, old, ["rbcl", "bct"])
engine.run(save_dir="log/compatible", max_epoch=2)  # trains, tests, and compares both
print(engine.compare(old)["drawn_pedestrians_tiny"].updates[0].result.update_gain)  # or with any other old model
