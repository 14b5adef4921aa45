"""The commands that list names."""

import argparse
from collections.abc import Iterable, Sequence

from .. import host
from ..config.shipped import configurations


def models(arguments: Sequence[str]) -> int:
    """Lists the models of torchreid and of this plugin."""
    return _list("models", "Lists the models of torchreid and of this plugin.", host.models(), arguments)


def datasets(arguments: Sequence[str]) -> int:
    """Lists the data sets."""
    text = "Lists the image data sets. Parts and joined sets are made of them: docs/parts.md."
    return _list("datasets", text, host.image_datasets(), arguments)


def configs(arguments: Sequence[str]) -> int:
    """Lists the configurations of the package."""
    return _list("configs", "Lists the configurations that --config-file takes by name.", configurations(), arguments)


def _list(command: str, description: str, names: Iterable[str], arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"torchreid_ptl {command}", description=description)
    parser.add_argument("part", nargs="?", default="", help="only names that contain this")
    part = parser.parse_args(arguments).part
    found = sorted(name for name in names if part in name)
    print("\n".join(found) or f"no name contains {part!r}")
    return 0 if found else 1
