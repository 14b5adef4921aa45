"""Pictures of drawn pedestrians: an identity, seen by a camera, in a pose that chance chooses.

Corners of shapes are integer pixels and light is added and multiplied, nothing else: a generator in the same state
gives the same picture on every machine with the same releases of NumPy and Pillow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from .figure import HEIGHT, OVERSAMPLING, WIDTH, Figure, Identity, Pose, draw_body, shade

VIEWS = ("front", "side", "back")

T = TypeVar("T")


@dataclass(frozen=True)
class Camera:
    """What stays the same about a camera: its place, its light, its sensor, and how much its images vary.

    stray, occlusion: shares of images seen from another side, and with something in front of the person.
    flicker, jitter: changes of brightness, and of scale and place, as fractions. noise: in grey values.
    """

    view: str
    tilt: float
    gains: tuple[float, float, float]
    contrast: float
    haze: float
    sidelight: float
    blur: float
    noise: float
    quality: int
    scene: int
    occluder: str
    stray: float
    occlusion: float
    flicker: float
    jitter: float


def seeded(*key: int) -> np.random.Generator:
    """Returns the generator that belongs to a key of non-negative integers; other keys have independent ones."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def pick(generator: np.random.Generator, options: Sequence[T]) -> T:
    """Returns one of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


def draw_pedestrian(identity: Identity, camera: Camera, generator: np.random.Generator) -> Image.Image:
    """Draws one image of WIDTH x HEIGHT pixels; the generator chooses pose, crop, obstacle and noise."""
    pose = _strike_pose(identity, camera, generator)
    figure = Figure(pose, camera.tilt, identity)
    draw_body(figure)
    scene = _scene(camera.scene)
    left, top = int(generator.integers(scene.width - WIDTH)), int(generator.integers(scene.height - HEIGHT))
    picture = scene.crop((left, top, left + WIDTH, top + HEIGHT))
    _cast_shadow(picture, pose)
    body = figure.image.reduce(OVERSAMPLING)
    picture.paste(body, (0, 0), body)
    if generator.random() < camera.occlusion:
        _occlude(picture, camera.occluder, generator)
    return _expose(picture, camera, generator)


def _strike_pose(identity: Identity, camera: Camera, generator: np.random.Generator) -> Pose:
    view = pick(generator, VIEWS) if generator.random() < camera.stray else camera.view
    wander = [camera.jitter * float(generator.uniform(-1, 1)) for _ in range(3)]
    unit = OVERSAMPLING * HEIGHT * 0.87 * identity.height * (1 + wander[0])
    spare = OVERSAMPLING * HEIGHT - unit
    return Pose(
        view=view,
        flip=pick(generator, (-1, 1)) if view == "side" else 1,
        phase=float(generator.uniform(0, 2 * math.pi)),
        stride=float(generator.uniform(0.2, 0.5)),
        lean=float(generator.uniform(-0.04, 0.04)),
        x=OVERSAMPLING * WIDTH * (0.5 + wander[1]),
        y=spare / 2 + OVERSAMPLING * HEIGHT * wander[2] / 2,
        unit=unit,
    )


@functools.lru_cache(maxsize=16)
def _scene(number: int) -> Image.Image:
    """Draws what a camera sees without a person: a wall above a pavement, four images wide."""
    own = seeded(number)
    wide, high = 4 * WIDTH, HEIGHT + 32
    greys = [int(own.integers(100, 150)) for _ in range(3)]
    wall, floor, detail = (tuple(grey + int(own.integers(-8, 9)) for _ in range(3)) for grey in greys)
    horizon = int(own.integers(high // 3, high * 2 // 3))
    picture = Image.new("RGB", (wide, high), wall)
    draw = ImageDraw.Draw(picture)
    pitch = int(own.integers(14, 34))
    for left in range(0, wide, pitch):
        tall = int(own.integers(horizon // 3, horizon))
        draw.rectangle((left, horizon - tall, left + int(own.integers(4, pitch)), horizon - tall // 3), fill=detail)
    draw.rectangle((0, horizon, wide, high), fill=floor)
    for step in range(1, 8):
        level = horizon + step * step * 2
        draw.line((0, level, wide, level), fill=shade(floor, 80))
        draw.line((step * wide // 8, horizon, step * wide // 4 - wide // 4, high), fill=shade(floor, 80))
    for _ in range(160):
        x, y, size = int(own.integers(wide)), int(own.integers(high)), int(own.integers(1, 7))
        draw.ellipse((x, y, x + size, y + size), fill=shade(picture.getpixel((x, y)), int(own.integers(70, 125))))
    return picture


def _cast_shadow(picture: Image.Image, pose: Pose) -> None:
    x, sole = round(pose.x / OVERSAMPLING), round((pose.y + pose.unit * 0.98) / OVERSAMPLING)
    box = x - 16, sole - 4, x + 16, sole + 4
    mask = Image.new("L", (32, 8))
    ImageDraw.Draw(mask).ellipse((0, 0, 31, 7), fill=120)
    picture.paste((20, 20, 24), box, mask)


def _occlude(picture: Image.Image, kind: str, generator: np.random.Generator) -> None:
    """Paints a pole, a hedge, a car or a box between camera and person."""
    draw = ImageDraw.Draw(picture)
    x, grey = int(generator.integers(-8, WIDTH - 4)), int(generator.integers(30, 170))
    low = int(generator.integers(HEIGHT * 62 // 100, HEIGHT * 85 // 100))
    if kind == "pole":
        draw.rectangle((x, 0, x + int(generator.integers(5, 12)), HEIGHT), fill=(grey, grey, grey))
    elif kind == "hedge":
        draw.rectangle((0, low, WIDTH, HEIGHT), fill=(46, 74, 40))
        for _ in range(60):
            left, top = int(generator.integers(WIDTH)), int(generator.integers(low - 4, HEIGHT))
            draw.ellipse((left, top, left + 5, top + 4), fill=(40 + grey // 4, 70 + grey // 3, 36))
    elif kind == "car":
        draw.rounded_rectangle((x - 44, low, x + 30, HEIGHT + 20), radius=9, fill=(grey, grey // 2, 60))
        draw.rectangle((x - 40, low + 6, x + 16, low + 16), fill=(40, 48, 56))
    else:
        draw.rectangle((x, low - 20, x + 24, HEIGHT), fill=(grey, grey * 3 // 4, grey // 2))


def _expose(picture: Image.Image, camera: Camera, generator: np.random.Generator) -> Image.Image:
    """Turns the scene into what the sensor records: light from one side, colour cast, blur, noise."""
    light = np.asarray(picture, dtype=np.float32)
    across = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :, None]
    flicker = 1 + camera.flicker * float(generator.uniform(-1, 1))
    gains = np.asarray(camera.gains, dtype=np.float32) * np.float32(flicker * camera.contrast)
    light = light * (1 + np.float32(camera.sidelight) * across) * gains + np.float32(camera.haze)
    weight = np.float32(camera.blur)
    for axis in (0, 1):
        shifted = np.roll(light, 1, axis) + np.roll(light, -1, axis)
        light = light * (1 - 2 * weight) + shifted * weight
    light += generator.standard_normal(light.shape, dtype=np.float32) * np.float32(camera.noise)
    return Image.fromarray(np.clip(np.rint(light), 0, 255).astype(np.uint8))
