"""Looking at data sets before the host does: what is missing is named, and nothing is created."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .. import host
from ..hints import hint

DOCS = "https://kaiyangzhou.github.io/deep-person-reid/datasets.html"
_MARKET = ("bounding_box_train", "query", "bounding_box_test")
_LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # name: (the inner folder of the original archive, the folders of images in it)
    "market1501": ("Market-1501-v15.09.15", _MARKET),
    "dukemtmcreid": ("DukeMTMC-reID", _MARKET),
}


def check_folders(root: str, names: Iterable[str]) -> None:
    """Makes sure every data set has its folder.

    Args:
        root: ``data.root``.
        names: sources and targets.

    Raises:
        ValueError: an unknown name; gives the nearest known one.
        FileNotFoundError: a folder is missing or has no images; says which, its layout and how to get the set.
    """
    for name in dict.fromkeys(names):
        dataset = _class_of(name)
        if getattr(dataset, "made_on_use", False):
            continue
        folder_name = getattr(dataset, "dataset_dir", None)
        if isinstance(folder_name, str):
            _check_folder(name, Path(root).expanduser().absolute() / folder_name)


def check_identities(name: str, query: Sequence[Any], gallery: Sequence[Any]) -> None:
    """Makes sure queries can be found: their identity seen by another camera in the gallery.

    Args:
        name: of the data set.
        query: the host's tuples (path, pid, camid, ...).
        gallery: likewise.

    Raises:
        ValueError: no query can be found; names identities and cameras. When only some cannot, they are printed: they
            do not count in the scores.
    """
    cameras: dict[int, set[int]] = defaultdict(set)
    for _, pid, camid, *_ in gallery:
        cameras[pid].add(camid)
    lost = {(pid, camid) for _, pid, camid, *_ in query if not cameras[pid] - {camid}}
    if not lost:
        return
    examples = "; ".join(
        f"identity {pid}: query by camera {camid}, gallery by {sorted(cameras[pid]) or 'none'}"
        for pid, camid in sorted(lost)[:5]
    )
    found = sum((pid, camid) not in lost for _, pid, camid, *_ in query)
    if found == 0:
        raise ValueError(
            f"No query of {name!r} has an image of its identity by another camera in the gallery ({examples}). An "
            "image by the query's own camera does not count (Market-1501 protocol); check how camera numbers are read."
        )
    print(
        f"{len(query) - found} of {len(query)} queries of {name} have no match by another camera and do not count: "
        f"{examples}"
    )


def _class_of(name: str) -> type:
    known = host.image_datasets()
    if name not in known:
        raise ValueError(f"Unknown data set {name!r}: {hint(name, known)}")
    return known[name]


def _check_folder(name: str, folder: Path) -> None:
    inner, parts = _LAYOUTS.get(name, ("", ()))
    layout = f"{folder}/{inner}/ with the folders {', '.join(parts)}" if parts else f"{folder}/, laid out as in {DOCS}"
    remedy = (
        f"Expected: {layout}. Get the set from its authors (terms and addresses: {DOCS}) and unpack it there, or set "
        "data.root (--root) to the folder that holds it. Nothing was created."
    )
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder of data set {name!r} is missing: {folder}. {remedy}")
    base = folder / inner if inner and (folder / inner).is_dir() else folder
    for part in parts:
        if not any((base / part).glob("*.jpg")):
            raise FileNotFoundError(f"Data set {name!r} has no images (*.jpg) in {base / part}. {remedy}")
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"The folder of data set {name!r} is empty: {folder}. {remedy}")
