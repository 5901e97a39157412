"""Training transforms: random operations on RGB pixels, the spec's normalisation, then those on the tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.config import suggestion, validate
from ...runtimes.core.errors import InputError
from ...runtimes.preprocess.ops import Backend, CenterCrop, Resampling, ResizeExact, ResizeShort
from ...runtimes.preprocess.pipeline import apply_geometry, preprocess_pixels
from ...runtimes.preprocess.transform_ops import (
    GEOMETRY,
    MARKERS,
    NORMALIZERS,
    parse_geometry,
    parse_transform_ops,
    split_op,
)
from .random_ops import AFTER, RANDOM, Pixels, RandCropImage, RandomErasing, RandomResizedCrop, Step


def random_step(name: str, params: dict[str, Any], backend: Backend, where: str) -> Step:
    """A random operation from its options; InputError when they are wrong, alone or with the backend."""
    operation = validate(RANDOM[name], params, where)
    if isinstance(operation, RandomResizedCrop | RandCropImage):
        chosen = operation.backend if isinstance(operation, RandCropImage) else backend
        validate(Resampling, {"backend": chosen, "filter": operation.interpolation or "bilinear"}, where)
    return operation.step(backend)


def fixed_step(op: ResizeShort | ResizeExact | CenterCrop) -> Step:
    """An operation of evaluation as a training step."""
    return lambda image, rng: apply_geometry(image, op)


class Augmentation:
    """A training `transform_ops` list: float32 `(3, H, W)` from RGB uint8 pixels, random by the generator given."""

    def __init__(self, entries: list[Any], where: str, backend: Backend, shape: tuple[int, int, int]) -> None:
        self.steps: list[Step] = []
        self.after: list[RandomErasing] = []
        self.shape = shape
        self.arguments = (entries, where, backend, shape)
        known = {*RANDOM, *AFTER, *GEOMETRY, *NORMALIZERS, *MARKERS}
        fixed_tail: list[Any] = []
        for index, entry in enumerate(entries):
            name, params = split_op(entry, f"{where}.{index}")
            at = f"{where}.{index}.{name}"
            if name in RANDOM:
                if fixed_tail and any(split_op(one, where)[0] in NORMALIZERS for one in fixed_tail):
                    raise InputError(f"{at}: expected before the normalisation")
                self.steps.append(random_step(name, params, backend, at))
            elif name in AFTER:
                if not any(split_op(one, where)[0] in NORMALIZERS for one in fixed_tail):
                    raise InputError(f"{at}: expected after the normalisation")
                self.after.append(validate(AFTER[name], params, at))
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
                f" the evaluation's give {self.shape[2]} x {self.shape[1]}: both must have one size"
            )
        tensor = np.empty(self.shape, dtype=np.float32)
        preprocess_pixels(image, self.tail, tensor)
        for operation in self.after:
            operation.erase(tensor, rng)
        return tensor
