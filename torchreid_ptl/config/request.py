"""The request of a command or a call: configuration files, and settings that win over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from yacs.config import CfgNode

from .checks import validate
from .loading import CHAIN, ConfigError, Entry, build_config, flatten, read_files, to_dict
from .recorded import recorded_entries

ARGUMENTS = "the arguments"
Config: TypeAlias = "Request | CfgNode | Mapping[str, Any] | str | Path | Sequence[str | Path] | None"
"""Files or their names, settings as a tree, or what :func:`request` made of these."""


@dataclass(frozen=True)
class Request:
    """Entries (key, value, origin) of files and of the command line or the arguments; the last one wins.

    Attributes:
        files: entries of the configuration files, those they build upon first.
        given: entries that win over them.
    """

    files: tuple[Entry, ...] = ()
    given: tuple[Entry, ...] = ()

    def first(self, *entries: Entry) -> "Request":
        """The same with entries before those given, which win over them."""
        return replace(self, given=(*entries, *self.given))

    def last(self, *entries: Entry) -> "Request":
        """The same with entries that win over all others."""
        return replace(self, given=(*self.given, *entries))

    def names(self, key: str) -> bool:
        """Whether a setting is given, in a file or besides."""
        return any(key == name for name, *_ in (*self.files, *self.given))

    @property
    def has_chain(self) -> bool:
        """Whether it has stages of a chain."""
        return self.names(CHAIN)


def request(config: Config = None, overrides: Mapping[str, Any] | None = None) -> Request:
    """Reads the request of a call.

    Args:
        config: a configuration file or its name, several of them, a tree of settings, or a request.
        overrides: settings that win over it: dotted keys, or a mapping for each section.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: a file that is no configuration.

    Example:
        >>> request(None, {"train": {"max_epoch": 3}, "data.root": "reid-data"}).given[0]
        ('train.max_epoch', 3, 'the arguments')
    """
    given = tuple((key, value, ARGUMENTS) for key, value in flatten(dict(overrides or {})))
    if isinstance(config, Request):
        return config.last(*given)
    if isinstance(config, CfgNode):
        config = to_dict(config)
    if isinstance(config, Mapping):
        tree = dict(config)
        chain = [(CHAIN, tree.pop(CHAIN), "the configuration given")] if CHAIN in tree else []
        return Request((*chain, *((key, value, "the configuration given") for key, value in flatten(tree))), given)
    paths = [config] if isinstance(config, (str, Path)) else list(config or [])
    return Request(tuple(read_files(paths)), given)


def configure(config: Config = None, **overrides: Any) -> CfgNode:
    """The configuration of one run, checked and frozen.

    A run that only tests takes name of the model, size and normalisation of images, metric and options of descriptors
    from its weights, where they record them and nothing else is given.

    Args:
        config: see :func:`request`.
        **overrides: see :func:`request`.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: an unknown key, a value that is not allowed, settings that do not go together, or a chain.
        CheckpointError: weights to test cannot be read.
    """
    asked = request(config, overrides)
    built = build_config([*asked.files, *asked.given])
    if built.test.evaluate:
        recorded = [entry for entry in recorded_entries(built) if not asked.names(entry[0])]
        built = build_config([*recorded, *asked.files, *asked.given])
    validate(built)
    built.freeze()
    return built


def with_resume(asked: Request) -> Request:
    """The same, to resume an interrupted run.

    Raises:
        ConfigError: ``model.resume`` names a checkpoint.
    """
    other = [value for key, value, _ in asked.given if key == "model.resume" and value != "auto"]
    if other:
        raise ConfigError(f"--resume means model.resume auto, and model.resume is {other[-1]!r}; give one of them")
    return asked.last(("model.resume", "auto", "--resume"))
