"""Splits of the data sets that come without: drawn in memory, always the same, and recorded; no file is written."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import host

DRAWN, PUBLISHED = "drawn, with a seed that belongs to the data set", "published with the data set"


class Splits:
    """Chooses the splits of data sets while they are loaded, and keeps a record.

    A split file in a data folder, which torchreid wrote in an earlier run, is used when all that it names is below the
    folder; then scores are those of the same people as before.

    Args:
        split_id: which of the splits is used.

    Attributes:
        record: for each data set with splits, by name: which one is used, where it comes from, how many images each
            side has, and the SHA-256 of all sides, with paths below the folder of the set.
    """

    def __init__(self, split_id: int = 0) -> None:
        self.split_id = split_id
        self.record: dict[str, dict[str, Any]] = {}
        self._of: dict[str, Any] = {}

    def of(self, dataset: Any, draw: Callable[[], Any]) -> Any:
        """All splits of a data set of the host; see :func:`~torchreid_ptl.host.folders_read`."""
        path = str(dataset.split_path)
        if path not in self._of:
            splits, why_not = _earlier(dataset)
            name = next((name for name, known in host.image_datasets().items() if known is type(dataset)), path)
            ours = PUBLISHED if host.reader_of(type(dataset)) == "GRID" else DRAWN
            if why_not:
                print(f"{name}: {path} is not used: {why_not}. The split is {ours}; the file may be deleted.")
            elif splits is not None:
                print(f"{name}: the split is that of {path}, by an earlier run of torchreid. Without it, it is {ours}.")
            self._of[path] = draw() if splits is None else splits
            self._keep(name, dataset.dataset_dir, ours if splits is None else os.path.basename(path), self._of[path])
        return self._of[path]

    def _keep(self, name: str, folder: str, origin: str, splits: Any) -> None:
        if self.split_id >= len(splits):  # the host says so
            return
        split = {side: images for side, images in splits[self.split_id].items() if isinstance(images, list)}
        text = json.dumps(_relative(split, folder), sort_keys=True)
        self.record[name] = {
            "split_id": self.split_id,
            "from": origin,
            **{side: len(images) for side, images in split.items()},
            "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
        }


def _earlier(dataset: Any) -> tuple[Any, str]:
    """The splits in a file, if there is one and it can be used; else why it cannot, empty without a file."""
    path = Path(dataset.split_path)
    if not path.exists():
        return None, ""
    try:
        splits = json.loads(path.read_text())
        named = {text for split in splits for side in split.values() for text in _texts(side)}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return None, f"it cannot be read ({type(error).__name__}: {error})"
    base = os.path.realpath(dataset.dataset_dir)
    for folder in sorted({os.path.dirname(text) for text in named if os.path.isabs(text)}):
        if os.path.commonpath([os.path.realpath(folder), base]) != base:
            return None, f"it names files elsewhere, in {folder}"
    images = getattr(dataset, "data_dir", dataset.dataset_dir)
    gone = sorted(text for text in named if not os.path.exists(os.path.join(images, text)))
    return (None, f"{len(gone)} of its files are not there, such as {gone[0]}") if gone else (splits, "")


def _texts(side: Any) -> Iterator[str]:
    for item in side if isinstance(side, list) else ():
        first = item[0] if isinstance(item, list) and item else item
        if isinstance(first, str):
            yield first


def _relative(item: Any, folder: str) -> Any:
    """The same content, with paths below a folder and forward slashes."""
    if isinstance(item, dict):
        return {key: _relative(value, folder) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_relative(value, folder) for value in item]
    if isinstance(item, str) and os.path.isabs(item):
        place, name = os.path.split(item)
        return os.path.join(os.path.relpath(os.path.realpath(place), os.path.realpath(folder)), name).replace(
            os.sep, "/"
        )
    return item
