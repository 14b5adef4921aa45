"""Every configuration key: its default, what it means, and what it may be."""

from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..losses import registered_losses
from .loss_settings import loss_keys


@dataclass(frozen=True)
class Setting:
    """One key of the configuration.

    Attributes:
        default: its value when nobody sets it; its type is the type of the key.
        help: what it means, in a few words.
        choices: the values it may have (or, for a list, its items); empty for any.
        host: whether the key is torchreid's own, with torchreid's meaning and default.
    """

    default: Any
    help: str
    choices: tuple[str, ...] = ()
    host: bool = True


def _ours(default: Any, text: str, choices: tuple[str, ...] = ()) -> Setting:
    return Setting(default, text, choices, host=False)


PLAIN = ("softmax", "triplet", "mgn", "margin_softmax")
"""Objectives of a network by itself."""
_STATIC: dict[str, Setting] = {
    "use_gpu": Setting(True, "use a GPU when there is one"),
    # model
    "model.name": Setting("resnet50", "a model of torchreid or of this plugin"),
    "model.embedding": _ours(0, "dimension of an embedding head on the descriptor; 0: none, or as the weights have it"),
    "model.pretrained": Setting(True, "begin from ImageNet weights, through torchreid"),
    "model.load_weights": Setting("", "weights to begin from; a plain backbone's fit its _ptl sibling"),
    "model.load_classifier": _ours(True, "take their classifier too, where it fits; False begins with a new one"),
    "model.resume": Setting("", "checkpoint to continue from, or auto for the newest whole one in data.save_dir"),
    "model.keep_last": _ours(2, "checkpoints of single epochs to keep, beside the best one"),
    "ptl.start": _ours(
        "identity", "last 1x1 convolution begins as the identity, or random as in the paper", ("identity", "random")
    ),
    "ptl.state": _ours("carry", "states pass from batch to batch, or are reset before each", ("carry", "reset")),
    "ptl.cells": _ours(True, "False leaves the cells out of a _ptl model: the paper's baseline"),
    # data
    "data.type": Setting("image", "kind of data; image re-ID only", ("image",)),
    "data.root": Setting("reid-data", "folder that holds the data sets"),
    "data.sources": Setting(["market1501"], "data sets to train on"),
    "data.targets": Setting(["market1501"], "data sets to test on"),
    "data.workers": Setting(4, "processes that load images"),
    "data.split_id": Setting(0, "split of data sets that have several"),
    "data.height": Setting(256, "image height in pixels"),
    "data.width": Setting(128, "image width in pixels"),
    "data.combineall": Setting(False, "train on query and gallery images too"),
    "data.transforms": Setting(
        ["random_flip"],
        "training augmentation",
        ("random_flip", "random_crop", "random_patch", "color_jitter", "random_erase"),
    ),
    "data.k_tfm": Setting(1, "views of an image in a batch; 1 only"),
    "data.norm_mean": Setting([0.485, 0.456, 0.406], "mean of each channel, images in [0, 1]"),
    "data.norm_std": Setting([0.229, 0.224, 0.225], "standard deviation of each channel"),
    "data.save_dir": Setting("log", "folder of a run; by default log/ and the names of the configuration files"),
    "data.load_train_targets": Setting(False, "also load the targets' training sets"),
    "data.on_bad_image": _ours(
        "error", "an unreadable image stops the run, or is left out and counted", ("error", "skip")
    ),
    "market1501.use_500k_distractors": Setting(False, "add the 500k distractors to the gallery"),
    "cuhk03.labeled_images": Setting(False, "CUHK03's hand-labelled boxes instead of the detected ones"),
    "cuhk03.classic_split": Setting(False, "CUHK03's 1,367/100 split instead of 767/700"),
    "cuhk03.use_metric_cuhk03": Setting(False, "CUHK03's single-gallery-shot protocol, on every target"),
    # sampler
    "sampler.train_sampler": Setting("RandomSampler", "sampler of the training loader"),
    "sampler.train_sampler_t": Setting("RandomSampler", "sampler of the targets' training loader"),
    "sampler.num_instances": Setting(4, "images of an identity in a batch of RandomIdentitySampler"),
    "sampler.num_cams": Setting(1, "cameras in a batch of RandomDomainSampler"),
    "sampler.num_datasets": Setting(1, "data sets in a batch of RandomDatasetSampler"),
    # training
    "train.optim": Setting("adam", "optimiser: one of torchreid's, or adamw"),
    "train.lr": Setting(0.0003, "learning rate; its peak with one_cycle"),
    "train.weight_decay": Setting(5e-4, "weight decay"),
    "train.max_epoch": Setting(60, "epochs"),
    "train.start_epoch": Setting(0, "epoch to count from"),
    "train.batch_size": Setting(32, "images in a training batch"),
    "train.fixbase_epoch": Setting(0, "first epochs in which only train.open_layers learn"),
    "train.open_layers": Setting(["classifier"], "children of the model that learn in those epochs"),
    "train.staged_lr": Setting(False, "a lower learning rate for all but train.new_layers"),
    "train.new_layers": Setting(["classifier"], "children of the model with the full learning rate"),
    "train.base_lr_mult": Setting(0.1, "factor of the lower learning rate"),
    "train.lr_scheduler": Setting("single_step", "one of torchreid's, or one_cycle (a step per batch)"),
    "train.stepsize": Setting([20], "epochs of the steps"),
    "train.gamma": Setting(0.1, "factor of a step"),
    "train.print_freq": Setting(20, "batches between two lines of progress without a terminal"),
    "train.seed": Setting(1, "seed of everything random"),
    "train.precision": _ours("float32", "precision of the forward pass", ("float32", "bfloat16")),
    "train.channels_last": _ours(False, "maps with channels last in memory: faster on a CPU and in bfloat16"),
    "sgd.momentum": Setting(0.9, "momentum of sgd and rmsprop"),
    "sgd.dampening": Setting(0.0, "dampening of the momentum"),
    "sgd.nesterov": Setting(False, "Nesterov momentum"),
    "rmsprop.alpha": Setting(0.99, "smoothing constant"),
    "adam.beta1": Setting(0.9, "decay of the first moment"),
    "adam.beta2": Setting(0.999, "decay of the second moment"),
    # loss
    "loss.name": Setting("softmax", "what to minimise", (*PLAIN, "std", "compatible", "cluster")),
    "loss.softmax.label_smooth": Setting(True, "smooth labels by 0.1 (softmax, triplet)"),
    "loss.triplet.margin": Setting(0.3, "margin of the triplet loss"),
    "loss.triplet.weight_t": Setting(1.0, "weight of the triplet loss"),
    "loss.triplet.weight_x": Setting(0.0, "weight of the cross-entropy beside it"),
    "loss.mgn.margin": _ours(1.2, "margin of the triplet loss in MGN's objective"),
    "loss.mgn.label_smooth": _ours(False, "smooth labels by 0.1 in MGN's objective"),
    "loss.margin_softmax.scale": _ours(30.0, "scale of the cosines"),
    "loss.margin_softmax.margin": _ours(0.3, "angle added to that of the own class, in radians"),
    "loss.cluster.eps": _ours(0.6, "Jaccard distance up to which images are neighbours, above 0 and below 1"),
    "loss.cluster.min_samples": _ours(4, "neighbours, itself counted, of an image in the core of a cluster"),
    "loss.cluster.k1": _ours(30, "k-reciprocal neighbours that Jaccard distances are made of"),
    "loss.cluster.k2": _ours(6, "neighbours whose codes are averaged; 1 for none"),
    "loss.cluster.temperature": _ours(0.05, "temperature of the cross-entropy over the clusters' centres"),
    "loss.cluster.momentum": _ours(0.2, "share of itself that a centre keeps in a step, 0 to below 1"),
    # distillation
    "std.teacher": _ours("", "loss.name std: model that teaches, one of torchreid or of this plugin"),
    "std.teacher_weights": _ours("", "its weights: a checkpoint of its training, all of them but the classifier's"),
    "std.lambda": _ours(0.8, "weight of the distillation, 0 (plain training) to 1 (no labels)"),
    "std.objective": _ours("softmax", "the student's own objective beside it", ("softmax", "triplet", "mgn")),
    "std.projection": _ours("none", "where the dimensions differ: a learned map to the teacher's", ("none", "linear")),
    "std.cache": _ours(False, "compute the teacher's features once; only with data.transforms []"),
    "std.height": _ours(0, "image height the teacher wants; 0: as it was trained, or data.height"),
    "std.width": _ours(0, "image width the teacher wants; 0: as it was trained, or data.width"),
    "std.norm_mean": _ours([0.0, 0.0, 0.0], "mean of each channel the teacher wants, beside std.norm_std"),
    "std.norm_std": _ours([0.0, 0.0, 0.0], "its standard deviation; zeros: as it was trained, or data.norm_*"),
    # backward-compatible training
    "compat.losses": _ours(["rbcl"], "loss.name compatible: what ties new features to old ones, added up"),
    "compat.objective": _ours("softmax", "the new model's own objective beside it", ("none", *PLAIN, "cluster")),
    "compat.old": _ours("", "the old model, one of torchreid or of this plugin"),
    "compat.old_weights": _ours("", "its weights; in a chain, the name of the stage that trains it"),
    "compat.old_images": _ours("", "training_images.csv of its run, for its classifier; found beside its checkpoints"),
    "compat.old_height": _ours(0, "image height it wants; 0: as it was trained, or data.height"),
    "compat.old_width": _ours(0, "image width it wants; 0: as it was trained, or data.width"),
    "compat.old_norm_mean": _ours([0.0, 0.0, 0.0], "mean of each channel it wants, beside compat.old_norm_std"),
    "compat.old_norm_std": _ours([0.0, 0.0, 0.0], "its standard deviation; zeros: as it was trained, or data.norm_*"),
    "compat.features": _ours("", "file of old features of the training images, when the old model is gone"),
    "compat.bank": _ours("", ".npy file that keeps old features for several runs; else one in data.save_dir"),
    "compat.independent": _ours("", "weights of model.name trained without the old one, or their stage: for the gain"),
    "compat.embedding": _ours(
        "match",
        "where dimensions differ: an embedding head of the old one, a rule, or an error",
        ("match", "truncate", "pad", "none"),
    ),
    # test
    "test.batch_size": Setting(100, "images in a test batch"),
    "test.dist_metric": Setting("euclidean", "distance between descriptors", ("euclidean", "cosine")),
    "test.normalize_feature": Setting(False, "L2-normalise descriptors"),
    "test.ranks": Setting([1, 5, 10, 20], "CMC ranks to report"),
    "test.evaluate": Setting(False, "test only"),
    "test.eval_freq": Setting(-1, "epochs between two tests; -1 for one at the end"),
    "test.start_eval": Setting(0, "first epoch after which to test"),
    "test.rerank": Setting(False, "k-reciprocal re-ranking"),
    "test.visrank": Setting(False, "draw rank lists as a picture, after training too"),
    "test.visrank_topk": Setting(10, "images in a rank list"),
    # evaluation
    "eval.flip": _ours(False, "descriptor: mean of the image's and the mirrored image's"),
    "eval.precision": _ours(
        "float32", "precision of the network in tests; ranking is in float32", ("float32", "bfloat16", "float16")
    ),
    "eval.memory_mb": _ours(512, "MiB for ranking and re-ranking, beside the descriptors"),
    "eval.no_match": _ours("skip", "queries without a match count nowhere, or stop the run", ("skip", "error")),
    "eval.far": _ours(0.001, "false accept rate for which the report recommends a threshold"),
    "eval.rank_lists": _ours("spread", "which queries rank lists show", ("worst", "spread", "random")),
    "eval.rank_list_queries": _ours(8, "queries with a rank list"),
}


