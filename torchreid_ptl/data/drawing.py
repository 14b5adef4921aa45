"""Pictures of drawn pedestrians: an identity, seen by a camera, in a pose that chance chooses.

Lengths of a body are fractions of its height: x to the right of the spine, y downwards from crown (0) to sole (1).
Shapes stand on whole pixels and light is added and multiplied, nothing else, so that a generator in the same state
gives the same picture on every machine with the same releases of NumPy and Pillow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 128, 64
OVERSAMPLING = 2
VIEWS = ("front", "side", "back")

Colour = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

# Where a garment shows its second colour; u to the right and v downwards from its collar, in tenths of a period.
WEAVES: dict[str, Callable[[Any, Any], Any]] = {
    "plain": lambda u, v: False,
    "hoops": lambda u, v: v % 10 < 5,
    "pinstripes": lambda u, v: u % 10 < 4,
    "checks": lambda u, v: (u % 15 < 6) ^ (v % 15 < 6),
    "dots": lambda u, v: (u % 12 - 6) ** 2 + (v % 12 - 6) ** 2 < 16,
    "halves": lambda u, v: v > 30,
    "yoke": lambda u, v: v < 12,
    "band": lambda u, v: (v > 20) & (v < 34),
    "diagonal": lambda u, v: (u + v) % 20 < 8,
}


@dataclass(frozen=True)
class Garment:
    """Something worn: its cut, its two colours, and the weave that alternates them (period in body heights)."""

    cut: str
    colour: Colour
    second: Colour
    weave: str
    period: float


@dataclass(frozen=True)
class Identity:
    """What stays the same about a person in all images."""

    top: Garment
    bottom: Garment
    shoes: Colour
    skin: Colour
    hair: str
    hair_colour: Colour
    hat: str
    carried: str
    accent: Colour
    right_handed: bool
    height: float
    width: float
    head: float


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


@dataclass(frozen=True)
class Pose:
    """How a person stands in one image: phase and stride of the walk in radians, crown (x, y) and height in pixels."""

    view: str
    flip: int
    phase: float
    stride: float
    lean: float
    x: float
    y: float
    unit: float


def seeded(*key: int) -> np.random.Generator:
    """Returns the generator that belongs to a key of non-negative integers; other keys have independent ones."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def pick(generator: np.random.Generator, options: Sequence[T]) -> T:
    """Returns one of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


def draw_pedestrian(identity: Identity, camera: Camera, generator: np.random.Generator) -> Image.Image:
    """Draws one image of WIDTH x HEIGHT pixels; the generator chooses pose, crop, obstacle and noise."""
    pose = _strike_pose(identity, camera, generator)
    figure = _Figure(pose, camera.tilt, identity)
    _draw_body(figure)
    picture = _crop_scene(camera, generator)
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


class _Figure:
    """A transparent sheet on which the parts of a body are painted, in body coordinates."""

    def __init__(self, pose: Pose, tilt: float, who: Identity) -> None:
        self.pose, self.tilt, self.who = pose, tilt, who
        self.image = Image.new("RGBA", (OVERSAMPLING * WIDTH, OVERSAMPLING * HEIGHT))
        self.draw = ImageDraw.Draw(self.image)
        self.half = (0.075 if pose.view == "side" else 0.115) * who.width
        self.top, self.bottom = self.cloth(who.top, 0.16), self.cloth(who.bottom, 0.48)

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Returns the pixel of a body point; a tilted camera sees the upper body larger."""
        across = x * (1 + self.tilt * (0.5 - y)) + self.pose.lean * (1 - y)
        down = y + 0.6 * self.tilt * y * (1 - y)
        return round(self.pose.x + self.pose.flip * across * self.pose.unit), round(self.pose.y + down * self.pose.unit)

    def cloth(self, garment: Garment, collar: float) -> Image.Image:
        """Returns a sheet of the garment's cloth, its weave hanging from the spine at the height `collar`."""
        sheet = Image.new("RGB", self.image.size, garment.colour)
        x, y = self.at(0, collar)
        period = max(3, round(garment.period * self.pose.unit))
        u = (np.arange(sheet.width) - x)[None, :] * 10 // period
        v = (np.arange(sheet.height) - y)[:, None] * 10 // period
        shown = np.broadcast_to(WEAVES[garment.weave](u, v), (sheet.height, sheet.width))
        sheet.paste(garment.second, (0, 0), Image.fromarray(shown.astype(np.uint8) * 255))
        return sheet

    def polygon(self, points: Sequence[Point], paint: Colour | Image.Image) -> None:
        self._stamp("polygon", [self.at(*point) for point in points], paint)

    def box(self, x0: float, y0: float, x1: float, y1: float, paint: Colour | Image.Image) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint)

    def ellipse(self, x: float, y: float, rx: float, ry: float, paint: Colour | Image.Image) -> None:
        corners = self.at(x - rx, y - ry), self.at(x + rx, y + ry)
        (left, right), (top, low) = (sorted(axis) for axis in zip(*corners, strict=True))
        self._stamp("ellipse", [(left, top), (right, low)], paint)

    def limb(self, joints: Sequence[Point], radius: float, paint: Colour | Image.Image) -> None:
        """Paints a rounded stroke through the joints."""
        for (x0, y0), (x1, y1) in zip(joints[:-1], joints[1:], strict=True):
            length = math.hypot(x1 - x0, y1 - y0) or 1.0
            nx, ny = radius * (y0 - y1) / length, radius * (x1 - x0) / length
            self.polygon([(x0 + nx, y0 + ny), (x1 + nx, y1 + ny), (x1 - nx, y1 - ny), (x0 - nx, y0 - ny)], paint)
            self.ellipse(x1, y1, radius, radius, paint)

    def _stamp(self, shape: str, pixels: list[tuple[int, int]], paint: Colour | Image.Image) -> None:
        if not isinstance(paint, Image.Image):
            getattr(self.draw, shape)(pixels, fill=paint)
            return
        xs, ys = zip(*pixels, strict=True)
        box = min(xs), min(ys), max(xs) + 1, max(ys) + 1
        mask = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        getattr(ImageDraw.Draw(mask), shape)([(x - box[0], y - box[1]) for x, y in pixels], fill=255)
        self.image.paste(paint.crop(box), box, mask)


