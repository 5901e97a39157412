"""A seeded generator of product-like JPEGs in the SOP layout, for trying the whole path without a download."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import atomic_folder
from .shapes import CATEGORIES, Product, Rng, draw_product, random_colour, random_product

MOST_IMAGES = 1_000_000


@dataclass(frozen=True)
class SynthOptions:
    """What to make. size: the longer side, in pixels, of the largest image. Test classes are others than train's."""

    train_classes: int = 120
    test_classes: int = 60
    images_per_class: int = 10
    size: int = 160
    seed: int = 0

    def check(self) -> None:
        """InputError unless the numbers make sense."""
        if min(self.train_classes, self.test_classes) < 2 or self.images_per_class < 2:
            raise InputError("data synth: expected 2 or more classes in each list and 2 or more images per class")
        images = (self.train_classes + self.test_classes) * self.images_per_class
        if images > MOST_IMAGES:
            raise InputError(f"data synth: expected at most {MOST_IMAGES} images, got {images}")
        if not 32 <= self.size <= 4096:
            raise InputError(f"data synth: size: expected 32 to 4096 pixels, got {self.size}")


def _background(width: int, height: int, rng: Rng) -> Image.Image:
    """Two colours in a gradient, with clutter."""
    paleness = rng.uniform(0.5, 0.95)
    first, second = (np.array(random_colour(rng)) * (1 - paleness) + 225 * paleness for _ in range(2))
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * x / width + np.sin(angle) * y / height) % 1.0
    image = Image.fromarray((first + (second - first) * ramp[..., None]).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        x0, y0 = rng.uniform(-0.2, 1) * width, rng.uniform(-0.2, 1) * height
        box = (x0, y0, x0 + rng.uniform(0.05, 0.35) * width, y0 + rng.uniform(0.05, 0.35) * height)
        (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=random_colour(rng))
    return image


def _posed(product: Product, side: int, rng: Rng) -> Image.Image:
    """The object mirrored or not, turned, foreshortened and sheared."""
    drawn = draw_product(product, side)
    if rng.random() < 0.5:
        drawn = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    drawn = drawn.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR)
    squeeze, shear = rng.uniform(0.75, 1.0), rng.uniform(-0.15, 0.15)
    centre = side / 2
    matrix = (1 / squeeze, shear, centre - centre / squeeze - shear * centre, 0, 1, 0)
    return drawn.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _lit(image: Image.Image, rng: Rng) -> Image.Image:
    """Brightness, contrast, colour cast, a light from one side, and sensor noise."""
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.7, 1.25)))
    image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.75, 1.2)))
    pixels: NDArray[np.float64] = np.asarray(image, dtype=np.float64) * rng.uniform(0.92, 1.08, 3)
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    angle = rng.uniform(0, 2 * np.pi)
    side_light = 1 + rng.uniform(0, 0.4) * (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5))
    pixels = pixels * side_light[..., None] + rng.normal(0, rng.uniform(1, 7), pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def render(product: Product, size: int, rng: Rng) -> Image.Image:
    """One photograph of a product."""
    width, height = (int(size * rng.uniform(0.7, 1.0)) for _ in range(2))
    image = _background(width, height, rng)
    side = int(min(width, height) * rng.uniform(0.8, 1.2))
    posed = _posed(product, side, rng)
    left = int(rng.uniform(-0.1, 0.1) * width + (width - side) / 2)
    top = int(rng.uniform(-0.1, 0.1) * height + (height - side) / 2)
    image.paste(posed, (left, top), posed)
    if rng.random() < 0.3:  # something in front of it
        x0, y0 = rng.uniform(0, 0.8) * width, rng.uniform(0, 0.8) * height
        box = (x0, y0, x0 + rng.uniform(0.1, 0.35) * width, y0 + rng.uniform(0.1, 0.35) * height)
        ImageDraw.Draw(image).rectangle(box, fill=random_colour(rng))
    return _lit(image, rng)


def synthesise(root: Path, options: SynthOptions, command: str, progress: Callable[[int], None]) -> None:
    """Writes the data set to a new folder `root`. Every image depends on (seed, class, image) alone."""
    options.check()
    names = list(CATEGORIES)
    lines: dict[str, list[str]] = {"train": [], "test": []}
    with atomic_folder(root) as folder:
        for label in range(options.train_classes + options.test_classes):
            split = "train" if label < options.train_classes else "test"
            category = names[label % len(names)]
            product = random_product(category, np.random.default_rng((options.seed, label)))
            place = folder / f"{category}_final"
            place.mkdir(exist_ok=True)
            for index in range(options.images_per_class):
                rng = np.random.default_rng((options.seed, label, index))
                path = place / f"{label:06d}_{index}.JPG"
                render(product, options.size, rng).save(path, "JPEG", quality=int(rng.integers(45, 96)))
                lines[split].append(f"{category}_final/{path.name} {label}\n")
                progress(1)
        for split, text in lines.items():
            (folder / f"{split}_list.txt").write_text("".join(text), encoding="utf-8")
        about = {"command": command, "options": asdict(options), "pillow": PIL.__version__}
        about.update({"numpy": np.__version__, "python": platform.python_version()})
        (folder / "synth.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
