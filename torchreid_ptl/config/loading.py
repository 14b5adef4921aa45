"""The host's configuration tree and the plugin's keys: loading, inheritance, dump."""

import ast
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..runtime.hints import nearest
from ..runtime.ranges import shown
from .settings import SETTINGS
from .shipped import default_folder, find_configuration
from .yaml_file import ConfigError as ConfigError
from .yaml_file import parse_yaml, read_yaml

BASE = "_BASE_"
CHAIN = "chain"
"""The key of a chain of stages; see ``runs/chain_plan.py``."""
COMMAND_LINE = "the command line"
_MOST_FILES = 1000

Files = str | Path | Sequence[str | Path] | None
"""Configuration files: paths, or names of shipped ones."""
Entry = tuple[str, Any, str]
"""A dotted key, its value, and where it was set."""


def default_config() -> CfgNode:
    """The tree with its defaults."""
    defaults = {key: setting.default for key, setting in SETTINGS.items()}
    return CfgNode(unflatten({key: list(each) if isinstance(each, list) else each for key, each in defaults.items()}))


def load_config(files: Files = None, options: Sequence[str] = ()) -> CfgNode:
    """Builds the configuration of a run.

    Args:
        files: a YAML file or several, of which later ones win: paths, or names of shipped ones. ``_BASE_`` in a file
            names a file, or a list of files, relative to it, that it builds upon.
        options: KEY VALUE pairs that win over the files.

    Returns:
        The tree, not yet frozen.

    Raises:
        FileNotFoundError: the file or one it builds upon is missing.
        ConfigError: an unknown key, a value of the wrong type, a circle of bases, an option without value, or a
            chain of runs.

    Example:
        >>> load_config(["compat/market1501", "compat/methods/rbcl"]).data.save_dir
        'log/compat/market1501/rbcl'
    """
    return build_config([*read_files(files), *read_options(options)])


def read_files(files: Files) -> list[Entry]:
    """The entries of files, in order, those they build upon first; nothing without a file.

    ``data.save_dir`` comes first, made of the names of the files: everything that sets it wins.

    Raises:
        FileNotFoundError: no such file, and no shipped configuration of that name.
    """
    names = [files] if isinstance(files, str | Path) else files or []
    paths = [find_configuration(name) for name in names if name]
    if not paths:
        return []
    read = count(1)
    entries = [entry for path in paths for entry in _read(path, (), read)]
    return [("data.save_dir", default_folder(paths), "the names of the files"), *entries]


def read_options(options: Sequence[str]) -> list[Entry]:
    """The entries of KEY VALUE pairs."""
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
                f"{origin} holds a chain of stages and one run is needed here; take the config.yaml in the folder of "
                "a stage, or a file without the key chain"
            )
        _set(config, key, value, origin)
    return config


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


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of values by dotted keys: the inverse of :func:`flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def _read(path: Path, above: tuple[Path, ...], read: Iterator[int]) -> Iterator[Entry]:
    """Yields (dotted key, value, origin) of a file, those of its bases first; ``read`` counts the files."""
    path = path.resolve()
    if path in above:
        raise ConfigError("Configurations build upon each other in a circle: " + " -> ".join(map(str, (*above, path))))
    if not path.is_file():
        raise FileNotFoundError(f"No configuration {path}, which {above[-1]} builds upon")
    if next(read) > _MOST_FILES:
        raise ConfigError(
            f"{above[0] if above else path} builds upon more than {_MOST_FILES} files; see {BASE} in {path}"
        )
    content = read_yaml(path) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; a configuration is a tree of keys")
    bases = content.pop(BASE, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{BASE} in {path} is {bases!r}; expected a file name or a list of them")
    for base in bases:
        yield from _read(path.parent / Path(base).expanduser(), (*above, path), read)
    if CHAIN in content:
        yield CHAIN, content.pop(CHAIN), str(path)
    for key, value in flatten(content):
        yield key, value, str(path)


def _set(config: CfgNode, key: str, value: Any, origin: str) -> None:
    if key not in SETTINGS:
        raise ConfigError(f"Unknown key {shown(key)} in {origin}: {_hint(key)}")
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
        return parse_yaml(text, CHAIN)
    except ConfigError as error:
        raise ConfigError(f"{CHAIN} is {text!r} on {COMMAND_LINE}; expected a list such as '[a, b]'") from error


def _typed(key: str, value: Any, origin: str) -> Any:
    setting = SETTINGS[key]
    default = setting.default
    if not isinstance(default, str) and isinstance(value, str):
        value = _literal(value)
    if isinstance(default, list) and isinstance(value, str):
        value = _unquoted(value)
    if isinstance(default, list) and not isinstance(default[0], str) and isinstance(value, list):
        value = [_literal(item) if isinstance(item, str) else item for item in value]  # YAML 1.1 takes 4e-1 for a text
    if isinstance(default, float) and type(value) is int and abs(value) < sys.float_info.max:
        value = float(value)
    if isinstance(default, list) and isinstance(value, tuple):
        value = list(value)
    if type(value) is not type(default) or not _items_fit(value, default):
        raise ConfigError(
            f"{key} in {origin} is {shown(value)} ({type(value).__name__}); expected {setting.kind} such as {default!r}"
        )
    return _at_home(value)


def _at_home(value: Any) -> Any:
    """Names of files may begin with ~, as the host's do."""
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) else value


def _items_fit(value: Any, default: Any) -> bool:
    if not isinstance(default, list):
        return True
    allowed: tuple[type, ...] = (float, int) if isinstance(default[0], float) else (type(default[0]),)
    return all(type(item) in allowed for item in value)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _unquoted(text: str) -> Any:
    """A list as YAML writes it, ``[rbcl, bct]``, without quotes."""
    try:
        return parse_yaml(text, "a list") if text.startswith("[") else text
    except ConfigError:
        return text
