"""A data set of drawn pedestrians: made from a seed on first use, without a network.

No identity is recognised by colour alone: garments come from one palette, LOOKALIKES neighbours share their main
colours and differ in weave, cut, build and what they carry, and every camera has a colour cast of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torchreid

from ..runtime.files import naming
from ..runtime.owners import remove_abandoned, temporary_for
from .drawing import VIEWS, Camera, draw_pedestrian, pick, seeded
from .figure import WEAVES, Colour, Garment, Identity

VERSION = 1  # raise it whenever the same seed gives other pictures

LOOKALIKES = 5  # neighbouring identities that share the main colours of their garments
# Raise a value to make identities harder to tell apart. The manifest of a folder keeps these.
DIFFICULTY = {
    "lookalikes": LOOKALIKES,
    "stray_view": 0.3,  # share of images seen from another side than the camera's own
    "colour_cast": 0.1,  # how far the colour channels of a camera drift apart
    "flicker": 0.2,  # change of brightness from image to image
    "noise": 10.0,  # standard deviation of the noise of the worst sensor, in grey values
    "occlusion": 0.4,  # share of images with something in front of the person
    "jitter": 0.1,  # how far scale and place of the crop wander
}

MANIFEST = "manifest.json"
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
BOTTOMS = ("trousers", "trousers", "shorts", "skirt")
BOTTOM_WEAVES = ("plain", "plain", "plain", "pinstripes", "checks")
OCCLUDERS = ("pole", "hedge", "car", "box")
CASTS = ((1, 0, -1), (-1, 0, 1), (-1, 1, -1), (1, -1, 1))
SKINS: tuple[Colour, ...] = ((236, 200, 174), (212, 164, 130), (168, 116, 84), (108, 72, 52))
HAIR_COLOURS: tuple[Colour, ...] = ((30, 24, 22), (78, 50, 32), (176, 138, 84), (150, 146, 142))
PALETTE: tuple[Colour, ...] = (
    (32, 32, 36), (84, 86, 92), (150, 152, 156), (226, 224, 218), (34, 46, 92), (58, 96, 164), (132, 172, 206),
    (168, 44, 46), (104, 32, 52), (52, 108, 66), (96, 100, 54), (190, 168, 122), (112, 76, 50), (206, 164, 58),
    (196, 128, 146), (104, 72, 128),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How many of what a folder holds; distractors walk through the gallery only and carry pid 0."""

    seed: int = 1
    train_ids: int = 100
    test_ids: int = 60
    distractor_ids: int = 20
    cameras: int = 4
    images_per_camera: int = 4

    def __post_init__(self) -> None:
        low = {"seed": 0, "distractor_ids": 0, "cameras": 2, "images_per_camera": 2}
        for name, value in asdict(self).items():
            if value < low.get(name, 1):
                raise ValueError(f"{name} is {value}; drawn pedestrians need at least {low.get(name, 1)}")

    def images(self) -> Iterator[tuple[str, int, int, int]]:
        """Yields (file name below the folder, identity, camera, index) of every image."""
        test = self.train_ids + self.test_ids
        for number in range(1, test + self.distractor_ids + 1):
            pid = number if number <= test else 0
            first = 0 if pid else (number - test - 1) * self.images_per_camera
            for camera in range(self.cameras):
                for index in range(self.images_per_camera):
                    tested = 2 if index or not pid else 1
                    folder = FOLDERS[0 if 0 < pid <= self.train_ids else tested]
                    yield f"{folder}/{pid:04d}_c{camera + 1}_{first + index:03d}.jpg", number, camera, index


