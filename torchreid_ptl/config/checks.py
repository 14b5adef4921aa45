"""Checks of a configuration before anything is built: names, numbers and combinations."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from .. import host
from ..data.known import hint_dataset
from ..data.names import check_use
from ..losses import build_loss
from ..runtime.errors import WordedError, worded
from ..runtime.hints import hint
from ..runtime.ranges import shown
from ..runtime.seeding import random_state_kept
from .loading import ConfigError, get
from .loss_settings import loss_arguments
from .settings import LEAST_DEVIATION, LEAST_SIDE, SETTINGS, Setting
from .words import in_keys

Rule = tuple[bool, str]
"""Whether it is broken, and the message."""
_CHANNELS = [f"{section}norm_{kind}" for section in ("data.", "std.", "compat.old_") for kind in ("mean", "std")]


def validate(config: CfgNode) -> None:
    """Checks names, numbers and combinations that can be checked before anything is built.

    Raises:
        ConfigError: with the key, what it is and what it may be.
    """
    for key, setting in SETTINGS.items():
        _check_value(key, get(config, key), setting)
    _check_names(config)
    for rules in (_training, _data, _channels, _objectives):
        _require(rules(config))


def is_mgn(model: str) -> bool:
    """Whether a model of this name is an MGN, which trains several descriptors."""
    return model.startswith("mgn")


def _check_value(key: str, value: Any, setting: Setting) -> None:
    if setting.choices:
        for item in value if isinstance(value, list) else [value]:
            _require_choice(key, item, setting.choices)
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not _can_be_a_path(text):
            raise ConfigError(f"{key} is {shown(text)}; no name or path is like that, in its characters or its length")
    if not setting.allows(value):
        raise ConfigError(f"{key} is {shown(value)}; allowed: {setting.range or 'finite numbers'} ({setting.help})")


def _can_be_a_path(text: str) -> bool:
    try:
        path = os.fsencode(text)
        return b"\0" not in path and len(path) < 4096 and all(len(name) < 256 for name in path.split(b"/"))
    except UnicodeEncodeError:  # half a pair of surrogates
        return False


def _check_names(config: CfgNode) -> None:
    known = host.training_choices()
    _require_choice("model.name", config.model.name, host.models())
    _require_choice("train.optim", config.train.optim, [*known["optim"], "adamw"])
    _require_choice("train.lr_scheduler", config.train.lr_scheduler, [*known["lr_scheduler"], "one_cycle"])
    for key in ("sampler.train_sampler", "sampler.train_sampler_t"):
        _require_choice(key, get(config, key), known["sampler"])
    data = config.data
    try:
        check_use(data.sources, data.targets, data.combineall)
    except ValueError as error:
        raise ConfigError(in_keys(error)) from error
    for name in (*data.sources, *data.targets):
        if name not in host.image_datasets():
            raise ConfigError(f"data.sources and data.targets is {name!r}: {hint_dataset(name)}")


def _require_choice(key: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} is {shown(value)}: {hint(value, allowed)}")


def _require(rules: Sequence[Rule]) -> None:
    """Raises the message of the first rule that is broken."""
    for broken, message in rules:
        if broken:
            raise ConfigError(message)


def _training(config: CfgNode) -> list[Rule]:
    train = config.train
    return [
        (
            train.start_epoch >= max(1, train.max_epoch) and not config.test.evaluate,
            f"train.start_epoch is {train.start_epoch} and train.max_epoch {train.max_epoch}: no epoch is left to "
            "train. train.max_epoch counts all epochs; raise it, or set train.start_epoch 0",
        ),
        (
            train.optim == "sgd"
            and config.sgd.nesterov
            and not (config.sgd.momentum > 0 and config.sgd.dampening == 0),
            f"sgd.nesterov needs sgd.momentum above 0 and sgd.dampening 0; they are {config.sgd.momentum} and "
            f"{config.sgd.dampening}",
        ),
        (
            train.fixbase_epoch > 0 and not train.open_layers,
            f"train.fixbase_epoch is {train.fixbase_epoch} and train.open_layers []: nothing learns in these epochs. "
            "Name layers, or set train.fixbase_epoch to 0",
        ),
        (not config.test.ranks, "test.ranks is []; ranks count from 1, for example [1, 5, 10, 20]"),
        (not config.train.stepsize, "train.stepsize is []; epochs count from 1, for example [20]"),
    ]


def _data(config: CfgNode) -> list[Rule]:
    data = config.data
    return [
        (
            data.load_train_targets and bool({*data.sources} & {*data.targets}),
            "data.load_train_targets loads training sets of targets that are not sources; choose others or set it to "
            "False",
        ),
        (
            not data.sources or not data.targets,
            "data.sources or data.targets is empty; name at least one data set",
        ),
    ]


def _channels(config: CfgNode) -> list[Rule]:
    values = {key: get(config, key) for key in _CHANNELS}
    return [
        *((len(value) != 3, f"{key} is {value}; images have three channels") for key, value in values.items()),
        *(
            (
                any(value) and min(value) < LEAST_DEVIATION,
                f"{key} is {value}; deviations are from {LEAST_DEVIATION}, or all 0 where they are not set",
            )
            for key, value in values.items()
            if key.endswith("std")
        ),
        *(
            (0 < get(config, key) < LEAST_SIDE, f"{key} is {get(config, key)}; allowed: 0, or from {LEAST_SIDE}")
            for key in ("std.height", "std.width", "compat.old_height", "compat.old_width")
        ),
    ]


def _objectives(config: CfgNode) -> list[Rule]:
    """Of the objectives: labels, a teacher, an old model."""
    key, name = "loss.name", config.loss.name
    rules: list[Rule] = []
    if name == "std":
        key, name, rules = "std.objective", config.std.objective, _distillation(config)
    if name == "compatible":
        _validate_losses(config)
        key, name, rules = "compat.objective", config.compat.objective, _compatible(config)
    if name == "cluster":
        rules += _clusters(config)
    return [*rules, *_plain(config, key, name)]


def _plain(config: CfgNode, key: str, name: str) -> list[Rule]:
    triplet, model = config.loss.triplet, config.model.name
    is_triplet = name == "triplet"
    return [
        (
            name == "mgn" and not is_mgn(model),
            f"{key} mgn is the objective of the models mgn, mgn_ptl and mgn_ptl_v2; choose softmax or triplet for "
            f"{model}",
        ),
        (
            name == "margin_softmax" and is_mgn(model),
            f"{key} margin_softmax has weights for one descriptor, and MGN trains several; choose mgn or softmax",
        ),
        (
            name in ("triplet", "mgn") and config.sampler.train_sampler != "RandomIdentitySampler",
            f"{key} {name} compares images of an identity within a batch; set sampler.train_sampler "
            f"RandomIdentitySampler instead of {config.sampler.train_sampler}",
        ),
        (
            is_triplet and triplet.weight_t + triplet.weight_x == 0,
            "loss.triplet.weight_t and weight_x: at least 0, and one of them above",
        ),
        (
            is_triplet and triplet.weight_x == 0 and config.train.fixbase_epoch > 0,
            "train.fixbase_epoch trains only the classifier, which loss.triplet.weight_x 0 excludes from the loss; "
            "set one of them to another value",
        ),
    ]


def _clusters(config: CfgNode) -> list[Rule]:
    return [
        (
            config.train.fixbase_epoch > 0,
            "train.fixbase_epoch trains only the classifier, which loss.name cluster does not use; set it to 0",
        ),
        (
            config.train.lr_scheduler == "one_cycle",
            "train.lr_scheduler one_cycle counts the batches of all epochs beforehand, and clusters change their "
            "number; choose cosine, multi_step or single_step for loss.name cluster",
        ),
    ]


def _distillation(config: CfgNode) -> list[Rule]:
    std = config.std
    if std.teacher:
        _require_choice("std.teacher", std.teacher, host.models())
    return [
        (
            not std.teacher,
            f"loss.name std needs a teacher: std.teacher, the name of its model, for example {config.model.name}_ptl",
        ),
        (
            not std.teacher_weights and not config.test.evaluate,
            "loss.name std needs the teacher's weights: std.teacher_weights, a checkpoint of its training such as "
            "log/ptl/model/model-best.pth.tar",
        ),
        (
            std["lambda"] == 1 and config.train.fixbase_epoch > 0,
            "train.fixbase_epoch trains only the classifier, which std.lambda 1 excludes from the loss; set one of "
            "them to another value",
        ),
        (
            std.cache and bool(config.data.transforms),
            "std.cache computes the teacher's features once, which needs images without augmentation; data.transforms "
            f"is {config.data.transforms}: set it to [], or std.cache to False",
        ),
    ]


def _compatible(config: CfgNode) -> list[Rule]:
    by_cluster = config.compat.objective == "cluster"
    return [*_old_side(config), *(_with_clusters(config) if by_cluster else _own_objective(config))]


def _old_side(config: CfgNode) -> list[Rule]:
    compat = config.compat
    if compat.old:
        _require_choice("compat.old", compat.old, host.models())
    old_model = compat.old and (compat.old_weights or config.test.evaluate)
    return [
        (
            not (compat.features or old_model),
            "loss.name compatible needs old features: compat.old, the name of the old model, and compat.old_weights, a "
            "checkpoint of its training; or compat.features, a file of old features of the training images",
        ),
        (
            bool(compat.features and compat.old),
            f"compat.features is {shown(compat.features)} and compat.old {shown(compat.old)}; old features come from "
            "one of them",
        ),
        (
            bool(compat.features and compat.independent),
            f"compat.independent is {shown(compat.independent)} and compat.features {shown(compat.features)}: without "
            "the old model nothing is compared after the training. Set compat.independent to '', and give it to "
            "tools/compatibility.py --independent later",
        ),
        (
            bool(compat.bank) and not compat.bank.endswith(".npy"),
            f"compat.bank is {shown(compat.bank)}; a bank of old features is a file *.npy",
        ),
    ]


def _own_objective(config: CfgNode) -> list[Rule]:
    compat = config.compat
    no_objective = compat.objective == "none"
    return [
        (
            no_objective and "mixbct" not in compat.losses,
            "compat.objective none without mixbct has no identity loss: choose softmax, or add mixbct to compat.losses",
        ),
        (
            no_objective and compat.mixbct.weight == 0,
            "compat.objective none with compat.mixbct.weight 0 has no identity loss: set one of them to another value",
        ),
        (
            no_objective and config.train.fixbase_epoch > 0,
            "train.fixbase_epoch trains only the classifier, which compat.objective none excludes from the loss; set "
            "one of them to another value",
        ),
    ]


def _with_clusters(config: CfgNode) -> list[Rule]:
    compat = config.compat
    return [
        (
            bool({"mixbct", "lce"} & {*compat.losses}),
            f"compat.losses is {compat.losses}, and mixbct and lce need fixed identities; compat.objective cluster "
            "computes them anew in each epoch. Choose other losses",
        ),
        (
            "bct" in compat.losses and compat.bct.prototypes == "classifier",
            "compat.objective cluster knows no identities of the old classifier; set compat.bct.prototypes to means",
        ),
        (
            is_mgn(config.model.name),
            "compat.objective cluster describes images by one feature, and MGN trains several; choose another model",
        ),
    ]


def _validate_losses(config: CfgNode) -> None:
    compat = config.compat
    _require(
        [
            (not compat.losses, "compat.losses is empty; name at least one of the losses, rbcl for example"),
            (
                len(set(compat.losses)) < len(compat.losses),
                f"compat.losses is {compat.losses}; name each loss once",
            ),
        ]
    )
    for name in compat.losses:
        arguments = loss_arguments(compat[name])
        try:
            with random_state_kept():
                build_loss(name, arguments, dim=1, num_classes=1, seed=0)
        except WordedError as error:
            keys = {argument: f"compat.{name}.{argument.removesuffix('_')}" for argument in arguments}
            raise ConfigError(worded(error, keys)) from error
        except ValueError as error:
            raise ConfigError(f"compat.{name}: {error}") from error
