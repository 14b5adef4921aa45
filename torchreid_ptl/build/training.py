"""Builds data, optimiser, scheduler and engine of a configuration."""

from typing import Any

import torch
import torchreid
from torch import nn
from yacs.config import CfgNode

from ..config import differences
from ..config.loading import ConfigError, to_dict
from ..data.batches import count_batches
from ..data.manager import ImageDataManager
from ..engines import ImagePTLEngine
from ..runtime.hints import hint
from .objectives import model_and_objective


def build_datamanager(config: CfgNode) -> ImageDataManager:
    """Loads the data sets; see :class:`ImageDataManager` for what is checked."""
    data, sampler = config.data, config.sampler
    return ImageDataManager(
        on_bad_image=data.on_bad_image,
        on_no_match=config.eval.no_match,
        root=data.root,
        sources=data.sources,
        targets=data.targets,
        height=data.height,
        width=data.width,
        transforms=data.transforms,
        k_tfm=data.k_tfm,
        norm_mean=data.norm_mean,
        norm_std=data.norm_std,
        use_gpu=config.use_gpu,
        split_id=data.split_id,
        combineall=data.combineall,
        load_train_targets=data.load_train_targets,
        batch_size_train=config.train.batch_size,
        batch_size_test=config.test.batch_size,
        workers=data.workers,
        num_instances=sampler.num_instances,
        num_cams=sampler.num_cams,
        num_datasets=sampler.num_datasets,
        train_sampler=sampler.train_sampler,
        train_sampler_t=sampler.train_sampler_t,
        cuhk03_labeled=config.cuhk03.labeled_images,
        cuhk03_classic_split=config.cuhk03.classic_split,
        market1501_500k=config.market1501.use_500k_distractors,
    )


def build_optimizer(config: CfgNode, model: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """The host's optimiser, or AdamW, over model and objective."""
    train = config.train
    if train.fixbase_epoch > 0:
        _require_layers("train.open_layers", train.open_layers, model)
    if train.staged_lr:
        _require_layers("train.new_layers", train.new_layers, model)
    by_host = "adam" if train.optim == "adamw" else train.optim
    optimizer = torchreid.optim.build_optimizer(
        model,
        optim=by_host,
        lr=train.lr,
        weight_decay=train.weight_decay,
        momentum=config.sgd.momentum,
        sgd_dampening=config.sgd.dampening,
        sgd_nesterov=config.sgd.nesterov,
        rmsprop_alpha=config.rmsprop.alpha,
        adam_beta1=config.adam.beta1,
        adam_beta2=config.adam.beta2,
        staged_lr=train.staged_lr,
        new_layers=train.new_layers,
        base_lr_mult=train.base_lr_mult,
    )
    criterion = list(objective.parameters())
    if criterion:
        optimizer.add_param_group({"params": criterion})
    if train.optim == "adamw":
        groups = [{"params": group["params"], "lr": group["lr"]} for group in optimizer.param_groups]
        betas = (config.adam.beta1, config.adam.beta2)
        return torch.optim.AdamW(groups, lr=train.lr, betas=betas, weight_decay=train.weight_decay)
    return optimizer


def _require_layers(key: str, names: list[str], model: nn.Module) -> None:
    children = [name for name, _ in model.named_children()]
    for name in names:
        if name not in children:
            raise ConfigError(f"{key} names {name!r}, which is no child of the model: {hint(name, children)}")


def build_scheduler(config: CfgNode, optimizer: torch.optim.Optimizer, batches: int) -> Any:
    """The host's scheduler, stepped per epoch, or torch's OneCycleLR, stepped per batch.

    Args:
        config: the configuration.
        optimizer: its groups' learning rates are the peaks of a one-cycle schedule.
        batches: batches in an epoch; where their number varies, the engine goes by the part of the training done.
    """
    train = config.train
    if train.lr_scheduler == "one_cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        total = max(1, train.max_epoch * batches)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=total, cycle_momentum=False)
    return torchreid.optim.build_lr_scheduler(
        optimizer,
        lr_scheduler=train.lr_scheduler,
        stepsize=train.stepsize,
        gamma=train.gamma,
        max_epoch=train.max_epoch,
    )


def build_engine(config: CfgNode, datamanager: Any) -> ImagePTLEngine:
    """Builds model, objective, optimiser, scheduler and engine."""
    model, objective = model_and_objective(config, datamanager)
    optimizer = build_optimizer(config, model, objective)
    return ImagePTLEngine(
        datamanager,
        model,
        optimizer,
        objective,
        build_scheduler(config, optimizer, count_batches(datamanager.train_loader)),
        config.use_gpu,
        step_scheduler_per_batch=config.train.lr_scheduler == "one_cycle",
        precision=config.train.precision,
        channels_last=config.train.channels_last,
        keep_last=config.model.keep_last,
        config=to_dict(config),
        differences=differences,
    )


def run_options(config: CfgNode) -> dict[str, Any]:
    """The arguments of ``engine.run``."""
    train, test = config.train, config.test
    return {
        "save_dir": config.data.save_dir,
        "max_epoch": train.max_epoch,
        "start_epoch": train.start_epoch,
        "print_freq": train.print_freq,
        "fixbase_epoch": train.fixbase_epoch,
        "open_layers": train.open_layers,
        "start_eval": test.start_eval,
        "eval_freq": test.eval_freq,
        "test_only": test.evaluate,
        "resume": config.model.resume,
        **test_options(config),
    }


def test_options(config: CfgNode) -> dict[str, Any]:
    """The fields of :class:`EvaluationOptions`."""
    test = config.test
    return {
        "dist_metric": test.dist_metric,
        "normalize_feature": test.normalize_feature,
        "ranks": test.ranks,
        "rerank": test.rerank,
        "visrank": True,  # the report shows rank lists, whether or not there is a picture of them
        "visrank_topk": test.visrank_topk,
        "use_metric_cuhk03": config.cuhk03.use_metric_cuhk03,
        "flip": config.eval.flip,
        "precision": config.eval.precision,
        "memory_mb": config.eval.memory_mb,
        "no_match": config.eval.no_match,
    }
