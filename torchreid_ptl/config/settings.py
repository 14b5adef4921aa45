"""Every configuration key: default, meaning, allowed values, and what a change of it affects."""

import functools
from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..losses import registered_losses
from ..runtime.ranges import Open, Range
from .loss_settings import loss_keys

WEIGHTS, SCORES, NOTHING = "weights", "scores", "nothing"
"""What a setting affects; one that affects the weights affects the scores too."""
_KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "a string"}
_LISTS = {str: "a list of strings", int: "a list of integers", float: "a list of numbers"}


@dataclass(frozen=True)
class Setting:
    """One key of the configuration.

    Attributes:
        default: its value when nothing sets it; its type is the type of the key.
        help: its meaning, in a few words.
        choices: the values it may have (or, for a list, its items); empty for any.
        least: the smallest number it may be (or, for a list, its items); None for no bound.
        most: the largest one.
        affects: ``"weights"``, only ``"scores"``, or ``"nothing"``.
        host: whether the key is torchreid's own, with torchreid's meaning and default.

    Example:
        >>> setting = Setting(0.5, "a share", least=0, most=Open(1))
        >>> setting.kind, setting.range
        ('a number', 'from 0 to below 1')
        >>> setting.allows(0.9), setting.allows(1.0), setting.allows(float("nan"))
        (True, False, False)
    """

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    affects: str = WEIGHTS
    host: bool = True

    @property
    def kind(self) -> str:
        """Its type in words."""
        if isinstance(self.default, list):
            return _LISTS[type(self.default[0])]
        return _KINDS[type(self.default)]

    @property
    def range(self) -> str:
        """Its bounds in words; empty without any."""
        return str(Range(self.least, self.most))

    def allows(self, value: Any) -> bool:
        """Whether numbers, or the numbers of a list, are finite and within the bounds."""
        allowed, items = Range(self.least, self.most), value if isinstance(value, list) else [value]
        return all(
            allowed.allows(item) for item in items if isinstance(item, int | float) and not isinstance(item, bool)
        )


def _ours(default: Any, text: str, choices: tuple[str, ...] = (), **more: Any) -> Setting:
    return Setting(default, text, choices, host=False, **more)


