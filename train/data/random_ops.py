"""Random operations of training transforms, by the reference's names and options: on RGB pixels, and one on the
normalised tensor.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import AfterValidator, BeforeValidator, Field

from ...runtimes.core.config import Frozen
from ...runtimes.core.errors import ImageError
from ...runtimes.preprocess.ops import Backend, Filter, ResizeExact, Side
from ...runtimes.preprocess.pipeline import apply_geometry

Pixels = NDArray[np.uint8]
Tensor = NDArray[np.float32]
Step = Callable[[Pixels, np.random.Generator], Pixels]


def _ascending(pair: tuple[float, float]) -> tuple[float, float]:
    return min(pair), max(pair)


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]  # in either order
Pair = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)]
Share = Annotated[float, Field(ge=0, le=1)]
Size = Side | tuple[Side, Side]
TRIES = 10  # of RandomResizedCrop


def _number(value: object) -> object:
    """The reference's configs give some numbers as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Two sides, in the order in which the operation has them; one is both."""
    return size if isinstance(size, tuple) else (size, size)


class RandomOp(Frozen):
    """An operation on pixels."""

    @abstractmethod
    def step(self, backend: Backend) -> Step:
        """The operation as a function of pixels and generator. backend: who resizes where it does not say."""


class RandomResizedCrop(RandomOp):
    """A crop of `scale` of the area and `ratio` width / height, resized (Paddle's op; centre after 10 failures)."""

    size: Size
    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Filter = "bilinear"

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """top, left, height, width of the crop."""
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(TRIES):
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
        height, width = sides(self.size)
        return cropped_and_resized(self.box, height, width, backend, self.interpolation)


class RandCropImage(RandomOp):
    """PaddleClas's crop of `scale` of the area and `ratio` width / height, resized to (width, height)."""

    size: Size
    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Filter | None = None
    use_log_aspect: bool = False
    backend: Backend = "cv2"
    progress_size: None = None

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """top, left, height, width of the crop."""
        if self.use_log_aspect:
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        else:
            ratio = rng.uniform(*self.ratio)
        bound = min(width / height / ratio, height / width * ratio)
        area = height * width * rng.uniform(min(self.scale[0], bound), min(self.scale[1], bound))
        crop_width, crop_height = max(int(math.sqrt(area * ratio)), 1), max(int(math.sqrt(area / ratio)), 1)
        top, left = rng.integers(0, height - crop_height + 1), rng.integers(0, width - crop_width + 1)
        return int(top), int(left), crop_height, crop_width

    def step(self, backend: Backend) -> Step:
        width, height = sides(self.size)
        return cropped_and_resized(self.box, height, width, self.backend, self.interpolation or "bilinear")


def cropped_and_resized(
    box: Callable[[int, int, np.random.Generator], tuple[int, int, int, int]],
    height: int,
    width: int,
    backend: Backend,
    interpolation: Filter,
) -> Step:
    """A crop by a box, resized."""
    resize = ResizeExact(backend=backend, filter=interpolation, height=height, width=width)

    def apply(image: Pixels, rng: np.random.Generator) -> Pixels:
        top, left, crop_height, crop_width = box(image.shape[0], image.shape[1], rng)
        return apply_geometry(image[top : top + crop_height, left : left + crop_width], resize)

    return apply


class RandCropImageV2(RandomOp):
    """A crop of this size, (width, height), anywhere."""

    size: Size

    def step(self, backend: Backend) -> Step:
        width, height = sides(self.size)

        def apply(image: Pixels, rng: np.random.Generator) -> Pixels:
            if image.shape[0] < height or image.shape[1] < width:
                raise ImageError(
                    f"RandCropImageV2: expected an image of {width} x {height} pixels at least, got"
                    f" {image.shape[1]} x {image.shape[0]}"
                )
            top = int(rng.integers(0, image.shape[0] - height + 1))
            left = int(rng.integers(0, image.shape[1] - width + 1))
            return np.ascontiguousarray(image[top : top + height, left : left + width])

        return apply


class RandomHorizontalFlip(RandomOp):
    """Mirrors with probability `prob`."""

    prob: Share = 0.5

    def step(self, backend: Backend) -> Step:
        return lambda image, rng: np.ascontiguousarray(image[:, ::-1]) if rng.random() < self.prob else image


class RandFlipImage(RandomOp):
    """Mirrors every second image, by OpenCV's codes: 1 left to right, 0 top to bottom, -1 both."""

    flip_code: Literal[-1, 0, 1] = 1

    def step(self, backend: Backend) -> Step:
        rows, columns = (slice(None, None, -1 if code else 1) for code in (self.flip_code < 1, self.flip_code != 0))
        return lambda image, rng: np.ascontiguousarray(image[rows, columns]) if rng.random() < 0.5 else image


class Pad(RandomOp):
    """A border of one value; not random, but for training alone."""

    padding: Annotated[int, Field(ge=0, le=4096)]
    fill: Annotated[int, Field(ge=0, le=255)] = 0
    padding_mode: Literal["constant"] = "constant"
    backend: Backend = "pil"

    def step(self, backend: Backend) -> Step:
        border = ((self.padding,) * 2, (self.padding,) * 2, (0, 0))
        return lambda image, rng: np.pad(image, border, constant_values=self.fill)