class DrawnPedestrians(torchreid.data.ImageDataset):
    """Drawn pedestrians before drawn cameras, for trying things out; not a benchmark.

    The folder `drawn_pedestrians` below the root is laid out like Market-1501. It is drawn when it is not there.

    Dataset statistics:
        - identities: 100 (train) + 60 (test), and 20 distractors with pid 0 in the gallery.
        - images: 1600 (train) + 240 (query) + 1040 (gallery), 4 cameras.

    Raises:
        FileExistsError: the folder is there, but incomplete or drawn by another recipe.
    """

    _junk_pids = [0, -1]
    dataset_dir = "drawn_pedestrians"
    made_on_use = True
    recipe = Recipe()

    def __init__(self, root: str = "", **kwargs: Any) -> None:
        self.root = os.path.abspath(os.path.expanduser(root))
        self.dataset_dir = os.path.join(self.root, self.dataset_dir)
        make_dataset(self.dataset_dir, **asdict(self.recipe))
        train, query, gallery = (_list_images(os.path.join(self.dataset_dir, name)) for name in FOLDERS)
        labels = {pid: label for label, pid in enumerate(sorted({pid for _, pid, _ in train}))}
        train = [(path, labels[pid], camid) for path, pid, camid in train]
        super().__init__(train, query, gallery, **kwargs)


class TinyDrawnPedestrians(DrawnPedestrians):
    """:class:`DrawnPedestrians` in small, for dry runs.

    Dataset statistics:
        - identities: 4 (train) + 3 (test), and 1 distractor.
        - images: 16 (train) + 6 (query) + 10 (gallery), 2 cameras.
    """

    dataset_dir = "drawn_pedestrians_tiny"
    recipe = Recipe(train_ids=4, test_ids=3, distractor_ids=1, cameras=2, images_per_camera=2)


