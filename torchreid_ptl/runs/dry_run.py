"""Dry run of a configuration without its data: synthetic images, two steps, one test, a temporary folder."""

import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from ..build.networks import build_network, read_weights
from ..data.drawn import TinyDrawnPedestrians
from .chain import Chain
from .chain_plan import INDEPENDENT, OLD, TEACHER, Stage, link
from .run import Run

NAME = "drawn_pedestrians_tiny"
STEPS = 2
_RECIPE = TinyDrawnPedestrians.recipe
IMAGES = _RECIPE.train_ids * _RECIPE.cameras * _RECIPE.images_per_camera


def try_run(run: Run) -> None:
    """Runs two training steps and a test of a configuration on a handful of drawn images.

    Model, objective, optimiser, scheduler, image size, augmentation and test options are the configuration's; the data
    sets, the number of epochs, the size of a batch, ImageNet weights, those of a teacher or an old model, the
    clustering and the folder for results are not.

    Args:
        run: checked.
    """
    with tempfile.TemporaryDirectory(prefix="torchreid_ptl-") as folder:
        tried = _equipped(shrunk(run.config, folder), Path(folder) / "frozen.pth")
        _require_steps(Run(tried).execute())
    print(f"Dry run of {run.config.model.name} done: {STEPS} steps of {IMAGES // STEPS} synthetic images and a test")


def try_chain(chain: Chain) -> None:
    """Runs all stages of a chain as :func:`try_run` does, so that weights pass from one to the next."""
    with tempfile.TemporaryDirectory(prefix="torchreid_ptl-") as folder:
        common = shrunk(chain.common, folder)
        asked = [_tried_stage(stage, Path(folder)) for stage in chain.stages]
        Chain(common, tuple(link(folder, common.data.targets, asked))).execute(after_stage=_require_steps)
    print(
        f"Dry run of {len(chain.stages)} stages done: each {STEPS} steps of {IMAGES // STEPS} synthetic images and a "
        "test; the scores are meaningless"
    )


def _tried_stage(stage: Stage, folder: Path) -> Stage:
    """All stages train on the same synthetic identities; a classifier is kept as with the real ones."""
    tried = shrunk(stage.asked, str(folder))
    tried = _equipped(tried, folder / f"frozen-{stage.number}.pth", [key for key, _ in stage.references])
    tried.defrost()
    tried.model.load_classifier = stage.config.model.load_classifier
    tried.freeze()
    return replace(stage, asked=tried, given={**stage.given, "model.load_classifier": tried.model.load_classifier})


def shrunk(config: CfgNode, folder: str) -> CfgNode:
    """The settings of a dry run in a folder."""
    tried = config.clone()
    tried.defrost()
    tried.data.root = tried.data.save_dir = folder
    tried.data.sources, tried.data.targets = [NAME], [NAME]
    tried.data.workers = 0
    tried.model.pretrained = False
    tried.model.resume = ""
    tried.train.max_epoch = 1
    tried.train.batch_size = IMAGES // STEPS
    tried.train.start_epoch = 0
    tried.sampler.num_instances = 2
    tried.sampler.num_cams = tried.sampler.num_datasets = 1
    tried.data.load_train_targets = tried.data.combineall = False
    tried.test.evaluate = False
    # nearest pairs and single images: several clusters for any features
    if "cluster" in (tried.loss.name, tried.compat.objective):
        cluster = tried.loss.cluster
        cluster.eps, cluster.min_samples, cluster.k1, cluster.k2 = 0.99, 1, 1, 1
        tried.sampler.train_sampler = "RandomSampler"
    tried.freeze()
    return tried


def _equipped(tried: CfgNode, path: Path, references: Collection[str] = ()) -> CfgNode:
    """Gives a run that needs one an untrained teacher or old model.

    It has an embedding head if the real one has.

    Args:
        tried: the settings, which are changed.
        path: for the weights.
        references: settings that a stage of the chain fills.
    """
    tried.defrost()
    tried.compat.features = tried.compat.bank = tried.compat.old_images = ""
    if INDEPENDENT not in references:
        tried.compat.independent = ""
    if tried.loss.name == "std" and TEACHER not in references:
        std = tried.std
        std.teacher_weights = _unlearned(tried, std.teacher, std.teacher_weights, (std.height, std.width), path)
    if tried.loss.name == "compatible" and OLD not in references:
        compat = tried.compat
        if compat.bct.prototypes == "classifier":  # an untrained one knows none of the synthetic identities
            compat.bct.prototypes = "auto"
        compat.old, size = compat.old or tried.model.name, (compat.old_height, compat.old_width)
        compat.old_weights = _unlearned(tried, compat.old, compat.old_weights, size, path)
    tried.freeze()
    return tried


def _unlearned(tried: CfgNode, name: str, weights: str, size: tuple[int, int], path: Path) -> str:
    network = build_network(
        name,
        embedding=read_weights(weights).embedding if Path(weights).is_file() else 0,
        use_gpu=False,
        size=(size[0] or tried.data.height, size[1] or tried.data.width),
    )
    torch.save(network.state_dict(), path)
    return str(path)


def _require_steps(engine: Any) -> None:
    if engine.num_batches != STEPS:
        raise RuntimeError(f"The dry run took {engine.num_batches} steps instead of {STEPS}")
