"""Reading the names of files in data folders before the host does, which says little about one that does not fit."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MARKET = ("bounding_box_train", "query", "bounding_box_test")
_TRAIN = ("bounding_box_train",)
_NAMED = 5
"""How many files a message names."""


@dataclass(frozen=True)
class Layout:
    """Where torchreid looks for the images of a data set, and how it reads their names.

    Attributes:
        folders: those of images.
        inner: the folder of the original archive that holds them.
        suffix: how the files end that are read.
        name: what is found in a name, with the groups ``person`` and ``camera`` or ``image`` where they are numbers.
        said: the same in words.
        people: least and largest identity.
        cameras: least and largest camera or image, as the files count.
        nobody: what an image of identity -1 is: ``'left out'``, or an identity like any other.
        partners: pairs of folders; everybody in the first is in the second.
    """

    folders: tuple[str, ...]
    inner: str = ""
    suffix: str = ".jpg"
    name: str = ""
    said: str = ""
    people: tuple[int, int] = (0, 10**9)
    cameras: tuple[int, int] = (0, 10**9)
    nobody: str = ""
    partners: tuple[tuple[str, str], ...] = ()


LAYOUTS = {
    "Market1501": Layout(
        _MARKET, "Market-1501-v15.09.15", ".jpg", r"(?P<person>[-\d]+)_c(?P<camera>\d+)",
        "the identity, 0 to 1501 or -1 for nobody, _c and the camera, 1 to 6, as in 0002_c1s1_000451_03.jpg",
        (0, 1501), (1, 6), "left out",
    ),
    "DukeMTMCreID": Layout(
        _MARKET, "DukeMTMC-reID", ".jpg", r"(?P<person>[-\d]+)_c(?P<camera>\d+)",
        "the identity, _c and the camera, 1 to 8, as in 0001_c2_f0046182.jpg", cameras=(1, 8),
    ),
    "CUHK01": Layout(
        ("campus",), "", ".png", r"^(?P<person>\d{4})(?P<image>\d{3})",
        "four digits for the identity, from 1 on, and three for the image, 1 to 4, as in 0001001.png",
        (1, 9999), (1, 4),
    ),
    "CUHK02": Layout(
        tuple(f"P{pair}/cam{camera}" for pair in range(1, 6) for camera in (1, 2)), "Dataset", ".png",
        r"^(?P<person>\d+)_", "the identity and _, as in 001_1000.png",
    ),
    "VIPeR": Layout(
        ("cam_a", "cam_b"), "VIPeR", ".bmp", r"^(?P<person>\d+)_", "the identity and _, as in 000_45.bmp",
        partners=(("cam_a", "cam_b"), ("cam_b", "cam_a")),
    ),
    "iLIDS": Layout(
        ("Persons",), "i-LIDS_Pedestrian", ".jpg", r"^(?P<person>\d{4})(?P<image>\d{3})",
        "four digits for the identity and three for the image, from 1 on, as in 0001001.jpg", cameras=(1, 999),
    ),
    "PRID": Layout(("single_shot/cam_a", "single_shot/cam_b"), "prid_2011", ".png"),
    "GRID": Layout(
        ("probe", "gallery"), "underground_reid", ".jpeg", r"^(?P<person>\d+)_(?P<camera>\d+)(?=[_.])",
        "the identity, 0 for nobody, _ and the camera, from 1 on, as in 0001_1_25004_107_32_106_221.jpeg",
        cameras=(1, 99),
    ),
    "SenseReID": Layout(
        ("test_probe", "test_gallery"), "SenseReID", ".jpg", r"^(?P<person>\d+)_(?P<camera>\d+)\.jpg$",
        "the identity, _ and the camera, as in 00001_0.jpg", partners=(("test_probe", "test_gallery"),),
    ),
    "CUHKSYSU": Layout(
        ("cropped_images",), "", ".jpg", r"^p(?P<person>\d+)_s\d+_\d+\.jpg$",
        "p and the identity, _s and the scene, _ and a number, as in p11422_s16929_1.jpg",
    ),
}  # fmt: skip
"""By the name of the host's class. MSMT17 lists its images in files, CUHK03 extracts them from one."""
_SETS_LISTED = ("MSMT17_V1", "MSMT17_V2")


def base_of(layout: Layout, folder: Path) -> Path:
    """The folder that holds those of the images; the inner one may have been left out."""
    return folder / layout.inner if layout.inner and (folder / layout.inner).is_dir() else folder


