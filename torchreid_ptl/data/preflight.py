"""Looking at data sets before the host does: what is missing is named, and nothing is created."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import host
from ..evaluation import Descriptors
from ..evaluation.labels import PairLabels
from ..runtime.progress import Progress
from .file_names import LAYOUTS, Layout, base_of, check_names
from .known import hint_dataset
from .load_errors import DOCS
from .names import ensure_registered, wholes_of
from .parts import part_of
from .reading import BadImageError, probe_image

_CHUNK, _LONG = 1000, 20_000
"""Images that are probed at a time, and from how many on the progress is shown."""


def check_folders(root: str, names: Iterable[str], training: bool = True, distractors: bool = False) -> list[str]:
    """Makes sure torchreid's data sets have their folders below the root, with files whose names it can read.

    Of joined sets those are meant that they join, of parts the set that is cut. Classes of somebody else's look where
    they like. With ``training=False`` training images may be missing, but not those that parts are cut from; with
    ``distractors`` those of Market-1501 are read too.

    Returns:
        Remarks on files that torchreid leaves out.

    Raises:
        ValueError: an unknown name, or a wrong one of a part or a joined set, with the nearest known one; or a file
            whose name does not fit, see :func:`~.file_names.check_names`.
        FileNotFoundError: a folder is missing or has no images; says which, its layout and how to get the set.
    """
    names, known = list(names), host.image_datasets()
    ensure_registered(names)
    cut = {part.whole for part in map(part_of, names) if part}
    remarks: list[str] = []
    for name in dict.fromkeys(whole for asked in names for whole in wholes_of(asked)):
        if name not in known:
            raise ValueError(f"Unknown data set {name!r}: {hint_dataset(name)}")
        folder_name, reader = getattr(known[name], "dataset_dir", None), host.reader_of(known[name])
        if isinstance(folder_name, str) and reader:
            folder, trained = Path(root).expanduser().absolute() / folder_name, training or name in cut
            _check_folder(name, LAYOUTS.get(reader), folder, trained)
            remarks += check_names(name, reader, folder, trained, distractors and reader == "Market1501")
    return remarks


def check_items(name: str, images: Iterable[Sequence[Any]]) -> None:
    """Makes sure that a data set lists paths with whole numbers for identity and camera.

    Raises:
        ValueError: shows the first image for which it does not.
    """
    for image in images:
        path, *numbers = image[:3]
        if not isinstance(path, (str, os.PathLike)) or not all(hasattr(number, "__index__") for number in numbers):
            raise ValueError(
                f"The data set {name} lists {tuple(image[:3])}; an image is its path, its identity and its camera, the "
                "latter two whole numbers"
            )


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
        f"gallery: {labels.explain(lost, first_camera=1)}."
    )
    if len(lost) == len(query):
        raise ValueError(
            f"{found} An image by the query's own camera does not count (Market-1501 protocol); check how camera "
            "numbers, here from 1 on, are read."
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


def _check_folder(name: str, layout: Layout | None, folder: Path, training: bool) -> None:
    parts = [part for part in layout.folders if training or part != "bounding_box_train"] if layout else []
    expected = f"{folder}/, laid out as in {DOCS}"
    if layout:
        expected = f"{folder / layout.inner}/ with the folders {', '.join(parts)} of *{layout.suffix}"
    remedy = (
        f"Expected: {expected}. Get the set from its authors (terms and addresses: {DOCS}) and unpack it there, or set "
        "data.root (--root) to the folder that holds it. Nothing was created."
    )
    if not folder.is_dir():
        wrong = "is no folder" if folder.exists() else "is missing"
        raise FileNotFoundError(f"The folder of data set {name!r} {wrong}: {folder}. {remedy}")
    if layout is None and not any(folder.iterdir()):
        raise FileNotFoundError(f"The folder of data set {name!r} is empty: {folder}. {remedy}")
    if layout is None or (folder / "CUHK01.zip").is_file():  # which torchreid unpacks
        return
    base = base_of(layout, folder)
    for part in parts:
        if not (base / part).is_dir() or not any(file.endswith(layout.suffix) for file in os.listdir(base / part)):
            raise FileNotFoundError(f"Data set {name!r} has no images (*{layout.suffix}) in {base / part}. {remedy}")
