"""What a configuration must be before anything is built: names, numbers, and what goes together."""

from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from .. import host
from ..data.names import check_use
from ..losses import build_loss
from ..runtime.hints import hint
from ..runtime.seeding import random_state_kept
from .loading import ConfigError, get
from .loss_settings import loss_arguments
from .settings import SETTINGS
from .words import in_keys


def validate(config: CfgNode) -> None:
    """Checks names and combinations that can be checked before anything is built.

    Raises:
        ConfigError: with the key, what it is and what it may be.
    """
    for key, setting in SETTINGS.items():
        if setting.choices:
            items = get(config, key)
            for item in items if isinstance(items, list) else [items]:
                _require_choice(key, item, setting.choices)
    known = host.training_choices()
    _require_choice("model.name", config.model.name, host.models())
    _require_choice("train.optim", config.train.optim, [*known["optim"], "adamw"])
    _require_choice("train.lr_scheduler", config.train.lr_scheduler, [*known["lr_scheduler"], "one_cycle"])
    for key in ("sampler.train_sampler", "sampler.train_sampler_t"):
        _require_choice(key, get(config, key), known["sampler"])
    _validate_data_sets(config)
    _validate_numbers(config)
    _validate_combinations(config)


def _require_choice(key: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value in allowed:
        return
    raise ConfigError(f"{key} is {value!r}: {hint(value, allowed)}")


def _validate_data_sets(config: CfgNode) -> None:
    data = config.data
    try:
        check_use(data.sources, data.targets, data.combineall)
    except ValueError as error:
        raise ConfigError(in_keys(error)) from error
    for name in (*data.sources, *data.targets):
        _require_choice("data.sources and data.targets", name, host.image_datasets())


def _validate_numbers(config: CfgNode) -> None:
    for key, least in _LEAST.items():
        if get(config, key) < least:
            raise ConfigError(f"{key} is {get(config, key)}; the least is {least}")
    for key in _CHANNELS:
        if len(get(config, key)) != 3:
            raise ConfigError(f"{key} is {get(config, key)}; images have three channels")
        unset = not key.startswith("data.") and not any(get(config, key))
        if key.endswith("std") and min(get(config, key)) <= 0 and not unset:
            raise ConfigError(f"{key} is {get(config, key)}; deviations are above 0")
    train, test, distil = config.train, config.test, config.std["lambda"]
    _require(
        {
            f"test.ranks is {test.ranks}; ranks count from 1, for example [1, 5, 10, 20]": not test.ranks
            or min(test.ranks) < 1,
            f"train.stepsize is {train.stepsize}; epochs count from 1, for example [20]": not train.stepsize
            or min(train.stepsize) < 1,
            f"eval.far is {config.eval.far}; a rate is above 0 and below 1, for example 0.001": not 0
            < config.eval.far
            < 1,
            f"train.lr is {train.lr}; a learning rate is above 0": not train.lr > 0,
            f"std.lambda is {distil}; a weight between 0, the plain training, and 1, without labels; the paper's is "
            "0.8": not 0 <= distil <= 1,
        }
    )


_CHANNELS = [f"{section}norm_{kind}" for section in ("data.", "std.", "compat.old_") for kind in ("mean", "std")]

_LEAST = {
    "train.batch_size": 2,
    "test.batch_size": 1,
    "train.max_epoch": 0,
    "data.height": 16,
    "data.width": 16,
    "train.start_epoch": 0,
    "train.fixbase_epoch": 0,
    "sampler.num_cams": 1,
    "sampler.num_datasets": 1,
    "data.workers": 0,
    "model.embedding": 0,
    "model.keep_last": 1,
    "sampler.num_instances": 1,
    "test.visrank_topk": 1,
    "train.print_freq": 1,
    "eval.memory_mb": 1,
    "eval.rank_list_queries": 1,
    "loss.cluster.min_samples": 1,
    "loss.cluster.k1": 1,
    "loss.cluster.k2": 1,
    "std.height": 0,
    "std.width": 0,
    "compat.old_height": 0,
    "compat.old_width": 0,
}


def _require(rules: Mapping[str, bool]) -> None:
    """Raises the first message whose rule is broken."""
    for message, broken in rules.items():
        if broken:
            raise ConfigError(message)


def _validate_combinations(config: CfgNode) -> None:
    triplet = config.loss.triplet
    is_mgn_model = config.model.name.startswith("mgn")
    # what the model learns from labels, alone or beside a teacher
    key, objective = ("loss.name", config.loss.name)
    if objective == "std":
        key, objective = ("std.objective", config.std.objective)
        _validate_distillation(config)
    if objective == "compatible":
        key, objective = ("compat.objective", config.compat.objective)
        _validate_compatible(config)
    if objective == "cluster":
        _validate_clusters(config)
    _require(
        {
            f"{key} mgn is the objective of the models mgn, mgn_ptl and mgn_ptl_v2; choose softmax or triplet for "
            f"{config.model.name}": objective == "mgn" and not is_mgn_model,
            f"{key} margin_softmax has weights for one descriptor, and MGN learns by several; choose mgn or softmax": (
                objective == "margin_softmax" and is_mgn_model
            ),
            f"{key} {objective} compares images of an identity within a batch; set sampler.train_sampler "
            f"RandomIdentitySampler instead of {config.sampler.train_sampler}": objective in ("triplet", "mgn")
            and config.sampler.train_sampler != "RandomIdentitySampler",
            "loss.triplet.weight_t and weight_x: at least 0, and one of them above": objective == "triplet"
            and (min(triplet.weight_t, triplet.weight_x) < 0 or triplet.weight_t + triplet.weight_x == 0),
            "train.fixbase_epoch trains the classifier alone, which loss.triplet.weight_x 0 leaves out of the loss; "
            "set one of them to another value": objective == "triplet"
            and triplet.weight_x == 0
            and config.train.fixbase_epoch > 0,
            "data.k_tfm gives several views of an image; the engine takes one: set it to 1": config.data.k_tfm != 1,
            "data.load_train_targets loads training sets of targets that are not sources; choose others or set it "
            "to False": config.data.load_train_targets and bool({*config.data.sources} & {*config.data.targets}),
            "data.sources or data.targets is empty; name at least one data set": not config.data.sources
            or not config.data.targets,
        }
    )


def _validate_clusters(config: CfgNode) -> None:
    cluster, train = config.loss.cluster, config.train
    _require(
        {
            f"loss.cluster.eps is {cluster.eps}; a Jaccard distance above 0 and below 1, for example 0.6": not 0
            < cluster.eps
            < 1,
            f"loss.cluster.temperature is {cluster.temperature}; a temperature is above 0, for example 0.05": (
                cluster.temperature <= 0
            ),
            f"loss.cluster.momentum is {cluster.momentum}; a share from 0 to below 1, for example 0.2": not 0
            <= cluster.momentum
            < 1,
            "train.fixbase_epoch trains the classifier alone, which loss.name cluster does not use; set it to 0": (
                train.fixbase_epoch > 0
            ),
            "train.lr_scheduler one_cycle counts the batches of all epochs beforehand, and clusters change their "
            "number; choose cosine, multi_step or single_step for loss.name cluster": train.lr_scheduler == "one_cycle",
        }
    )


def _validate_distillation(config: CfgNode) -> None:
    std = config.std
    _require(
        {
            "loss.name std needs a teacher: std.teacher, the name of its model, for example "
            f"{config.model.name}_ptl": not std.teacher,
            "loss.name std needs the teacher's weights: std.teacher_weights, a checkpoint of its training such as "
            "log/ptl/model/model-best.pth.tar": not std.teacher_weights and not config.test.evaluate,
            "train.fixbase_epoch trains the classifier alone, which std.lambda 1 leaves out of the loss; set one of "
            "them to another value": std["lambda"] == 1 and config.train.fixbase_epoch > 0,
            f"std.cache computes the teacher's features once, which needs images without augmentation; data.transforms "
            f"is {config.data.transforms}: set it to [], or std.cache to False": std.cache
            and bool(config.data.transforms),
        }
    )
    _require_choice("std.teacher", std.teacher, host.models())


def _validate_compatible(config: CfgNode) -> None:
    compat = config.compat
    stands_in = "mixbct" in compat.losses
    _require(
        {
            "compat.losses is empty; name at least one of the losses, rbcl for example": not compat.losses,
            f"compat.losses is {compat.losses}; each loss stands there once": len(set(compat.losses))
            < len(compat.losses),
            "loss.name compatible needs the old side: compat.old, the name of the old model, and compat.old_weights, a "
            "checkpoint of its training; or compat.features, a file of old features of the training images": not (
                compat.features or (compat.old and (compat.old_weights or config.test.evaluate))
            ),
            f"compat.features is {compat.features!r} and compat.old {compat.old!r}; old features come from one of "
            "them": bool(compat.features and compat.old),
            f"compat.independent is {compat.independent!r} and compat.features {compat.features!r}: without the old "
            "model nothing is compared after the training. Leave compat.independent empty, and give it to "
            "tools/compatibility.py --independent later": bool(compat.features and compat.independent),
            "compat.objective none leaves the new model without anything to learn identities by: choose softmax, or "
            "add mixbct to compat.losses": compat.objective == "none" and not stands_in,
            f"compat.losses is {compat.losses}, and mixbct and lce need identities that stay; compat.objective cluster "
            "finds them anew in each epoch. Choose other losses": compat.objective == "cluster"
            and bool({"mixbct", "lce"} & {*compat.losses}),
            "compat.objective cluster knows no identities of the old classifier; set compat.bct.prototypes to means": (
                compat.objective == "cluster" and "bct" in compat.losses and compat.bct.prototypes == "classifier"
            ),
            "compat.objective cluster describes images by one feature, and MGN learns by several; choose another "
            "model": compat.objective == "cluster" and config.model.name.startswith("mgn"),
            f"compat.bank is {compat.bank!r}; a bank of old features is a file *.npy": bool(compat.bank)
            and not compat.bank.endswith(".npy"),
            "compat.objective none with compat.mixbct.weight 0 leaves nothing to learn identities by: set one of "
            "them to another value": compat.objective == "none" and compat.mixbct.weight == 0,
            "train.fixbase_epoch trains the classifier alone, which compat.objective none leaves out of the loss; set "
            "one of them to another value": compat.objective == "none" and config.train.fixbase_epoch > 0,
        }
    )
    if compat.old:
        _require_choice("compat.old", compat.old, host.models())
    for name in compat.losses:
        if not 0 <= compat[name].weight < float("inf"):
            raise ConfigError(f"compat.{name}.weight is {compat[name].weight}; a weight is a number from 0")
        try:
            with random_state_kept():
                build_loss(name, loss_arguments(compat[name]), dim=1, num_classes=1, seed=0)
        except ValueError as error:
            raise ConfigError(f"compat.{name}: {error}") from error