def check_names(name: str, reader: str, folder: Path, training: bool = True, distractors: bool = False) -> list[str]:
    """Makes sure that torchreid can read the names of a data set's files, as far as they are there.

    Args:
        name: of the data set.
        reader: the host's class that reads them.
        folder: of the data set.
        training: False to leave out training images.
        distractors: those of Market-1501 are read too.

    Returns:
        Remarks on files that are left out.

    Raises:
        ValueError: names the first files, what is wrong with them, and the rule.
    """
    if reader == "MSMT17":
        _check_lists(name, folder)
    layout = LAYOUTS.get(reader)
    if layout is None or not layout.name:
        return []
    base, remarks = base_of(layout, folder), []
    _check_pattern(name, base)
    people: dict[str, dict[int, str]] = {}
    for part in (*layout.folders, *(("images",) if distractors else ())):
        if (base / part).is_dir() and (training or part not in _TRAIN):
            people[part], said = _read(name, layout, base / part, part)
            remarks += said
    for first, second in layout.partners:
        alone = [file for person, file in people.get(first, {}).items() if person not in people.get(second, {})]
        if alone:
            raise ValueError(
                f"{name!r}: {_some(alone)} in {base / first} shows somebody without an image in {base / second}. Add "
                "the missing images, or remove these"
            )
    return remarks


def _check_pattern(name: str, base: Path) -> None:
    special = sorted(set(str(base)) & set("[]*?"))
    if set(special) - {"]"}:
        raise ValueError(
            f"The path {base} of data set {name!r} has {' '.join(special)} in it: torchreid takes it for a pattern of "
            "names and finds no image. Rename the folder, or set data.root to a link to it without such characters"
        )


def _read(name: str, layout: Layout, folder: Path, part: str) -> tuple[dict[int, str], list[str]]:
    """A file of each person in a folder, and remarks."""
    people: dict[int, str] = {}
    wrong: dict[str, str] = {}
    nobody, other = [], []
    for file in _listed(folder):
        if not file.endswith(layout.suffix):
            if os.path.splitext(file)[1].lower() in (".jpg", ".jpeg", ".png", ".bmp"):
                other.append(file)
            continue
        person, problem = _person(layout, file, part)
        if problem:
            wrong[file] = problem
        elif person == -1 and layout.nobody:
            nobody.append(file)
        else:
            people.setdefault(person, file)
    if wrong:
        first = next(iter(wrong))
        raise ValueError(
            f"{_some(list(wrong))} in {folder} cannot be read as {name!r}: {_some([first])} {wrong[first]}. A name has "
            f"{layout.said}. Rename or remove {'it' if len(wrong) == 1 else 'them'}; a set with names of another kind "
            "needs a data set class of its own (docs/data_sets.md)"
        )
    remarks = [f"{name}: {_some(other)} in {folder} is not read: torchreid reads *{layout.suffix}."] if other else []
    if nobody and part not in ("bounding_box_test", "images"):
        remarks.append(f"{name}: {_some(nobody)} in {folder} is left out: identity -1 is nobody.")
    return people, remarks


def _person(layout: Layout, file: str, part: str) -> tuple[int, str]:
    """The identity in a name, and what is wrong with the name."""
    found = re.search(layout.name, file)
    if not found:
        return 0, "does not fit"
    try:
        person = int(found["person"])
    except ValueError:
        return 0, f"has the identity {found['person']!r}"
    least, most = layout.people
    if not least <= person <= most and (person != -1 or (part in _TRAIN and not layout.nobody)):
        return 0, f"has identity {person}"
    least, most = layout.cameras
    for what in {"camera", "image"} & found.groupdict().keys():
        if not least <= int(found[what]) <= most:
            return 0, f"has {what} {int(found[what])}"
    return person, ""


def _check_lists(name: str, folder: Path) -> None:
    """Looks at the lists of MSMT17: a path with the camera as its third part, a blank, and the identity."""
    main = next((folder / inner for inner in _SETS_LISTED if (folder / inner).is_dir()), None)
    for path in sorted(main.glob("list_*.txt")) if main else []:
        for number, line in enumerate(path.read_text(errors="surrogateescape").splitlines(), 1):
            found = re.fullmatch(r"(?P<path>\S+) (?P<person>\d+)\s*", line)
            camera = (found["path"].split("_") if found else [])[2:3]
            if not (camera and camera[0].isdecimal() and 1 <= int(camera[0]) <= 15):
                raise ValueError(
                    f"Line {number} of {path}, a list of {name!r}, is {line!r}. A line has the path of an image with "
                    "the camera, 1 to 15, as its third part, a blank, and the identity, as in "
                    "0000/0000_000_01_0303morning_0008_0.jpg 0. Restore the file of the original archive"
                )


def _listed(folder: Path) -> Iterator[str]:
    """Names in a folder, in order, without hidden ones, which torchreid does not read either."""
    return (name for name in sorted(os.listdir(folder)) if not name.startswith("."))


def _some(files: list[str]) -> str:
    """The first of some files, and how many others there are."""
    more = len(files) - _NAMED
    named = ", ".join(files[:_NAMED]).encode("utf-8", "backslashreplace").decode()
    return f"{named}{f' and {more} more' if more > 0 else ''}"