class _Settings(Mapping[str, Setting]):
    """The keys above, and behind those of ``compat`` the ones of the losses that are registered by now."""

    def _all(self) -> dict[str, Setting]:
        names, own = list(_STATIC), {name: _ours(*key) for name, key in loss_keys().items()}
        place = 1 + max(index for index, name in enumerate(names) if name.startswith("compat."))
        found = {name: _STATIC.get(name) or own[name] for name in (*names[:place], *own, *names[place:])}
        found["compat.losses"] = replace(found["compat.losses"], choices=tuple(registered_losses()))
        return found

    def __getitem__(self, key: str) -> Setting:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def items(self) -> ItemsView[str, Setting]:
        return self._all().items()


SETTINGS: Mapping[str, Setting] = _Settings()
"""All keys by their dotted names."""


def as_markdown() -> str:
    """The table of all keys, as ``docs/config.md`` shows it."""
    lines = ["| key | default | meaning | values |", "|---|---|---|---|"]
    for key, setting in SETTINGS.items():
        origin = "" if setting.host else " (this plugin)"
        values = ", ".join(f"`{choice}`" for choice in setting.choices) or "any"
        lines.append(f"| `{key}` | `{setting.default!r}` | {setting.help}{origin} | {values} |")
    return "\n".join(lines) + "\n"
