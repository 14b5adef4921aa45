"""The host's configuration tree and the plugin's keys: loading, inheritance, validation, dump."""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from . import host
from .data.names import check_use
from .hints import hint, nearest
from .settings import SETTINGS

BASE = "_BASE_"
CHAIN = "chain"
"""The key of a chain of stages; see ``cli/stages.py``."""
COMMAND_LINE = "the command line"

Entry = tuple[str, Any, str]
"""A dotted key, its value, and where that was said."""


class ConfigError(ValueError):
    """A configuration cannot be used; the message says what was got, what is allowed and what to do."""


def default_config() -> CfgNode:
    """The whole tree with its defaults."""
    tree: dict[str, Any] = {}
    for key, setting in SETTINGS.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = list(setting.default) if isinstance(setting.default, list) else setting.default
    return CfgNode(tree)


def load_config(path: str | Path | None = None, options: Sequence[str] = ()) -> CfgNode:
    """Builds the configuration of a run.

    Args:
        path: a YAML file; ``_BASE_`` in it names a file, or a list of files, relative to it, that it builds upon.
        options: KEY VALUE pairs that win over the file.

    Returns:
        The tree, not yet frozen.

    Raises:
        FileNotFoundError: the file or one it builds upon is missing.
        ConfigError: an unknown key, a value of the wrong type, a circle of bases, an option without value, or a
            chain of runs where one is wanted.
    """
    return build_config([*read_file(path), *read_options(options)])


def read_file(path: str | Path | None) -> list[Entry]:
    """What a file says, those it builds upon first; nothing without a file."""
    return list(_read(Path(path), ())) if path else []


def read_options(options: Sequence[str]) -> list[Entry]:
    """What KEY VALUE pairs say."""
    if len(options) % 2:
        raise ConfigError(f"Options come in pairs KEY VALUE; {options[-1]!r} has no value. Got: {' '.join(options)}")
    pairs = zip(options[::2], options[1::2], strict=True)
    return [(key, _listed(text) if key == CHAIN else text, COMMAND_LINE) for key, text in pairs]


def build_config(entries: Iterable[Entry]) -> CfgNode:
    """The tree of a run, not yet frozen; later entries win.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or a chain of runs.
    """
    config = default_config()
    for key, value, origin in entries:
        if key == CHAIN:
            raise ConfigError(
                f"{origin} holds a chain of stages and one run is wanted here; take the config.yaml that a stage left "
                "in its folder, or a file without the key chain"
            )
        _set(config, key, value, origin)
    return config


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


def to_dict(config: CfgNode) -> dict[str, Any]:
    """The tree as plain dictionaries and values."""
    return {key: to_dict(value) if isinstance(value, CfgNode) else value for key, value in config.items()}


def get(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def flatten(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of a tree of dictionaries."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read(path: Path, above: tuple[Path, ...]) -> Iterator[Entry]:
    """Yields (dotted key, value, origin) of a file, those of its bases first."""
    path = path.resolve()
    if path in above:
        raise ConfigError("Configurations build upon each other in a circle: " + " -> ".join(map(str, (*above, path))))
    if not path.is_file():
        raise FileNotFoundError(f"No configuration {path}{f', which {above[-1]} builds upon' if above else ''}")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; a configuration is a tree of keys")
    bases = content.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{BASE} in {path} is {bases!r}; expected a file name or a list of them")
    for base in bases:
        yield from _read(path.parent / base, (*above, path))
    if CHAIN in content:
        yield CHAIN, content.pop(CHAIN), str(path)
    for key, value in flatten(content):
        yield key, value, str(path)


def _set(config: CfgNode, key: str, value: Any, origin: str) -> None:
    if key not in SETTINGS:
        raise ConfigError(f"Unknown key {key!r} in {origin}: {_hint(key)}")
    *sections, name = key.split(".")
    node = config
    for section in sections:
        node = node[section]
    node[name] = _typed(key, value, origin)


def _hint(key: str) -> str:
    below = [known for known in SETTINGS if known.startswith(f"{key}.")]
    if below:
        return f"it is a section with the keys {', '.join(below)}"
    same_name = [known for known in SETTINGS if known.rpartition(".")[2] == key.rpartition(".")[2]]
    close = nearest(key, SETTINGS) or next(iter(same_name), None)
    return f"did you mean {close!r}?" if close else "docs/config.md lists all keys"


def _listed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{CHAIN} is {text!r} on {COMMAND_LINE}; expected a list such as '[a, b]'") from error


def _typed(key: str, value: Any, origin: str) -> Any:
    default = SETTINGS[key].default
    if not isinstance(default, str) and isinstance(value, str):
        value = _literal(value)
    if isinstance(default, list) and isinstance(value, str):
        value = _unquoted(value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, list) and isinstance(value, tuple):
        value = list(value)
    if type(value) is not type(default) or not _items_fit(value, default):
        raise ConfigError(
            f"{key} in {origin} is {value!r} ({type(value).__name__}); expected {_kind(default)} such as {default!r}"
        )
    return value


def _items_fit(value: Any, default: Any) -> bool:
    if not isinstance(default, list):
        return True
    allowed: tuple[type, ...] = (float, int) if isinstance(default[0], float) else (type(default[0]),)
    return all(type(item) in allowed for item in value)


def _kind(default: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    if isinstance(default, list):
        return {str: "a list of texts", int: "a list of whole numbers", float: "a list of numbers"}[type(default[0])]
    return names[type(default)]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _unquoted(text: str) -> Any:
    """A list as YAML writes it, ``[rbcl, bct]``, which a shell leaves without quotes."""
    try:
        return yaml.safe_load(text) if text.startswith("[") else text
    except yaml.YAMLError:
        return text


def _require_choice(key: str, value: str, allowed: Sequence[str] | Mapping[str, Any]) -> None:
    if value in allowed:
        return
    raise ConfigError(f"{key} is {value!r}: {hint(value, allowed)}")


def _validate_data_sets(config: CfgNode) -> None:
    data = config.data
    try:
        check_use(data.sources, data.targets, data.combineall)
    except ValueError as error:
        raise ConfigError(str(error)) from error
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
    "compat.contrastive.negatives": 0,
    "compat.nccl.queue": 1,
    "compat.rbcl.neighbours": 1,
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
