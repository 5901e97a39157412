"""Preprocessing as an ordered list of typed operations."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ..core.config import Frozen
from ..core.contract import CONTRACT

Backend = Literal["pil", "pil12", "cv2"]
Filter = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "area"]
PIL_FILTERS: tuple[Filter, ...] = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
FILTERS: dict[Backend, tuple[Filter, ...]] = {
    "pil": PIL_FILTERS,
    "pil12": PIL_FILTERS,
    "cv2": ("nearest", "bilinear", "bicubic", "area", "lanczos"),
}
Side = Annotated[int, Field(ge=1, le=8192)]
Triple = tuple[float, float, float]


class Decode(Frozen):
    """Bytes -> uint8 `(height, width, 3)`. `exif`: apply or ignore the orientation tag."""

    op: Literal["decode"] = "decode"
    exif: Literal["ignore", "apply"] = "ignore"


class Resampling(Frozen):
    """How pixels are interpolated. Pillow antialiases when it shrinks; OpenCV (but for area) does not.

    pil: as Pillow 13 and newer; pil12: as Pillow up to 12, which never resizes the height before the width.
    """

    backend: Backend = "pil"
    filter: Filter = "bilinear"

    @model_validator(mode="after")
    def known_filter(self) -> Resampling:
        if self.filter not in FILTERS[self.backend]:
            raise ValueError(
                f"backend {self.backend} has no filter '{self.filter}': one of {', '.join(FILTERS[self.backend])}"
            )
        return self


class ResizeShort(Resampling):
    """Shorter side to `size`, the longer one in proportion, `truncate`d (`Resize`) or `round`ed (`ResizeImage`)."""

    op: Literal["resize_short"] = "resize_short"
    size: Side
    rounding: Literal["truncate", "round"]


class ResizeExact(Resampling):
    """To exactly `height` x `width`, whatever the aspect ratio."""

    op: Literal["resize"] = "resize"
    height: Side
    width: Side


class CenterCrop(Frozen):
    """Centre `height` x `width`. An odd margin starts at half of it, rounded to even or cut to the floor."""

    op: Literal["center_crop"] = "center_crop"
    height: Side
    width: Side
    margin: Literal["round", "floor"]


LARGEST: float = CONTRACT["largest_factor"]


class Normalize(Frozen):
    """float32 `(x * scale - mean) / std`, planar `(3, height, width)`, channels in `order`."""

    op: Literal["normalize"] = "normalize"
    scale: float = 1.0 / 255.0
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    order: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="after")
    def no_zero(self) -> Normalize:
        with np.errstate(over="ignore", under="ignore"):  # as the core sees them
            held = np.abs(np.array([*self.std, *self.mean, self.scale], dtype=np.float64).astype(np.float32))
        if held[:3].min() < np.finfo(np.float32).tiny:
            raise ValueError("std: expected numbers other than 0")
        if held.max() > np.float32(LARGEST):
            raise ValueError(f"scale, mean, std: expected numbers up to {LARGEST:g}")
        return self


Op = Annotated[Decode | ResizeShort | ResizeExact | CenterCrop | Normalize, Field(discriminator="op")]


class Preprocess(Frozen):
    """Decode, then any resizes and crops, then normalise."""

    ops: Annotated[tuple[Op, ...], Field(max_length=66)]

    @model_validator(mode="after")
    def ordered(self) -> Preprocess:
        kinds = [type(op) for op in self.ops]
        if kinds.count(Decode) != 1 or kinds.count(Normalize) != 1 or len(kinds) < 3:
            raise ValueError("expected decode first, one or more resizes or crops, and normalize last")
        if kinds[0] is not Decode or kinds[-1] is not Normalize:
            raise ValueError("expected decode first and normalize last")
        if not isinstance(self.ops[-2], ResizeExact | CenterCrop):
            raise ValueError("expected the last resize or crop to give a fixed size")
        return self

    @property
    def decode(self) -> Decode:
        """The first operation."""
        assert isinstance(self.ops[0], Decode)
        return self.ops[0]

    @property
    def geometry(self) -> tuple[ResizeShort | ResizeExact | CenterCrop, ...]:
        """The operations on uint8 pixels, in order."""
        return tuple(op for op in self.ops if not isinstance(op, Decode | Normalize))

    @property
    def normalize(self) -> Normalize:
        """The last operation."""
        assert isinstance(self.ops[-1], Normalize)
        return self.ops[-1]

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """`(3, height, width)` of the tensor."""
        last = self.ops[-2]
        assert isinstance(last, ResizeExact | CenterCrop)
        return (3, last.height, last.width)
