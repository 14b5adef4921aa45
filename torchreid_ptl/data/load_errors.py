"""What stopped a data set from being loaded: which one, what was said, and the file that was being read."""

import os
import traceback
from types import FrameType

import torchreid

from .. import host

DOCS = "https://kaiyangzhou.github.io/deep-person-reid/datasets.html"
_FILES = ("img_path", "impath", "img_name", "img_info", "fpath", "list_path")
"""What the host's data sets call the file they are reading."""


def explain_loading(error: Exception, root: str) -> Exception | None:
    """An error that says what a bare exception of a data set's code does not; None where it is none of these.

    Args:
        error: raised while the host's data manager was built.
        root: folder of the data sets.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = next((frame.f_locals.get("name") for frame in frames if frame.f_code.co_name == "init_image_dataset"), None)
    known = host.image_datasets().get(str(name))
    if known is None or isinstance(error, MemoryError):  # before or after the data sets
        return None
    sets = [frame.f_locals["self"] for frame in frames if _reads(frame)]
    dataset = type(sets[-1]) if sets else known
    folder = getattr(sets[-1] if sets else known, "dataset_dir", "")
    folder = os.path.join(os.path.expanduser(root), folder) if isinstance(folder, str) else root
    last = frames[-1]
    by_host = last.f_globals["__name__"].startswith(host.part("data.datasets").__name__)
    if by_host and isinstance(error, IndexError) and last.f_code.co_name == "__init__":  # of the first of no images
        return ValueError(f"A split of {name!r} has no images: its lists are empty. Its folder is {folder}")
    if dataset.__module__.startswith(f"{__package__}."):  # one of this package says itself what is wrong
        return None
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    reading = next((frame.f_locals[key] for frame in reversed(frames) for key in _FILES if key in frame.f_locals), "")
    where = f", at {reading}" if reading and str(reading) not in text else ""
    if host.reader_of(dataset):
        remedy = f"Lay the folder out as in {DOCS}"
    else:
        code = traceback.extract_tb(error.__traceback__)[-1]
        remedy = f"The set is a class of your own, {dataset.__module__}.{dataset.__qualname__}; see {code.filename}, "
        remedy += f"line {code.lineno}"
    missing = "" if os.path.exists(folder) else ", which does not exist"
    kind = ValueError if isinstance(error, (ValueError, LookupError, TypeError)) else FileNotFoundError
    return kind(f"torchreid could not load {name!r} from {folder}{missing}: {text}{where}. {remedy}")


def _reads(frame: FrameType) -> bool:
    return isinstance(frame.f_locals.get("self"), torchreid.data.Dataset)
