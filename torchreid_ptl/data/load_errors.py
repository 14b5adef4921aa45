"""What stopped a data set from being loaded: which one, what was said, and the file that was being read."""

import os
import traceback
from types import FrameType
from typing import Any

import torchreid

from .. import host

DOCS = "https://kaiyangzhou.github.io/deep-person-reid/datasets.html"
_FILES = ("img_path", "impath", "img_name", "img_info", "fpath", "list_path", "file_name")
"""What the host's data sets call the file they are reading."""


def explain_loading(error: Exception, root: str) -> Exception | None:
    """An error that says what a bare exception of a data set's code does not; None where it is none of these.

    Args:
        error: raised while the host's data manager was built.
        root: folder of the data sets.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name, dataset = _blamed(error, frames)
    if name is None or isinstance(error, MemoryError):  # before or after the data sets
        return None
    folder = getattr(dataset, "dataset_dir", "")
    folder = os.path.join(os.path.expanduser(root), folder) if isinstance(folder, str) else root
    if isinstance(error, IndexError) and _is_by_host(frames[-1]) and frames[-1].f_code.co_name == "__init__":
        # it looks at the first image of an empty list
        return ValueError(f"A split of {name!r} has no images: its lists are empty. Its folder is {_said(folder)}")
    kind = dataset if isinstance(dataset, type) else type(dataset)
    if kind.__module__.startswith(f"{__package__}."):  # one of this package says itself what is wrong
        return None
    remedy = f"Lay the folder out as in {DOCS}"
    if not host.reader_of(kind):
        code = traceback.extract_tb(error.__traceback__)[-1]
        own = f"{kind.__module__}.{kind.__qualname__}"
        remedy = f"The set is a class of your own, {own}; see {code.filename}, line {code.lineno}"
    message = f"torchreid could not load {name!r} from {_said(folder)}: {_text(error, frames)}. {remedy}"
    by_content = isinstance(error, (ValueError, LookupError, TypeError))
    return ValueError(message) if by_content else FileNotFoundError(message)


def _blamed(error: Exception, frames: list[FrameType]) -> tuple[str | None, Any]:
    """The registered name of the data set that was being loaded, and itself, or its class before it was made."""
    known = host.image_datasets()
    owner = getattr(error, "obj", None)  # of an attribute that is missing
    name = next((frame.f_locals.get("name") for frame in frames if frame.f_code.co_name == "init_image_dataset"), None)
    if name is None and _is_dataset(owner):  # its class does not call torchreid's
        return next((name for name, kind in known.items() if kind is type(owner)), None), owner
    made = [frame.f_locals["self"] for frame in frames if _is_dataset(frame.f_locals.get("self"))]
    return (name, made[-1] if made else known[name]) if name in known else (None, None)


def _text(error: Exception, frames: list[FrameType]) -> str:
    """Kind and text of an error, and the file that was being read."""
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    values = [frame.f_locals.get(key) for frame in reversed(frames) for key in _FILES]
    reading = next((value for value in values if isinstance(value, str)), "")
    return text if reading in text else f"{text}, at {reading}"


def _said(folder: str) -> str:
    if not os.path.exists(folder):
        return f"{folder}, which does not exist"
    special = " ".join(sorted({*folder} & {*"[*?"}))
    return f"{folder}, whose path has {special} in it: Python's glob takes it for a pattern" if special else folder


def _is_by_host(frame: FrameType) -> bool:
    return str(frame.f_globals["__name__"]).startswith(host.part("data.datasets").__name__)


def _is_dataset(item: object) -> bool:
    return isinstance(item, torchreid.data.Dataset)
