"""Product-like objects: a category is a silhouette's plan, a class its proportions, colours and texture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Point = tuple[float, float]
# A part: outline in the unit square, and which of the class's two colours fills it.
Part = tuple[list[Point], int]
Colour = tuple[int, int, int]


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0.0, stop: float = 360.0) -> list[Point]:
    angles = np.radians(np.linspace(start, stop, 40))
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _band(cx: float, cy: float, r: float, width: float, start: float, stop: float) -> list[Point]:
    return _ellipse(cx, cy, r, r, start, stop) + _ellipse(cx, cy, r - width, r - width, start, stop)[::-1]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _mug(rng: Rng) -> list[Part]:
    top, base = rng.uniform(0.2, 0.32), rng.uniform(0.14, 0.3)
    height, handle = rng.uniform(0.35, 0.65), rng.uniform(0.1, 0.2)
    y0, y1 = 0.5 - height / 2, 0.5 + height / 2
    body = [(0.45 - top, y0), (0.45 + top, y0), (0.45 + base, y1), (0.45 - base, y1)]
    rim = _box(0.45 - top, y0, 0.45 + top, y0 + rng.uniform(0.03, 0.1))
    return [(_band(0.45 + top * 0.9, 0.5, handle, 0.05, -90, 90), 1), (body, 0), (rim, 1)]


def _bottle(rng: Rng) -> list[Part]:
    body, neck, shoulder = rng.uniform(0.12, 0.26), rng.uniform(0.04, 0.1), rng.uniform(0.25, 0.5)
    waist = rng.uniform(0.75, 1.1) * body
    right = [(neck, 0.12), (neck, shoulder - 0.08), (body, shoulder), (waist, 0.65), (body, 0.9)]
    outline = [(0.5 + x, y) for x, y in right] + [(0.5 - x, y) for x, y in right[::-1]]
    cap = _box(0.5 - neck * 1.2, 0.06, 0.5 + neck * 1.2, rng.uniform(0.1, 0.18))
    label = _box(0.5 - waist * 0.9, rng.uniform(0.5, 0.6), 0.5 + waist * 0.9, rng.uniform(0.7, 0.85))
    return [(outline, 0), (cap, 1), (label, 1)]


def _lamp(rng: Rng) -> list[Part]:
    top, wide, cut = rng.uniform(0.06, 0.2), rng.uniform(0.2, 0.38), rng.uniform(0.35, 0.55)
    pole, foot = rng.uniform(0.015, 0.05), rng.uniform(0.12, 0.3)
    shade = [(0.5 - top, 0.1), (0.5 + top, 0.1), (0.5 + wide, cut), (0.5 - wide, cut)]
    base = _ellipse(0.5, 0.9, foot, rng.uniform(0.03, 0.08))
    return [(_box(0.5 - pole, cut, 0.5 + pole, 0.9), 1), (base, 1), (shade, 0)]


def _chair(rng: Rng) -> list[Part]:
    half, seat, leg = rng.uniform(0.18, 0.3), rng.uniform(0.48, 0.62), rng.uniform(0.02, 0.06)
    thick, back, lean = rng.uniform(0.05, 0.12), rng.uniform(0.06, 0.2), rng.uniform(-0.06, 0.06)
    rest = [(0.5 - half + lean, back), (0.5 + half + lean, back), (0.5 + half, seat), (0.5 - half, seat)]
    legs = [_box(0.5 + s * half - leg, seat, 0.5 + s * half + leg, 0.93) for s in (-0.85, 0.85)]
    cushion = _box(0.5 - half * 1.15, seat, 0.5 + half * 1.15, seat + thick)
    return [(legs[0], 1), (legs[1], 1), (rest, 0), (cushion, 1)]


def _bag(rng: Rng) -> list[Part]:
    half, top, flare = rng.uniform(0.2, 0.36), rng.uniform(0.35, 0.5), rng.uniform(-0.08, 0.1)
    strap = _band(0.5, top, rng.uniform(0.12, 0.24), rng.uniform(0.03, 0.06), 180, 360)
    body = [(0.5 - half, top), (0.5 + half, top), (0.5 + half + flare, 0.88), (0.5 - half - flare, 0.88)]
    flap = [(0.5 - half, top), (0.5 + half, top), (0.5, rng.uniform(0.5, 0.75))]
    return [(strap, 1), (body, 0), *([(flap, 1)] if rng.random() < 0.6 else [])]


def _kettle(rng: Rng) -> list[Part]:
    rx, ry = rng.uniform(0.18, 0.3), rng.uniform(0.16, 0.3)
    spout = [(0.5 - rx * 0.7, 0.6), (0.5 - rx - rng.uniform(0.08, 0.2), rng.uniform(0.35, 0.5)), (0.5 - rx * 0.6, 0.5)]
    lid = _ellipse(0.5, 0.6 - ry, rx * rng.uniform(0.4, 0.7), rng.uniform(0.03, 0.07))
    grip = _band(0.5, 0.6 - ry * 0.8, rng.uniform(0.15, 0.26), 0.04, 200, 340)
    return [(spout, 1), (_ellipse(0.5, 0.6, rx, ry), 0), (lid, 1), (grip, 1)]


CATEGORIES: dict[str, Callable[[Rng], list[Part]]] = {
    "mug": _mug,
    "bottle": _bottle,
    "lamp": _lamp,
    "chair": _chair,
    "bag": _bag,
    "kettle": _kettle,
}
TEXTURES = ("plain", "stripes", "checks", "dots", "waves")


@dataclass(frozen=True)
class Product:
    """One class: what all its images show."""

    category: str
    parts: tuple[Part, ...]
    colours: tuple[Colour, Colour]
    texture: str
    texture_colour: Colour
    texture_angle: float
    texture_period: float


def random_colour(rng: Rng) -> Colour:
    """One of the few shades that products share, so that colour alone does not tell classes apart."""
    hues = rng.integers(0, 8) / 8.0
    saturation, value = rng.choice([0.15, 0.55, 0.9]), rng.choice([0.35, 0.65, 0.9])
    sector = [(hues * 6 + offset) % 6 for offset in (5, 3, 1)]
    rgb = [value - value * saturation * max(0.0, min(1.0, min(s, 4 - s))) for s in sector]
    return (int(rgb[0] * 255), int(rgb[1] * 255), int(rgb[2] * 255))


def random_product(category: str, rng: Rng) -> Product:
    """Draws a class."""
    return Product(
        category=category,
        parts=tuple(CATEGORIES[category](rng)),
        colours=(random_colour(rng), random_colour(rng)),
        texture=str(rng.choice(TEXTURES)),
        texture_colour=random_colour(rng),
        texture_angle=float(rng.uniform(0, math.pi)),
        texture_period=float(rng.uniform(0.06, 0.18)),
    )


def texture_mask(product: Product, side: int) -> Image.Image:
    """Where the texture's colour covers the body: an `L` image of side x side."""
    y, x = np.mgrid[0:side, 0:side] / side
    u = (x * math.cos(product.texture_angle) + y * math.sin(product.texture_angle)) / product.texture_period
    v = (y * math.cos(product.texture_angle) - x * math.sin(product.texture_angle)) / product.texture_period
    if product.texture == "stripes":
        mask = u % 1 < 0.4
    elif product.texture == "checks":
        mask = (u % 1 < 0.5) ^ (v % 1 < 0.5)
    elif product.texture == "dots":
        mask = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09
    elif product.texture == "waves":
        mask = (u + 0.25 * np.sin(2 * math.pi * v)) % 1 < 0.35
    else:
        mask = np.zeros_like(u, dtype=bool)
    return Image.fromarray((mask * 255).astype(np.uint8))


def draw_product(product: Product, side: int) -> Image.Image:
    """The object alone, front view, as an RGBA image of side x side."""
    canvas = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pattern = texture_mask(product, side)
    for outline, colour in product.parts:
        mask = Image.new("L", (side, side), 0)
        ImageDraw.Draw(mask).polygon([(x * side, y * side) for x, y in outline], fill=255)
        canvas.paste(product.colours[colour], (0, 0), mask)
        if colour == 0:
            inside = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(pattern)))
            canvas.paste(product.texture_colour, (0, 0), inside)
    return canvas
