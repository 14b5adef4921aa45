"""Looking at data sets before the host does: what is missing is named, and nothing is created."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import host
from ..evaluation import Descriptors
from ..evaluation.labels import PairLabels
from ..runtime.hints import hint
from ..runtime.progress import Progress
from .names import ensure_registered, wholes_of
from .reading import BadImageError, probe_image

DOCS = "https://kaiyangzhou.github.io/deep-person-reid/datasets.html"
_CHUNK, _LONG = 1000, 20_000
"""Images that are probed at a time, and from how many on the progress is shown."""
_MARKET = ("bounding_box_train", "query", "bounding_box_test")
_LAYOUTS: dict[str, tuple[str, tuple[str, ...]]] = {
    # name: (the inner folder of the original archive, the folders of images in it)
    "market1501": ("Market-1501-v15.09.15", _MARKET),
    "dukemtmcreid": ("DukeMTMC-reID", _MARKET),
}


def check_folders(root: str, names: Iterable[str]) -> None:
    """Makes sure every data set has its folder below the root; of joined sets what they join, of parts their set.

    Raises:
        ValueError: an unknown name, or a wrong one of a part or a joined set; gives the nearest known one.
        FileNotFoundError: a folder is missing or has no images; says which, its layout and how to get the set.
    """
    names, known = list(names), host.image_datasets()
    ensure_registered(names)
    for name in dict.fromkeys(whole for asked in names for whole in wholes_of(asked)):
        if name not in known:
            raise ValueError(f"Unknown data set {name!r}: {hint(name, known)}")
        folder_name = getattr(known[name], "dataset_dir", None)
        if isinstance(folder_name, str) and not getattr(known[name], "made_on_use", False):
            _check_folder(name, Path(root).expanduser().absolute() / folder_name)


def check_identities(name: str, query: Sequence[Any], gallery: Sequence[Any], on_no_match: str = "skip") -> None:
    """Makes sure queries can be found: their identity seen by another camera in the gallery.

    Query and gallery are lists of the host's tuples (path, pid, camid, ...). With ``on_no_match='skip'`` queries that
    cannot be found are printed and do not count in the scores; ``'error'`` refuses them.

    Raises:
        ValueError: no query can be found, or one cannot and must; names identities and cameras.
    """
    labels = PairLabels(*(Descriptors(None, *[*zip(*side, strict=True)][1:3]) for side in (query, gallery)))
    lost = labels.without_match()
    if not len(lost):
        return
    found = (
        f"{len(lost)} of {len(query)} queries of {name!r} have no image of their identity by another camera in the "
        f"gallery: {labels.explain(lost)}."
    )
    if len(lost) == len(query):
        raise ValueError(
            f"{found} An image by the query's own camera does not count (Market-1501 protocol); check how camera "
            "numbers are read."
        )
    if on_no_match == "error":
        raise ValueError(f"{found} Remove them, or let eval.no_match skip leave them out.")
    print(f"{found} They do not count.")


def check_images(lists: Mapping[str, Iterable[str]], on_bad_image: str = "error") -> None:
    """Makes sure that images can be read, from their headers and ends, before long work starts.

    Args:
        lists: paths of images, by what they are.
        on_bad_image: ``'error'`` refuses every unreadable image; ``'skip'`` a list without a readable one.

    Raises:
        BadImageError: names the first ones and says how many there are.
    """
    listed = {name: list(paths) for name, paths in lists.items()}
    paths = list(dict.fromkeys(path for each in listed.values() for path in each))
    chunks: Iterable[list[str]] = [paths[first : first + _CHUNK] for first in range(0, len(paths), _CHUNK)]
    if len(paths) >= _LONG:
        chunks = Progress(chunks, "checking the images, in thousands")
    with ThreadPoolExecutor(8) as pool:  # most of the time is that of the disk
        problems = [problem for chunk in chunks for problem in pool.map(probe_image, chunk)]
    bad = {path: problem for path, problem in zip(paths, problems, strict=True) if problem is not None}
    if bad and on_bad_image == "error":
        first, *others = bad.values()
        raise BadImageError(f"{first}{_others(list(bad)[1:])}") if others else first
    for name, each in listed.items():
        if each and bad.keys() >= {*each}:
            raise BadImageError(f"No image of the {name} can be read. {bad[each[0]]}")


def _others(paths: Sequence[str]) -> str:
    return f". {len(paths)} more cannot: {', '.join(paths[:5])}{' ...' if len(paths) > 5 else ''}"


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
