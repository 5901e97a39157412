"""Training transforms: random geometry on RGB pixels, then the spec's normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...runtimes.core.config import Frozen, suggestion, validate
from ...runtimes.core.errors import InputError
from ...runtimes.preprocess.ops import Backend, CenterCrop, Filter, Resampling, ResizeExact, ResizeShort, Side
from ...runtimes.preprocess.pipeline import apply_geometry, preprocess_pixels
from ...runtimes.preprocess.transform_ops import (
    GEOMETRY,
    MARKERS,
    NORMALIZERS,
    parse_geometry,
    parse_transform_ops,
    split_op,
)

Pixels = NDArray[np.uint8]
Step = Callable[[Pixels, np.random.Generator], Pixels]
Pair = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class RandomResizedCrop(Frozen):
    """A crop of `scale` of the area and `ratio` width / height, resized (Paddle's op; centre after 10 failures)."""

    size: Side | tuple[Side, Side]
    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Filter = "bilinear"

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """top, left, height, width of the crop."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(rng.integers(0, height - crop_height + 1))
                left = int(rng.integers(0, width - crop_width + 1))
                return top, left, crop_height, crop_width
        crop_width = min(width, max(1, round(height * self.ratio[1])))
        crop_height = min(height, max(1, round(width / self.ratio[0])))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width

    def step(self, backend: Backend) -> Step:
        """The operation as a function of pixels and generator."""
        height, width = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        resize = ResizeExact(backend=backend, filter=self.interpolation, height=height, width=width)

        def apply(image: Pixels, rng: np.random.Generator) -> Pixels:
            top, left, crop_height, crop_width = self.box(image.shape[0], image.shape[1], rng)
            return apply_geometry(image[top : top + crop_height, left : left + crop_width], resize)

        return apply


class RandomHorizontalFlip(Frozen):
    """Mirrors with probability `prob`."""

    prob: Annotated[float, Field(ge=0, le=1)] = 0.5

    def step(self, backend: Backend) -> Step:
        """The operation as a function of pixels and generator."""
        return lambda image, rng: np.ascontiguousarray(image[:, ::-1]) if rng.random() < self.prob else image


RANDOM: dict[str, type[RandomResizedCrop] | type[RandomHorizontalFlip]] = {
    "RandomResizedCrop": RandomResizedCrop,
    "RandomHorizontalFlip": RandomHorizontalFlip,
}


def random_step(
    model: type[RandomResizedCrop] | type[RandomHorizontalFlip], params: dict[str, Any], backend: Backend, where: str
) -> Step:
    """A random operation from its options; InputError when they are wrong, alone or with the backend."""
    operation = validate(model, params, where)
    if isinstance(operation, RandomResizedCrop):
        validate(Resampling, {"backend": backend, "filter": operation.interpolation}, where)
    return operation.step(backend)


def fixed_step(op: ResizeShort | ResizeExact | CenterCrop) -> Step:
    """An operation of evaluation as a training step."""
    return lambda image, rng: apply_geometry(image, op)


class Augmentation:
    """A training `transform_ops` list: float32 `(3, H, W)` from RGB uint8 pixels, random by the generator given."""

    def __init__(self, entries: list[Any], where: str, backend: Backend, shape: tuple[int, int, int]) -> None:
        self.steps: list[Step] = []
        self.shape = shape
        self.arguments = (entries, where, backend, shape)
        known = {*RANDOM, *GEOMETRY, *NORMALIZERS, *MARKERS}
        fixed_tail: list[Any] = []
        for index, entry in enumerate(entries):
            name, params = split_op(entry, f"{where}.{index}")
            at = f"{where}.{index}.{name}"
            if name in RANDOM:
                self.steps.append(random_step(RANDOM[name], params, backend, at))
            elif name in GEOMETRY:
                self.steps.append(fixed_step(parse_geometry(name, params, backend, at)))
            elif name in NORMALIZERS or name in MARKERS:
                fixed_tail.append(entry)
            else:
                raise InputError(f"{at}: unknown operation{suggestion(name, known)}")
        # The normalisation is parsed by the same code as for evaluation, behind a stand-in of the final size.
        stand_in = {"Resize": {"size": [shape[1], shape[2]]}}
        self.tail = parse_transform_ops([stand_in, *fixed_tail], where, backend, "ignore")

    def __reduce__(self) -> tuple[type[Augmentation], tuple[Any, ...]]:
        return Augmentation, self.arguments  # worker processes parse it anew

    def __call__(self, image: Pixels, rng: np.random.Generator) -> NDArray[np.float32]:
        for step in self.steps:
            image = step(image, rng)
        if image.shape[:2] != self.shape[1:]:
            raise InputError(
                f"training transforms end with {image.shape[1]} x {image.shape[0]} pixels,"
                f" Global.image_shape says {self.shape[2]} x {self.shape[1]}"
            )
        tensor = np.empty(self.shape, dtype=np.float32)
        preprocess_pixels(image, self.tail, tensor)
        return tensor