def make_identity(number: int, seed: int) -> Identity:
    """Returns identity `number` of the population `seed`."""
    group, own = seeded(1, number // LOOKALIKES, seed), seeded(2, number, seed)
    weaves = list(WEAVES)
    weave = weaves[(int(group.integers(len(weaves))) + 2 * (number % LOOKALIKES)) % len(weaves)]

    def garment(cut: str, colour: Colour, weave: str) -> Garment:
        second = pick(own, [other for other in PALETTE if other != colour])
        return Garment(cut, colour, second, weave, period=float(own.uniform(0.045, 0.085)))

    return Identity(
        top=garment(pick(own, ("shirt", "tee", "jacket", "coat")), pick(group, PALETTE), weave),
        bottom=garment(pick(own, BOTTOMS), pick(group, PALETTE), pick(own, BOTTOM_WEAVES)),
        shoes=pick(own, PALETTE),
        skin=pick(own, SKINS),
        hair=pick(own, ("short", "short", "long", "bun", "bald")),
        hair_colour=pick(own, HAIR_COLOURS),
        hat=pick(own, ("none", "none", "none", "cap", "beanie")),
        carried=pick(own, ("nothing", "nothing", "backpack", "handbag", "satchel", "trolley", "umbrella")),
        accent=pick(own, PALETTE),
        right_handed=bool(own.integers(2)),
        height=float(own.uniform(0.92, 1.06)),
        width=float(own.uniform(0.85, 1.25)),
        head=float(own.uniform(0.9, 1.12)),
    )


def make_camera(number: int, seed: int) -> Camera:
    """Returns camera `number` of the site `seed`; neighbours look from other sides and have opposite colour casts."""
    own = seeded(3, number, seed)
    brightness = float(own.uniform(0.85, 1.15))
    red, green, blue = (
        brightness * (1 + DIFFICULTY["colour_cast"] * own.uniform(0.4, 1) * sign) for sign in CASTS[number % 4]
    )
    return Camera(
        view=VIEWS[(0, 2, 1, 0)[number % 4]],
        tilt=float(own.uniform(0.0, 0.3)),
        gains=(float(red), float(green), float(blue)),
        contrast=float(own.uniform(0.75, 1.0)),
        haze=float(own.uniform(0.0, 20.0)),
        sidelight=float(own.uniform(-0.25, 0.25)),
        blur=float(own.uniform(0.1, 0.25)),
        noise=float(own.uniform(0.3, 1.0)) * DIFFICULTY["noise"],
        quality=int(own.integers(55, 90)),
        scene=int(own.integers(2**31)),
        occluder=OCCLUDERS[(number + seed) % 4],
        stray=DIFFICULTY["stray_view"],
        occlusion=DIFFICULTY["occlusion"],
        flicker=DIFFICULTY["flicker"],
        jitter=DIFFICULTY["jitter"],
    )


def make_dataset(folder: str | os.PathLike[str], **settings: int) -> None:
    """Draws a data set into `folder`, or checks the one that is there; `settings` are the fields of :class:`Recipe`.

    The folder appears complete or not at all: it is drawn under a temporary name next to its place and renamed.
    Of two processes that draw at once, the first to finish wins and the other one takes over its folder.

    Raises:
        FileExistsError: the folder is there, but incomplete or drawn by another recipe.
    """
    recipe = Recipe(**settings)
    folder = os.fspath(folder)
    if not os.path.lexists(folder):
        parent, name = os.path.split(os.path.abspath(folder))
        os.makedirs(parent, exist_ok=True)
        remove_abandoned(Path(parent).glob(f".{name}.*"))
        temporary = os.fspath(temporary_for(Path(parent, name)))
        try:
            _draw_all(temporary, recipe, shown_as=folder)
            os.rename(temporary, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _check(folder, recipe)


def _draw_all(folder: str, recipe: Recipe, shown_as: str) -> None:
    images, start = list(recipe.images()), time.perf_counter()
    print(f"Drawing {len(images)} images of pedestrians for {shown_as} ...", flush=True)
    for name in FOLDERS:
        os.makedirs(os.path.join(folder, name))
    cameras = [make_camera(number, recipe.seed) for number in range(recipe.cameras)]
    for path, number, camera, index in images:
        generator = seeded(4, number, camera, index, recipe.seed)
        picture = draw_pedestrian(make_identity(number, recipe.seed), cameras[camera], generator)
        with naming(place := os.path.join(folder, path)):
            picture.save(place, quality=cameras[camera].quality)
    made_with = {"numpy": np.__version__, "pillow": PIL.__version__}
    manifest = {**_expected(recipe), "sha256": _digest(folder), "made_with": made_with}
    Path(folder, MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    print(f"Drew them in {time.perf_counter() - start:.1f} s", flush=True)


def _expected(recipe: Recipe) -> dict[str, Any]:
    return {"version": VERSION, **asdict(recipe), "images": len(list(recipe.images())), "difficulty": DIFFICULTY}


def _digest(folder: str) -> str:
    """Returns the SHA-256 over the sorted names of the images below the folder, each followed by its bytes."""
    digest = hashlib.sha256()
    paths = [f"{part}/{name}" for part in FOLDERS for name in os.listdir(os.path.join(folder, part))]
    for name in sorted(path for path in paths if path.endswith(".jpg")):
        if not os.path.isfile(os.path.join(folder, name)):
            raise OSError(f"{name} is no file")
        digest.update(name.encode())
        digest.update(Path(folder, name).read_bytes())
    return digest.hexdigest()


def _check(folder: str, recipe: Recipe) -> None:
    remedy = "delete the folder or choose another root"
    try:
        manifest = dict(json.loads(Path(folder, MANIFEST).read_text(encoding="utf-8")))
        digest = _digest(folder)
    except (OSError, ValueError, TypeError) as error:
        raise FileExistsError(
            f"{folder} is there but holds no complete set of drawn pedestrians ({error}); {remedy}"
        ) from error
    wanted = _expected(recipe).items()
    differing = [
        f"{name} {manifest.get(name)!r} instead of {value!r}" for name, value in wanted if manifest.get(name) != value
    ]
    if differing:
        raise FileExistsError(f"{folder} holds another set of drawn pedestrians: {', '.join(differing)}; {remedy}")
    if digest != manifest.get("sha256"):
        raise FileExistsError(f"{folder} was changed after drawing: its images do not match {MANIFEST}; {remedy}")


def _list_images(folder: str) -> list[tuple[str, int, int]]:
    """Returns (path, pid, camid from 0) of a folder's images, sorted by path."""
    matched = ((path, re.fullmatch(r"(\d+)_c(\d+)_\d+\.jpg", path.name)) for path in sorted(Path(folder).glob("*.jpg")))
    return [(str(path), int(found[1]), int(found[2]) - 1) for path, found in matched if found]