LEAST_DEVIATION = 1e-6
LEAST_SIDE = 16
PLAIN = ("softmax", "triplet", "mgn", "margin_softmax")
"""Objectives of a network by itself."""
_STATIC: dict[str, Setting] = {
    "use_gpu": Setting(True, "use a GPU when there is one", affects=NOTHING),
    # model
    "model.name": Setting("resnet50", "a model of torchreid or of this plugin"),
    "model.embedding": _ours(
        0, "dimension of an embedding head on the descriptor; 0: none, or as the weights have it", least=0, most=65536
    ),
    "model.pretrained": Setting(True, "begin from ImageNet weights, through torchreid"),
    "model.load_weights": Setting("", "weights to begin from; a plain backbone's fit its _ptl sibling"),
    "model.load_classifier": _ours(True, "take their classifier too, where it fits; False begins with a new one"),
    "model.resume": Setting(
        "", "checkpoint to continue from, or auto for the newest complete one in data.save_dir", affects=NOTHING
    ),
    "model.keep_last": _ours(
        2, "checkpoints of single epochs to keep, besides the best one", least=1, most=1000000, affects=NOTHING
    ),
    "ptl.start": _ours(
        "identity", "last 1x1 convolution begins as the identity, or random as in the paper", ("identity", "random")
    ),
    "ptl.state": _ours("carry", "states pass from batch to batch, or are reset before each", ("carry", "reset")),
    "ptl.cells": _ours(True, "False builds a _ptl model without cells: the paper's baseline"),
    # data
    "data.type": Setting("image", "kind of data; image re-ID only", ("image",)),
    "data.root": Setting("reid-data", "folder that holds the data sets", affects=NOTHING),
    "data.sources": Setting(["market1501"], "data sets to train on"),
    "data.targets": Setting(["market1501"], "data sets to test on"),
    "data.workers": Setting(4, "processes that load images", least=0, most=1024, affects=NOTHING),
    "data.split_id": Setting(0, "split of data sets that have several", least=0, most=1000),
    "data.height": Setting(256, "image height in pixels", least=LEAST_SIDE, most=8192),
    "data.width": Setting(128, "image width in pixels", least=LEAST_SIDE, most=8192),
    "data.combineall": Setting(False, "train on query and gallery images too"),
    "data.transforms": Setting(
        ["random_flip"],
        "training augmentation",
        ("random_flip", "random_crop", "random_patch", "color_jitter", "random_erase"),
    ),
    "data.k_tfm": Setting(1, "views of an image in a batch", least=1, most=1),
    "data.norm_mean": Setting([0.485, 0.456, 0.406], "mean of each channel, images in [0, 1]", least=-10, most=10),
    "data.norm_std": Setting(
        [0.229, 0.224, 0.225], "standard deviation of each channel", least=LEAST_DEVIATION, most=10
    ),
    "data.save_dir": Setting(
        "log", "folder of a run; by default log/ and the names of the configuration files", affects=NOTHING
    ),
    "data.load_train_targets": Setting(False, "also load the targets' training sets"),
    "data.on_bad_image": _ours(
        "error", "an unreadable image stops the run, or is skipped and counted", ("error", "skip")
    ),
    "market1501.use_500k_distractors": Setting(False, "add the 500k distractors to the gallery"),
    "cuhk03.labeled_images": Setting(False, "CUHK03's hand-labelled boxes instead of the detected ones"),
    "cuhk03.classic_split": Setting(False, "CUHK03's 1,367/100 split instead of 767/700"),
    "cuhk03.use_metric_cuhk03": Setting(
        False, "CUHK03's single-gallery-shot protocol, on every target", affects=SCORES
    ),
    # sampler
    "sampler.train_sampler": Setting("RandomSampler", "sampler of the training loader"),
    "sampler.train_sampler_t": Setting("RandomSampler", "sampler of the targets' training loader"),
    "sampler.num_instances": Setting(
        4, "images of an identity in a batch of RandomIdentitySampler", least=1, most=4096
    ),
    "sampler.num_cams": Setting(1, "cameras in a batch of RandomDomainSampler", least=1, most=4096),
    "sampler.num_datasets": Setting(1, "data sets in a batch of RandomDatasetSampler", least=1, most=4096),
    # training
    "train.optim": Setting("adam", "optimiser: one of torchreid's, or adamw"),
    "train.lr": Setting(0.0003, "learning rate; its peak with one_cycle", least=Open(0), most=1000),
    "train.weight_decay": Setting(5e-4, "weight decay", least=0, most=100),
    "train.max_epoch": Setting(60, "epochs", least=0, most=1000000),
    "train.start_epoch": Setting(0, "epoch to count from", least=0, most=1000000),
    "train.batch_size": Setting(32, "images in a training batch", least=2, most=1000000),
    "train.fixbase_epoch": Setting(0, "first epochs in which only train.open_layers learn", least=0, most=1000000),
    "train.open_layers": Setting(["classifier"], "children of the model that learn in those epochs"),
    "train.staged_lr": Setting(False, "a lower learning rate for all but train.new_layers"),
    "train.new_layers": Setting(["classifier"], "children of the model with the full learning rate"),
    "train.base_lr_mult": Setting(0.1, "factor of the lower learning rate", least=0, most=1000),
    "train.lr_scheduler": Setting("single_step", "one of torchreid's, or one_cycle (a step per batch)"),
    "train.stepsize": Setting([20], "epochs after which the rate is reduced", least=1, most=1000000),
    "train.gamma": Setting(0.1, "factor of that reduction", least=0, most=10),
    "train.print_freq": Setting(
        20, "batches between two lines of progress without a terminal", least=1, most=1000000, affects=NOTHING
    ),
    "train.seed": Setting(1, "seed of all random generators", least=0, most=2**32 - 1),
    "train.precision": _ours("float32", "precision of the forward pass", ("float32", "bfloat16")),
    "train.channels_last": _ours(False, "maps with channels last in memory: faster on a CPU and in bfloat16"),
    "sgd.momentum": Setting(0.9, "momentum of sgd and rmsprop", least=0, most=Open(1)),
    "sgd.dampening": Setting(0.0, "dampening of the momentum", least=0, most=1),
    "sgd.nesterov": Setting(False, "Nesterov momentum"),
    "rmsprop.alpha": Setting(0.99, "smoothing constant", least=0, most=1),
    "adam.beta1": Setting(0.9, "decay of the first moment", least=0, most=Open(1)),
    "adam.beta2": Setting(0.999, "decay of the second moment", least=0, most=Open(1)),
    # loss
    "loss.name": Setting("softmax", "the objective", (*PLAIN, "std", "compatible", "cluster")),
    "loss.softmax.label_smooth": Setting(True, "smooth labels by 0.1 (softmax, triplet)"),
    "loss.triplet.margin": Setting(0.3, "margin of the triplet loss", least=0, most=1000),
    "loss.triplet.weight_t": Setting(1.0, "weight of the triplet loss", least=0, most=1000000),
    "loss.triplet.weight_x": Setting(0.0, "weight of the cross-entropy", least=0, most=1000000),
    "loss.mgn.margin": _ours(1.2, "margin of the triplet loss in MGN's objective", least=0, most=1000),
    "loss.mgn.label_smooth": _ours(False, "smooth labels by 0.1 in MGN's objective"),
    "loss.margin_softmax.scale": _ours(30.0, "scale of the cosines", least=Open(0), most=10000),
    "loss.margin_softmax.margin": _ours(0.3, "angle added to that of the own class, in radians", least=0, most=3),
    "loss.cluster.eps": _ours(0.6, "Jaccard distance up to which images are neighbours", least=Open(0), most=Open(1)),
    "loss.cluster.min_samples": _ours(
        4, "neighbours, itself counted, of an image in the core of a cluster", least=1, most=1000000
    ),
    "loss.cluster.k1": _ours(30, "k-reciprocal neighbours that Jaccard distances are made of", least=1, most=10000),
    "loss.cluster.k2": _ours(6, "neighbours whose codes are averaged; 1 for none", least=1, most=10000),
    "loss.cluster.temperature": _ours(
        0.05, "temperature of the cross-entropy over the clusters' centres", least=1e-4, most=100
    ),
    "loss.cluster.momentum": _ours(0.2, "momentum of a centre in a step", least=0, most=Open(1)),
    # distillation
    "std.teacher": _ours("", "loss.name std: the teacher, a model of torchreid or of this plugin"),
    "std.teacher_weights": _ours(
        "", "its weights: a checkpoint of its training, all of them but the classifier's", affects=NOTHING
    ),
    "std.lambda": _ours(0.8, "weight of the distillation, 0 (plain training) to 1 (no labels)", least=0, most=1),
    "std.objective": _ours("softmax", "the student's own objective", ("softmax", "triplet", "mgn")),
    "std.projection": _ours("none", "where the dimensions differ: a learned map to the teacher's", ("none", "linear")),
    "std.cache": _ours(False, "compute the teacher's features once; only with data.transforms []", affects=NOTHING),
    "std.height": _ours(0, "the teacher's image height; 0: as it was trained, or data.height", least=0, most=8192),
    "std.width": _ours(0, "the teacher's image width; 0: as it was trained, or data.width", least=0, most=8192),
    "std.norm_mean": _ours(
        [0.0, 0.0, 0.0], "the teacher's mean of each channel, with std.norm_std", least=-10, most=10
    ),
    "std.norm_std": _ours(
        [0.0, 0.0, 0.0], "its standard deviation; zeros: as it was trained, or data.norm_*", least=0, most=10
    ),
    # backward-compatible training
    "compat.losses": _ours(["rbcl"], "loss.name compatible: losses on new and old features, summed"),
    "compat.objective": _ours("softmax", "the new model's own objective", ("none", *PLAIN, "cluster")),
    "compat.old": _ours("", "the old model, one of torchreid or of this plugin"),
    "compat.old_weights": _ours("", "its weights; in a chain, the name of the stage that trains it", affects=NOTHING),
    "compat.old_images": _ours("", "training_images.csv of its run, for its classifier; by default of old_weights"),
    "compat.old_height": _ours(0, "its image height; 0: as it was trained, or data.height", least=0, most=8192),
    "compat.old_width": _ours(0, "its image width; 0: as it was trained, or data.width", least=0, most=8192),
    "compat.old_norm_mean": _ours(
        [0.0, 0.0, 0.0], "its mean of each channel, with compat.old_norm_std", least=-10, most=10
    ),
    "compat.old_norm_std": _ours(
        [0.0, 0.0, 0.0], "its standard deviation; zeros: as it was trained, or data.norm_*", least=0, most=10
    ),
    "compat.features": _ours("", "file of old features of the training images, without the old model", affects=NOTHING),
    "compat.bank": _ours(
        "", ".npy file that keeps old features for several runs; else one in data.save_dir", affects=NOTHING
    ),
    "compat.independent": _ours(
        "", "weights of model.name trained without the old one, or their stage: for the gain", affects=SCORES
    ),
    "compat.embedding": _ours(
        "match",
        "where dimensions differ: an embedding head of the old one, a rule, or an error",
        ("match", "truncate", "pad", "none"),
    ),
    # test
    "test.batch_size": Setting(100, "images in a test batch", least=1, most=1000000, affects=SCORES),
    "test.dist_metric": Setting("euclidean", "distance between descriptors", ("euclidean", "cosine"), affects=SCORES),
    "test.normalize_feature": Setting(False, "L2-normalise descriptors", affects=SCORES),
    "test.ranks": Setting([1, 5, 10, 20], "CMC ranks to report", least=1, most=1000000, affects=SCORES),
    "test.evaluate": Setting(False, "test only", affects=SCORES),
    "test.eval_freq": Setting(
        -1, "epochs between two tests; -1 for one at the end", least=-1, most=1000000, affects=SCORES
    ),
    "test.start_eval": Setting(0, "first epoch after which to test", least=0, most=1000000, affects=SCORES),
    "test.rerank": Setting(False, "k-reciprocal re-ranking", affects=SCORES),
    "test.visrank": Setting(False, "draw rank lists as a picture, after training too", affects=NOTHING),
    "test.visrank_topk": Setting(10, "images in a rank list", least=1, most=1000, affects=NOTHING),
    # evaluation
    "eval.flip": _ours(False, "descriptor: mean of the image's and the mirrored image's", affects=SCORES),
    "eval.precision": _ours(
        "float32",
        "precision of the network in tests; ranking is in float32",
        ("float32", "bfloat16", "float16"),
        affects=SCORES,
    ),
    "eval.memory_mb": _ours(
        512, "MiB for ranking and re-ranking, without the descriptors", least=1, most=100000000, affects=NOTHING
    ),
    "eval.no_match": _ours(
        "skip", "queries without a match are excluded, or stop the run", ("skip", "error"), affects=SCORES
    ),
    "eval.far": _ours(
        0.001,
        "false accept rate at which the report gives a threshold",
        least=Open(0),
        most=Open(1),
        affects=SCORES,
    ),
    "eval.rank_lists": _ours("spread", "which queries rank lists show", ("worst", "spread", "random"), affects=NOTHING),
    "eval.rank_list_queries": _ours(8, "queries with a rank list", least=1, most=10000, affects=NOTHING),
}


