"""Turns a configuration into objects."""

from typing import Any

import torch
import torchreid
from torch import nn
from yacs.config import CfgNode

from ..config import ConfigError, to_dict
from ..data.manager import ImageDataManager
from ..engines import (
    BesideObjective,
    ClusterObjective,
    CompatibleObjective,
    ImagePTLEngine,
    InputStyle,
    MarginSoftmaxObjective,
    MGNObjective,
    Objective,
    SoftmaxObjective,
    STDObjective,
    TripletObjective,
    descriptor_dim,
)
from ..hints import hint
from ..models import available_models
from ..runtime.weights import load_weights
from .compatible import build_compatible
from .distil import build_distillation
from .networks import build_network, embedding_of, read_weights
from .old_side import OldSource


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


_KINDS: dict[str, type[Objective]] = {
    "softmax": SoftmaxObjective,
    "mgn": MGNObjective,
    "triplet": TripletObjective,
    "margin_softmax": MarginSoftmaxObjective,
    "std": STDObjective,
    "compatible": CompatibleObjective,
    "cluster": ClusterObjective,
}


def model_loss(config: CfgNode) -> str:
    """What the objective of ``loss.name`` asks a model to be built for."""
    return _KINDS[config.loss.name].model_loss


def build_objective(config: CfgNode, model: nn.Module, datamanager: Any) -> Objective:
    """The objective ``loss.name`` stands for, but for ``compatible``, which :func:`build_engine` makes.

    Args:
        config: the configuration.
        model: what it will train.
        datamanager: its images.
    """
    if config.loss.name == "std":
        base = _plain_objective(config, config.std.objective, model, datamanager)
        return build_distillation(config, base, model, datamanager)
    if config.loss.name == "cluster":
        return ClusterObjective(**config.loss.cluster)
    return _plain_objective(config, config.loss.name, model, datamanager)


def _plain_objective(config: CfgNode, name: str, model: nn.Module, datamanager: Any) -> Objective:
    loss = config.loss
    if name == "softmax":
        return SoftmaxObjective(loss.softmax.label_smooth)
    if name == "mgn":
        return MGNObjective(loss.mgn.margin, loss.mgn.label_smooth)
    if name == "margin_softmax":
        dim = descriptor_dim(model, InputStyle.of(datamanager))
        return MarginSoftmaxObjective(
            datamanager.num_train_pids, dim, loss.margin_softmax.scale, loss.margin_softmax.margin
        )
    triplet = loss.triplet
    return TripletObjective(triplet.margin, triplet.weight_t, triplet.weight_x, loss.softmax.label_smooth)


def _model_and_objective(config: CfgNode, datamanager: Any) -> tuple[nn.Module, Objective]:
    num_classes = 1 if config.loss.name == "cluster" else datamanager.num_train_pids  # clusters need no classifier
    model = build_model(config, num_classes, model_loss(config))
    if config.loss.name != "compatible":
        return model, build_objective(config, model, datamanager)
    compat, style = config.compat, InputStyle.of(datamanager)
    if config.test.evaluate:  # a test asks for no losses
        return model, BesideObjective(None)
    source = OldSource(config, datamanager)
    dim = descriptor_dim(model, style)
    if compat.embedding == "match" and dim != source.side.dim:
        config = config.clone()
        config.defrost()
        config.model.embedding = dim = source.side.dim
        model = build_model(config, datamanager.num_train_pids, model_loss(config))
    base = None
    if compat.objective != "none":
        base = _plain_objective(config, compat.objective, model, datamanager)
    return model, build_compatible(config, base, model, datamanager, source, dim)


def build_model(config: CfgNode, num_classes: int, loss: str) -> nn.Module:
    """Builds ``model.name``, with the plugin's switches if it is one of its models, and loads ``model.load_weights``.

    It gets the embedding head that ``model.embedding`` asks for, or that the weights have.

    Args:
        config: the configuration.
        num_classes: number of training identities.
        loss: what the objective asks the model to be built for.

    Raises:
        FileNotFoundError: there is no file of weights.
        CheckpointError: weights of another model.
        ConfigError: the embedding heads asked for and in the weights differ, or one is to be tested that was never
            trained.
    """
    name, asked = config.model.name, config.model
    options: dict[str, Any] = {}
    if name in available_models():
        options = {"state": config.ptl.state}
        if not name.startswith("mgn"):
            options["start"] = config.ptl.start
        if not config.ptl.cells:
            options["version"] = 0
    weights = read_weights(asked.load_weights) if asked.load_weights else None
    model = build_network(
        name,
        num_classes,
        loss,
        embedding=embedding_of(config, weights),
        # weights that are loaded anyway need no ImageNet weights before them
        pretrained=asked.pretrained and not weights,
        use_gpu=config.use_gpu,
        size=(config.data.height, config.data.width),
        **options,
    )
    if weights:
        report = load_weights(model, weights.state, classifier=asked.load_classifier, label=weights.path)
        head = f", with an embedding head of {weights.embedding} dimensions" if weights.embedding else ""
        print(f"Loading {weights.path}{head}\n{report}")
    return model.to("cuda" if config.use_gpu and torch.cuda.is_available() else "cpu")


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
        batches: batches in an epoch.
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
    """Builds model, objective, optimiser, scheduler and the engine that drives them."""
    model, objective = _model_and_objective(config, datamanager)
    optimizer = build_optimizer(config, model, objective)
    return ImagePTLEngine(
        datamanager,
        model,
        optimizer,
        objective,
        build_scheduler(config, optimizer, len(datamanager.train_loader)),
        config.use_gpu,
        step_scheduler_per_batch=config.train.lr_scheduler == "one_cycle",
        precision=config.train.precision,
        channels_last=config.train.channels_last,
        keep_last=config.model.keep_last,
        config=to_dict(config),
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
    """The fields of :class:`TestOptions`."""
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
