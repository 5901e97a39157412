"""An image's way to the tensor, step by step, and which preprocessing made a tensor that came without its story."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...runtimes.core.errors import ImageError
from ...runtimes.embed.verify import TENSOR_TOLERANCE
from ...runtimes.preprocess.comparison import difference
from ...runtimes.preprocess.images import decode_rgb
from ...runtimes.preprocess.ops import FILTERS, CenterCrop, Decode, Normalize, Op, Preprocess, ResizeExact, ResizeShort
from ...runtimes.preprocess.pipeline import apply_geometry, preprocess_bytes

Tensor = NDArray[np.float32]
NAMES = {"resize_short": "resize", "center_crop": "crop", "normalize": "normalise"}
# What people normalise with, beside the spec's own numbers.
MEANS = (((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1.0,) * 3))
SCALES = (1.0 / 255.0, 1.0)


@dataclass(frozen=True)
class Step:
    """One operation and what it gave: uint8 `(h, w, 3)`, or the float32 tensor `(3, H, W)` at the end."""

    op: Op
    values: NDArray[Any]

    @property
    def name(self) -> str:
        """The stage as people say it."""
        return NAMES.get(self.op.op, self.op.op)


def trace(data: bytes, preprocess: Preprocess, name: str) -> list[Step]:
    """Every step from an encoded image to its tensor. ImageError."""
    pixels = decode_rgb(data, preprocess.decode.exif, name)
    steps = [Step(preprocess.decode, pixels)]
    for op in preprocess.geometry:
        pixels = apply_geometry(pixels, op)
        steps.append(Step(op, pixels))
    steps.append(Step(preprocess.normalize, preprocess_bytes(data, preprocess, name)))
    return steps


def size_of(step: Step) -> str:
    """`width x height` of a step's image."""
    shape = step.values.shape if step.values.dtype == np.uint8 else step.values.shape[1:]
    return f"{shape[1]} x {shape[0]}"


def same(a: Step, b: Step) -> bool:
    """Whether two steps gave the same."""
    if a.values.shape != b.values.shape:
        return False
    return bool(np.abs(a.values.astype(np.float32) - b.values.astype(np.float32)).max() <= TENSOR_TOLERANCE)


def described(op: Op) -> str:
    """A resize or crop with its size."""
    if isinstance(op, ResizeShort):
        return f"resize the shorter side to {op.size} by {op.backend} {op.filter}"
    if isinstance(op, ResizeExact):
        return f"resize to {op.width} x {op.height} by {op.backend} {op.filter}"
    return f"crop to {op.width} x {op.height}" if isinstance(op, CenterCrop) else op.op


@dataclass(frozen=True)
class PixelDifference:
    """The first stage at which two images part. what: in a few words."""

    stage: str
    what: str


def first_difference(a: Sequence[Step], b: Sequence[Step]) -> PixelDifference | None:
    """None when both ways end in the same tensor."""
    if same(a[-1], b[-1]):
        return None
    kinds_a, kinds_b = ([step.op.op for step in way] for way in (a, b))
    if kinds_a != kinds_b:  # other resizes and crops: what they end with is compared, just before the last step
        if same(a[0], b[0]) and not same(a[-2], b[-2]):
            ways = (", ".join(described(step.op) for step in way[1:-1]) for way in (a, b))
            return PixelDifference("resize", " against ".join(ways))
        a, b = [a[0], a[-2], a[-1]], [b[0], b[-2], b[-1]]
    for left, right in zip(a, b, strict=True):
        if not same(left, right):
            what = difference(left.op, right.op)
            if left.values.shape != right.values.shape:
                what += f", {size_of(left)} against {size_of(right)}"
            return PixelDifference(left.name, what)
    raise AssertionError("the last steps differ")


def variations(preprocess: Preprocess) -> Iterator[Preprocess]:
    """The preprocessing with one thing changed that people get wrong, nearest relatives first."""
    for index, op in enumerate(preprocess.ops):
        for other in other_ops(op, preprocess):
            if other != op:
                try:
                    yield Preprocess(ops=(*preprocess.ops[:index], other, *preprocess.ops[index + 1 :]))
                except ValidationError:
                    continue


def other_ops(op: Op, preprocess: Preprocess) -> Iterator[Op]:
    """One operation, changed."""
    if isinstance(op, Decode):
        yield Decode(exif="apply" if op.exif == "ignore" else "ignore")
    elif isinstance(op, ResizeShort | ResizeExact):
        # Another library comes with its script's own rule for the size.
        rules: list[dict[str, Any]] = [{"rounding": rule} for rule in ("truncate", "round")]
        for rule in rules if isinstance(op, ResizeShort) else [{}]:
            for backend, filters in FILTERS.items():
                for kind in filters:
                    yield op.model_copy(update={"backend": backend, "filter": kind, **rule})
        if isinstance(op, ResizeShort):
            for size in (op.size - 1, op.size + 1, 224, 256, min(preprocess.output_shape[1:])):
                if size >= min(preprocess.output_shape[1:]):
                    yield op.model_copy(update={"size": size})
    elif isinstance(op, CenterCrop):
        yield op.model_copy(update={"margin": "floor" if op.margin == "round" else "round"})
    elif isinstance(op, Normalize):
        yield op.model_copy(update={"order": "bgr" if op.order == "rgb" else "rgb"})
        for mean, std in MEANS:
            yield op.model_copy(update={"mean": mean, "std": std})
        for scale in SCALES:
            yield op.model_copy(update={"scale": scale})


@dataclass(frozen=True)
class Explanation:
    """A preprocessing that explains what was seen, and how far it is off."""

    preprocess: Preprocess
    error: float


def explain(data: bytes, preprocess: Preprocess, name: str, error_of: Callable[[Tensor], float]) -> Explanation:
    """Of the preprocessing, its variations, and theirs of the best one, that whose tensor has the lowest error."""

    def tried(candidate: Preprocess) -> Explanation | None:
        try:
            return Explanation(candidate, error_of(preprocess_bytes(data, candidate, name)))
        except ImageError:
            return None

    def best(candidates: Iterator[Preprocess], known: Explanation) -> Explanation:
        for candidate in candidates:
            found = tried(candidate)
            if found is not None and found.error < known.error:
                known = found
        return known

    start = Explanation(preprocess, error_of(preprocess_bytes(data, preprocess, name)))
    first = best(variations(preprocess), start)
    return first if first.error <= TENSOR_TOLERANCE else best(variations(first.preprocess), first)
