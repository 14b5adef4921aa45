"""The body of a drawn pedestrian.

Lengths are fractions of the body's height: x to the right of the spine, y downwards from crown (0) to sole (1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 128, 64
OVERSAMPLING = 2

Colour = tuple[int, int, int]
Point = tuple[float, float]

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


class Figure:
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
        """Paints the area between points of the body."""
        self._stamp("polygon", [self.at(*point) for point in points], paint)

    def box(self, x0: float, y0: float, x1: float, y1: float, paint: Colour | Image.Image) -> None:
        """Paints a box between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], paint)

    def ellipse(self, x: float, y: float, rx: float, ry: float, paint: Colour | Image.Image) -> None:
        """Paints an ellipse around a point."""
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


def shade(paint: Any, percent: int) -> Any:
    """A colour, darker or lighter, in percent."""
    if isinstance(paint, Image.Image):
        return paint.point([value * percent // 100 for value in range(256)] * 3)
    return tuple(value * percent // 100 for value in paint)


def draw_body(figure: Figure) -> None:
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


def _swing(figure: Figure, side: int) -> tuple[float, float]:
    """Returns the angles of a side's upper and lower limb; walking to the camera hardly shows them."""
    pose, visible = figure.pose, 1.0 if figure.pose.view == "side" else 0.12
    angle = side * pose.stride * math.sin(pose.phase) * visible
    return angle, pose.stride * max(0.0, -side * math.cos(pose.phase)) * visible


def _draw_leg(figure: Figure, side: int) -> None:
    who, (angle, bend) = figure.who, _swing(figure, side)
    swaying = 0.0 if figure.pose.view == "side" else side * 0.045 * who.width
    lift = 0.02 * max(0.0, side * math.cos(figure.pose.phase))
    hip = swaying, 0.5
    knee = hip[0] + 0.24 * math.sin(angle), 0.73 - lift
    ankle = knee[0] + 0.23 * math.sin(angle - bend), 0.95 - lift
    percent = 78 if side < 0 else 100
    cloth, skin = shade(figure.bottom, percent), shade(who.skin, percent)
    toe = 0.02 if figure.pose.view == "side" else 0.0
    figure.limb([hip, knee, ankle], 0.026 * who.width, skin)
    if who.bottom.cut == "trousers":
        figure.limb([hip, knee, ankle], 0.038 * who.width, cloth)
    elif who.bottom.cut == "shorts":
        figure.limb([hip, knee], 0.046 * who.width, cloth)
    figure.ellipse(ankle[0] + toe, ankle[1] + 0.025, 0.03 + toe, 0.022, shade(who.shoes, percent))


def _draw_hips(figure: Figure) -> None:
    half, cut = figure.half, figure.who.bottom.cut
    hem, flare = (0.74, 1.25) if cut == "skirt" else (0.56, 0.88)
    figure.polygon([(-half * 0.8, 0.44), (half * 0.8, 0.44), (half * flare, hem), (-half * flare, hem)], figure.bottom)


def _draw_torso(figure: Figure) -> None:
    half, who = figure.half, figure.who
    hem = {"shirt": 0.52, "tee": 0.5, "jacket": 0.54, "coat": 0.7}[who.top.cut]
    outline = [(-half * 0.45, 0.155), (half * 0.45, 0.155), (half, 0.19), (half * 0.84, 0.4), (half * 0.92, hem)]
    figure.polygon([*outline, (-half * 0.92, hem), (-half * 0.84, 0.4), (-half, 0.19)], figure.top)
    figure.box(-0.024, 0.11, 0.024, 0.165, shade(who.skin, 85))
    if figure.pose.view == "front" and who.top.cut in ("jacket", "coat"):
        figure.polygon([(-0.028, 0.155), (0.028, 0.155), (0.012, hem), (-0.012, hem)], shade(who.accent, 90))
    if figure.pose.view == "front" and who.top.cut == "tee" and who.top.weave == "plain":
        figure.box(-0.05, 0.24, 0.05, 0.32, who.top.second)


def _draw_arm(figure: Figure, side: int) -> None:
    who, (angle, bend) = figure.who, _swing(figure, -side)
    across = 0.0 if figure.pose.view == "side" else side * figure.half * 0.98
    outward = 0.0 if figure.pose.view == "side" else side * 0.1
    shoulder = across, 0.205
    elbow = across + 0.16 * math.sin(angle + outward), 0.36
    hand = elbow[0] + 0.15 * math.sin(angle + bend + outward / 2), 0.5
    percent = 70 if side < 0 else 86
    sleeve, skin = shade(figure.top, percent), shade(who.skin, percent)
    figure.limb([shoulder, elbow, hand], 0.021 * who.width, skin)
    cuff = (hand[0] * 0.9 + elbow[0] * 0.1, 0.48)
    figure.limb([shoulder, elbow] if who.top.cut == "tee" else [shoulder, elbow, cuff], 0.029 * who.width, sleeve)


def _draw_head(figure: Figure) -> None:
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
        figure.box(left, 0.046, right, 0.064, shade(who.accent, 70))


def _draw_backpack(figure: Figure) -> None:
    who, half = figure.who, figure.half
    if who.carried != "backpack":
        return
    if figure.pose.view == "side":
        figure.box(-half - 0.085, 0.2, -half * 0.7, 0.42, who.accent)
    elif figure.pose.view == "back":
        figure.box(-half * 0.8, 0.19, half * 0.8, 0.43, who.accent)
        figure.box(-half * 0.6, 0.32, half * 0.6, 0.41, shade(who.accent, 70))
    else:
        figure.box(-half * 1.08, 0.2, half * 1.08, 0.4, shade(who.accent, 80))


def _draw_luggage(figure: Figure) -> None:
    """Paints what hangs from a hand or shoulder: seen from behind it changes its side, from the side it may hide."""
    who, view, half = figure.who, figure.pose.view, figure.half
    side = (1 if who.right_handed else -1) * (figure.pose.flip if view == "side" else -1 if view == "front" else 1)
    x = side * (half + 0.04) if view != "side" else 0.02
    hidden = view == "side" and side < 0
    dark = shade(who.accent, 72)
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
