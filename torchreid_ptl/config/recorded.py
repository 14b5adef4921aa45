"""What a checkpoint records of images and descriptors, which a test of its weights takes unless told otherwise."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from ..runtime.checkpoint import load_checkpoint, newest_checkpoint
from .loading import Entry, flatten, get
from .settings import SETTINGS

IMAGES = ("data.height", "data.width", "data.norm_mean", "data.norm_std")
DESCRIPTORS = ("test.dist_metric", "test.normalize_feature", "eval.flip", "eval.precision")
_NETWORK = ("model.name", "ptl.cells")
_OF_THE_TEST = ("test.rerank", "cuhk03.use_metric_cuhk03")
"""Not taken: they belong to a test, not to weights."""


def recorded_entries(config: CfgNode) -> list[Entry]:
    """What the weights that ``config`` tests record of their network, their images and their descriptors."""
    record, origin = recorded(config), tested_file(config)
    return [(key, record[key], origin) for key in (*_NETWORK, *IMAGES, *DESCRIPTORS) if key in record]


def used(config: CfgNode) -> dict[str, Any]:
    """The settings of images and descriptors in use, by key."""
    return {key: get(config, key) for key in (*IMAGES, *DESCRIPTORS)}


def origin_of(config: CfgNode) -> str:
    """In words, where the settings of :func:`used` come from in a test: from the weights, given, or by default."""
    record, values, path = recorded(config), used(config), tested_file(config) or "torchreid's ImageNet weights"
    other = [f"{key} (recorded: {record[key]})" for key in values if key in record and record[key] != values[key]]
    lacking = [key for key in values if key not in record]
    said = [f"as {path} records"] if len(lacking) + len(other) < len(values) else []
    if other:
        said.append(f"given against the record of {path}: {', '.join(other)}")
    if lacking:
        said.append(f"not recorded in {path}, so by default or as given: {', '.join(lacking)}")
    own = [f"{key} {record[key]}" for key in _OF_THE_TEST if record.get(key) and not get(config, key)]
    if own:
        said.append(f"its training was tested with {', '.join(own)}, which is not taken from it")
    return "; ".join(said)


def describe_use(config: CfgNode) -> str:
    """One line for a test: the settings of :func:`used`, where they come from, and which differ from the defaults."""
    values = used(config)
    differ = [f"{key} {SETTINGS[key].default}" for key, value in values.items() if value != SETTINGS[key].default]
    listed = ", ".join(f"{key} {value}" for key, value in values.items())
    default = f"; the defaults differ: {', '.join(differ)}" if differ else ""
    return f"Images and descriptors: {listed}; {origin_of(config)}{default}"


def recorded(config: CfgNode) -> Mapping[str, Any]:
    """The settings, by key, of the training of the weights that are tested; empty where the file records none."""
    path = Path(tested_file(config))
    if not path.is_file():  # its absence is named where it is read
        return {}
    facts = path.stat()
    return _record(str(path), facts.st_mtime_ns, facts.st_size)


def tested_file(config: CfgNode) -> str:
    """The file of the weights that a test of ``config`` uses; empty for ImageNet weights or none."""
    resume = config.model.resume
    if resume == "auto":
        found = newest_checkpoint(Path(config.data.save_dir) / "model")
        return str(found[0]) if found else ""
    return str(resume or config.model.load_weights)


@functools.lru_cache(maxsize=64)
def _record(path: str, changed: int, size: int) -> Mapping[str, Any]:
    found = load_checkpoint(path).get("config")
    settings = dict(flatten(found)) if isinstance(found, dict) else {}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