class _Settings(Mapping[str, Setting]):
    """The keys above, and behind those of ``compat`` the ones of the registered losses."""

    def _all(self) -> dict[str, Setting]:
        return _with_losses(tuple(registered_losses().values()))

    def __getitem__(self, key: str) -> Setting:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, Setting]:
        return self._all().items()


@functools.cache
def _with_losses(losses: tuple[type, ...]) -> dict[str, Setting]:
    names = list(_STATIC)
    own = {
        name: _ours(default, text, choices, least=allowed.least, most=allowed.most)
        for name, (default, text, choices, allowed) in loss_keys().items()
    }
    place = 1 + max(index for index, name in enumerate(names) if name.startswith("compat."))
    found = {name: _STATIC.get(name) or own[name] for name in (*names[:place], *own, *names[place:])}
    found["compat.losses"] = replace(found["compat.losses"], choices=tuple(registered_losses()))
    return found


SETTINGS: Mapping[str, Setting] = _Settings()
"""All keys by their dotted names."""


def as_markdown() -> str:
    """The tables of all keys by section, as ``docs/config.md`` shows them."""
    sections: dict[str, list[str]] = {}
    for key, setting in SETTINGS.items():
        section = key.partition(".")[0] if "." in key else "general"
        origin = "" if setting.host else " (this plugin)"
        values = ", ".join(f"`{choice}`" for choice in setting.choices) or setting.range
        kind = f"{setting.kind}: {values}" if values else setting.kind
        row = f"| `{key}` | `{setting.default!r}` | {setting.help}{origin} | {kind} | {setting.affects} |"
        sections.setdefault(section, []).append(row)
    head = "| key | default | meaning | values | affects |\n|---|---|---|---|---|"
    return "\n".join(f"## {section}\n\n{head}\n" + "\n".join(rows) + "\n" for section, rows in sections.items())
