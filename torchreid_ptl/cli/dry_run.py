"""Trying a configuration without its data: made images, two steps, one test, nothing left behind."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from .. import host
from ..data.tiny import TinyDrawnPedestrians

NAME = "drawn_pedestrians_tiny"
STEPS = 2


def dry_run(config: CfgNode, run: Callable[[CfgNode], Any]) -> None:
    """Runs two training steps and a test of a configuration on a handful of drawn images.

    Model, objective, optimiser, scheduler, image size, augmentation and test options are the configuration's; the data
    sets, the number of epochs, the size of a batch, ImageNet weights, a teacher's weights and the folder for results
    are not.

    Args:
        config: checked.
        run: what a real run would call.
    """
    recipe = TinyDrawnPedestrians.recipe
    images = recipe.train_ids * recipe.cameras * recipe.images_per_camera
    with tempfile.TemporaryDirectory(prefix="torchreid_ptl-") as folder:
        tried = config.clone()
        tried.defrost()
        tried.data.root = tried.data.save_dir = folder
        tried.data.sources = tried.data.targets = [NAME]
        tried.data.workers = 0
        tried.model.pretrained = False
        tried.model.resume = ""
        tried.train.max_epoch = 1
        tried.train.batch_size = images // STEPS
        tried.train.start_epoch = 0
        tried.sampler.num_instances = 2
        tried.sampler.num_cams = tried.sampler.num_datasets = 1
        tried.data.load_train_targets = False
        tried.test.evaluate = False
        if config.loss.name == "std":
            tried.std.teacher_weights = _made_teacher(config, Path(folder))
        tried.freeze()
        engine = run(tried)
    if engine.num_batches != STEPS:
        raise RuntimeError(f"The dry run took {engine.num_batches} steps instead of {STEPS}")
    print(f"Dry run of {config.model.name} done: {STEPS} steps of {images // STEPS} made images and a test")


def _made_teacher(config: CfgNode, folder: Path) -> str:
    """A file with the weights of a teacher that has learnt nothing."""
    teacher = host.models()[config.std.teacher](num_classes=1, loss="softmax", pretrained=False, use_gpu=False)
    path = folder / "teacher.pth"
    torch.save(teacher.state_dict(), path)
    return str(path)