def _shade(paint: Any, percent: int) -> Any:
    if isinstance(paint, Image.Image):
        return paint.point([value * percent // 100 for value in range(256)] * 3)
    return tuple(value * percent // 100 for value in paint)


def _draw_body(figure: _Figure) -> None:
    """Paints from far to near; what is on the back comes first where the person faces the camera."""
    view = figure.pose.view
    if view == "front":
        _draw_backpack(figure)
    for side in (-1, 1):
        _draw_leg(figure, side)
    _draw_hips(figure)
    if view == "side":
        _draw_arm(figure, -1)
    _draw_torso(figure)
    if view != "front":
        _draw_backpack(figure)
    _draw_head(figure)
    for side in (1,) if view == "side" else (-1, 1):
        _draw_arm(figure, side)
    _draw_luggage(figure)


def _swing(figure: _Figure, side: int) -> tuple[float, float]:
    """Returns the angles of a side's upper and lower limb; walking to the camera hardly shows them."""
    pose, visible = figure.pose, 1.0 if figure.pose.view == "side" else 0.12
    angle = side * pose.stride * math.sin(pose.phase) * visible
    return angle, pose.stride * max(0.0, -side * math.cos(pose.phase)) * visible


def _draw_leg(figure: _Figure, side: int) -> None:
    who, (angle, bend) = figure.who, _swing(figure, side)
    swaying = 0.0 if figure.pose.view == "side" else side * 0.045 * who.width
    lift = 0.02 * max(0.0, side * math.cos(figure.pose.phase))
    hip = swaying, 0.5
    knee = hip[0] + 0.24 * math.sin(angle), 0.73 - lift
    ankle = knee[0] + 0.23 * math.sin(angle - bend), 0.95 - lift
    percent = 78 if side < 0 else 100
    cloth, skin = _shade(figure.bottom, percent), _shade(who.skin, percent)
    toe = 0.02 if figure.pose.view == "side" else 0.0
    figure.limb([hip, knee, ankle], 0.026 * who.width, skin)
    if who.bottom.cut == "trousers":
        figure.limb([hip, knee, ankle], 0.038 * who.width, cloth)
    elif who.bottom.cut == "shorts":
        figure.limb([hip, knee], 0.046 * who.width, cloth)
    figure.ellipse(ankle[0] + toe, ankle[1] + 0.025, 0.03 + toe, 0.022, _shade(who.shoes, percent))


def _draw_hips(figure: _Figure) -> None:
    half, cut = figure.half, figure.who.bottom.cut
    hem, flare = (0.74, 1.25) if cut == "skirt" else (0.56, 0.88)
    figure.polygon([(-half * 0.8, 0.44), (half * 0.8, 0.44), (half * flare, hem), (-half * flare, hem)], figure.bottom)


def _draw_torso(figure: _Figure) -> None:
    half, who = figure.half, figure.who
    hem = {"shirt": 0.52, "tee": 0.5, "jacket": 0.54, "coat": 0.7}[who.top.cut]
    outline = [(-half * 0.45, 0.155), (half * 0.45, 0.155), (half, 0.19), (half * 0.84, 0.4), (half * 0.92, hem)]
    figure.polygon([*outline, (-half * 0.92, hem), (-half * 0.84, 0.4), (-half, 0.19)], figure.top)
    figure.box(-0.024, 0.11, 0.024, 0.165, _shade(who.skin, 85))
    if figure.pose.view == "front" and who.top.cut in ("jacket", "coat"):
        figure.polygon([(-0.028, 0.155), (0.028, 0.155), (0.012, hem), (-0.012, hem)], _shade(who.accent, 90))
    if figure.pose.view == "front" and who.top.cut == "tee" and who.top.weave == "plain":
        figure.box(-0.05, 0.24, 0.05, 0.32, who.top.second)


def _draw_arm(figure: _Figure, side: int) -> None:
    who, (angle, bend) = figure.who, _swing(figure, -side)
    across = 0.0 if figure.pose.view == "side" else side * figure.half * 0.98
    outward = 0.0 if figure.pose.view == "side" else side * 0.1
    shoulder = across, 0.205
    elbow = across + 0.16 * math.sin(angle + outward), 0.36
    hand = elbow[0] + 0.15 * math.sin(angle + bend + outward / 2), 0.5
    percent = 70 if side < 0 else 86
    sleeve, skin = _shade(figure.top, percent), _shade(who.skin, percent)
    figure.limb([shoulder, elbow, hand], 0.021 * who.width, skin)
    cuff = (hand[0] * 0.9 + elbow[0] * 0.1, 0.48)
    figure.limb([shoulder, elbow] if who.top.cut == "tee" else [shoulder, elbow, cuff], 0.029 * who.width, sleeve)


def _draw_head(figure: _Figure) -> None:
    who, view = figure.who, figure.pose.view
    rx, ry, back = 0.05 * who.head, 0.068 * who.head, -0.016 if view == "side" else 0.0
    if who.hair == "long":
        figure.box(back * 2 - rx, 0.07, back * 2 + rx * (0.4 if view == "side" else 1), 0.2, who.hair_colour)
    figure.ellipse(0, 0.078, rx, ry, who.hair_colour if view == "back" and who.hair != "bald" else who.skin)
    if view != "back" and who.hair != "bald":
        figure.ellipse(back, 0.04, rx * 1.02, ry * 0.6, who.hair_colour)
    if view == "back" and who.hair == "long":
        figure.box(-rx, 0.07, rx, 0.2, who.hair_colour)
    if who.hair == "bun":
        figure.ellipse(back * 3.4, 0.03 if view == "side" else 0.0, 0.026, 0.026, who.hair_colour)
    if who.hat != "none":
        figure.ellipse(0, 0.036, rx * 1.12, ry * 0.66, who.accent)
    if who.hat == "cap" and view != "back":
        left, right = (0.0, 2 * rx) if view == "side" else (-rx, rx)
        figure.box(left, 0.046, right, 0.064, _shade(who.accent, 70))


def _draw_backpack(figure: _Figure) -> None:
    who, half = figure.who, figure.half
    if who.carried != "backpack":
        return
    if figure.pose.view == "side":
        figure.box(-half - 0.085, 0.2, -half * 0.7, 0.42, who.accent)
    elif figure.pose.view == "back":
        figure.box(-half * 0.8, 0.19, half * 0.8, 0.43, who.accent)
        figure.box(-half * 0.6, 0.32, half * 0.6, 0.41, _shade(who.accent, 70))
    else:
        figure.box(-half * 1.08, 0.2, half * 1.08, 0.4, _shade(who.accent, 80))


def _draw_luggage(figure: _Figure) -> None:
    """Paints what hangs from a hand or shoulder: seen from behind it changes its side, from the side it may hide."""
    who, view, half = figure.who, figure.pose.view, figure.half
    side = (1 if who.right_handed else -1) * (figure.pose.flip if view == "side" else -1 if view == "front" else 1)
    x = side * (half + 0.04) if view != "side" else 0.02
    hidden = view == "side" and side < 0
    dark = _shade(who.accent, 72)
    if who.carried == "backpack" and view == "front":
        for strap in (-0.6, 0.6):
            figure.limb([(half * strap, 0.17), (half * strap * 1.1, 0.36)], 0.012, dark)
    elif who.carried == "umbrella":
        figure.limb([(x * 0.5, 0.04), (x * 0.5, 0.4)], 0.007, dark)
        figure.polygon([(-0.2, 0.06), (-0.13, -0.03), (0.0, -0.06), (0.13, -0.03), (0.2, 0.06)], who.accent)
    elif who.carried == "trolley":
        place = -half - 0.1 if view == "side" else x
        figure.limb([(place, 0.5), (place, 0.8)], 0.007, dark)
        figure.box(place - 0.055, 0.76, place + 0.055, 0.97, who.accent)
    elif who.carried == "handbag" and not hidden:
        figure.box(x - 0.05, 0.51, x + 0.05, 0.62, who.accent)
    elif who.carried == "satchel" and not hidden:
        figure.limb([(-x * 0.6, 0.17), (x * 0.8, 0.48)], 0.011, dark)
        figure.box(x - 0.06, 0.45, x + 0.04, 0.56, who.accent)


@functools.lru_cache(maxsize=16)
def _scene(number: int) -> Image.Image:
    """Draws what a camera sees when nobody passes: a wall above a pavement, four images wide."""
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
        draw.line((0, level, wide, level), fill=_shade(floor, 80))
        draw.line((step * wide // 8, horizon, step * wide // 4 - wide // 4, high), fill=_shade(floor, 80))
    for _ in range(160):
        x, y, size = int(own.integers(wide)), int(own.integers(high)), int(own.integers(1, 7))
        draw.ellipse((x, y, x + size, y + size), fill=_shade(picture.getpixel((x, y)), int(own.integers(70, 125))))
    return picture


def _crop_scene(camera: Camera, generator: np.random.Generator) -> Image.Image:
    scene = _scene(camera.scene)
    left, top = int(generator.integers(scene.width - WIDTH)), int(generator.integers(scene.height - HEIGHT))
    return scene.crop((left, top, left + WIDTH, top + HEIGHT))


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
