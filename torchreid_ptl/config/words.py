"""Messages of the Python API in the words of a configuration."""

from ..runtime.errors import worded

KEYS = {
    "bank": "compat.bank",
    "batch_size_train": "train.batch_size",
    "cache": "std.cache",
    "combineall": "data.combineall",
    "dimensions": "compat.embedding",
    "eps": "loss.cluster.eps",
    "k_tfm": "data.k_tfm",
    "keep_last": "model.keep_last",
    "load_weights": "model.load_weights",
    "load_train_targets": "data.load_train_targets",
    "lr": "train.lr",
    "min_samples": "loss.cluster.min_samples",
    "num_cams": "sampler.num_cams",
    "num_datasets": "sampler.num_datasets",
    "num_instances": "sampler.num_instances",
    "precision": "train.precision",
    "projection": "std.projection",
    "prototypes": "compat.bct.prototypes",
    "resume": "model.resume",
    "root": "data.root",
    "save_dir": "data.save_dir",
    "sources": "data.sources",
    "targets": "data.targets",
    "train_sampler": "sampler.train_sampler",
    "train_sampler_t": "sampler.train_sampler_t",
    "transforms": "data.transforms",
}
"""The key that sets an argument of the Python API."""


def in_keys(error: BaseException) -> str:
    """The message of an error with configuration keys in place of arguments.

    Example:
        >>> from torchreid_ptl.runtime.errors import ArgumentError
        >>> in_keys(ArgumentError("{lr} is 0"))
        'train.lr is 0'
    """
    return worded(error, KEYS)