class RandomRotation(RandomOp):
    """Turned about the centre by up to `degrees` either way, or between two, with probability `prob`."""

    prob: Share = 0.5
    degrees: Annotated[float, Field(ge=0, le=180)] | Range
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest"

    def step(self, backend: Backend) -> Step:
        low, high = self.degrees if isinstance(self.degrees, tuple) else (-self.degrees, self.degrees)
        how = Image.Resampling[self.interpolation.upper()]

        def apply(image: Pixels, rng: np.random.Generator) -> Pixels:
            if rng.random() >= self.prob:
                return image
            return np.asarray(Image.fromarray(image).rotate(float(rng.uniform(low, high)), how))

        return apply


# AugMix's operations at a level of 0 to 10, by the paper's code; each takes its sign or strength from the generator.
Chain = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _sheared(image: Image.Image, x: float, y: float, dx: float = 0, dy: float = 0) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (1, x, dx, y, 1, dy), Image.Resampling.BILINEAR)


MIXED: tuple[Chain, ...] = (
    lambda image, level, rng: ImageOps.autocontrast(image),
    lambda image, level, rng: ImageOps.equalize(image),
    lambda image, level, rng: ImageOps.posterize(image, 4 - int(level * 0.4)),
    lambda image, level, rng: image.rotate(_sign(rng) * int(level * 3), Image.Resampling.BILINEAR),
    lambda image, level, rng: ImageOps.solarize(image, 256 - int(level * 25.6)),
    lambda image, level, rng: _sheared(image, _sign(rng) * level * 0.03, 0),
    lambda image, level, rng: _sheared(image, 0, _sign(rng) * level * 0.03),
    lambda image, level, rng: _sheared(image, 0, 0, _sign(rng) * int(level * image.size[0] / 30)),
    lambda image, level, rng: _sheared(image, 0, 0, 0, _sign(rng) * int(level * image.size[1] / 30)),
)


class AugMix(RandomOp):
    """Chains of operations, mixed with each other and with the image (Hendrycks et al., arXiv 1912.02781)."""

    prob: Share = 0.5
    aug_prob_coeff: Annotated[float, Field(gt=0)] = 0.1
    mixture_width: Annotated[int, Field(ge=1, le=16)] = 3
    mixture_depth: Annotated[int, Field(ge=1, le=16)] = 1
    aug_severity: Annotated[float, Field(gt=0, le=10)] = 1

    def step(self, backend: Backend) -> Step:
        def apply(image: Pixels, rng: np.random.Generator) -> Pixels:
            if rng.random() >= self.prob:
                return image
            shares = rng.dirichlet([self.aug_prob_coeff] * self.mixture_width)
            kept = rng.beta(self.aug_prob_coeff, self.aug_prob_coeff)
            mix = np.zeros(image.shape, dtype=np.float64)
            for share in shares:
                chain = Image.fromarray(image)
                for place in rng.integers(0, len(MIXED), self.mixture_depth):
                    chain = MIXED[place](chain, float(rng.uniform(0.1, max(self.aug_severity, 0.1))), rng)
                mix += share * np.asarray(chain, dtype=np.float64)
            return ((1 - kept) * image + kept * mix).clip(0, 255).astype(np.uint8)

        return apply


RANDOM: dict[str, type[RandomOp]] = {
    one.__name__: one
    for one in (
        RandomResizedCrop,
        RandomHorizontalFlip,
        RandCropImage,
        RandCropImageV2,
        RandFlipImage,
        Pad,
        RandomRotation,
        AugMix,
    )
}


class RandomErasing(Frozen):
    """A rectangle of the normalised tensor set to `mean` (const), to one random colour (rand) or to noise (pixel), with
    probability EPSILON (Zhong et al., arXiv 1708.04896). sl, sh: its share of the area; r1: its lowest height / width.
    """

    EPSILON: Annotated[Share, BeforeValidator(_number)] = 0.5
    sl: Annotated[Share, BeforeValidator(_number)] = 0.02
    sh: Annotated[Share, BeforeValidator(_number)] = 0.4
    r1: Annotated[float, Field(gt=0, le=1), BeforeValidator(_number)] = 0.3
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    attempt: Annotated[int, Field(ge=1, le=10_000)] = 100
    use_log_aspect: bool = False
    mode: Literal["const", "rand", "pixel"] = "const"

    def erase(self, tensor: Tensor, rng: np.random.Generator) -> None:
        """In place, of float32 `(3, H, W)`."""
        if rng.random() >= self.EPSILON:
            return
        _, height, width = tensor.shape
        for _ in range(self.attempt):
            area = height * width * rng.uniform(min(self.sl, self.sh), max(self.sl, self.sh))
            if self.use_log_aspect:
                ratio = math.exp(rng.uniform(math.log(self.r1), -math.log(self.r1)))
            else:
                ratio = rng.uniform(self.r1, 1 / self.r1)
            tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if tall < height and wide < width:
                top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
                tensor[:, top : top + tall, left : left + wide] = self.filling(tall, wide, rng)
                return

    def filling(self, tall: int, wide: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """What the rectangle is set to."""
        if self.mode == "const":
            return np.reshape(np.asarray(self.mean), (3, 1, 1))
        return rng.standard_normal((3, 1, 1) if self.mode == "rand" else (3, tall, wide))


AFTER = {"RandomErasing": RandomErasing}
