"""Distils the network with cells into a plain one, which torchreid alone can load. After fine_tune.py."""

import torchreid

import torchreid_ptl

data = torchreid_ptl.data.ImageDataManager(root="reid-data", sources="drawn_pedestrians_tiny", height=128, width=64,
                                           batch_size_train=8)  # fmt: skip
teacher = torchreid_ptl.load_model(weights="log/fine_tune/model/model-best.pth.tar")
student = torchreid.models.build_model("osnet_x0_25", data.num_train_pids, loss="triplet", pretrained=False)
optimizer = torchreid.optim.build_optimizer(student, lr=0.003)
engine = torchreid.engine.ImageSTDEngine(data, student, optimizer, teacher, lambda_=0.8)
engine.run(save_dir="log/distil", max_epoch=2)
