"""The reference's `transform_ops` lists (training and deployment style) as a typed Preprocess."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ConfigDict, ValidationError

from ..core.config import Frozen, read_yaml, suggestion, validate
from ..core.errors import InputError
from .ops import Backend, CenterCrop, Decode, Normalize, Op, Preprocess, ResizeExact, ResizeShort

Params = dict[str, Any]


def split_op(entry: Any, where: str) -> tuple[str, Params]:
    """One list entry (`- Name: {params}`) as name and params."""
    if isinstance(entry, str):
        return entry, {}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise InputError(f"{where}: expected '- Name: {{options}}', got {entry!r:.80}")
    ((name, params),) = entry.items()
    if params is not None and not isinstance(params, dict):
        raise InputError(f"{where}.{name}: expected options as a mapping, got {params!r:.80}")
    return str(name), dict(params or {})


def _pair(size: Any, where: str) -> tuple[int, int]:
    values = size if isinstance(size, list | tuple) else (size, size)
    if len(values) != 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise InputError(f"{where}: expected a size or two of them, got {size!r}")
    return int(values[0]), int(values[1])


def _resize(params: Params, backend: Backend, where: str) -> ResizeShort | ResizeExact:
    """Paddle's `Resize`: an int is the shorter side (truncating), a pair is (height, width)."""
    chosen = params.pop("backend", None) or backend
    common: dict[str, Any] = {"backend": chosen, "filter": params.pop("interpolation", None) or "bilinear"}
    size = params.pop("size", None)
    if isinstance(size, int):
        return ResizeShort(size=size, rounding="truncate", **common)
    height, width = _pair(size, f"{where}.size")
    return ResizeExact(height=height, width=width, **common)


def _resize_image(params: Params, backend: Backend, where: str) -> ResizeShort | ResizeExact:
    """PaddleClas's `ResizeImage`: `resize_short` rounds, `size` is (width, height); its backend is cv2."""
    chosen = str(params.pop("backend", None) or "cv2").lower()
    params.pop("return_numpy", None)
    short, size = params.pop("resize_short", None), params.pop("size", None)
    common: dict[str, Any] = {"backend": chosen, "filter": params.pop("interpolation", None) or "bilinear"}
    if short:
        return ResizeShort(size=short, rounding="round", **common)
    width, height = _pair(size, f"{where}: needs resize_short or size")
    return ResizeExact(height=height, width=width, **common)


def _center_crop(params: Params, backend: Backend, where: str) -> CenterCrop:
    """Paddle's `CenterCrop`: (height, width), odd margins rounded to even."""
    height, width = _pair(params.pop("size", None), f"{where}.size")
    return CenterCrop(height=height, width=width, margin="round")


def _crop_image(params: Params, backend: Backend, where: str) -> CenterCrop:
    """PaddleClas's `CropImage`: (width, height), odd margins cut."""
    width, height = _pair(params.pop("size", None), f"{where}.size")
    return CenterCrop(height=height, width=width, margin="floor")


GEOMETRY: dict[str, Callable[[Params, Backend, str], ResizeShort | ResizeExact | CenterCrop]] = {
    "Resize": _resize,
    "ResizeImage": _resize_image,
    "CenterCrop": _center_crop,
    "CropImage": _crop_image,
}


def parse_geometry(name: str, params: Params, backend: Backend, where: str) -> ResizeShort | ResizeExact | CenterCrop:
    """One resize or crop from its options. InputError for a wrong or unknown option."""
    try:
        op = GEOMETRY[name](params, backend, where)
    except ValidationError as error:
        raise InputError(f"{where}: {first_fault(error)}") from error
    refuse_leftovers(params, where)
    return op


def refuse_leftovers(params: Params, where: str) -> None:
    """InputError when an option was not understood."""
    if params:
        raise InputError(f"{where}: unknown option '{next(iter(params))}'")


def first_fault(error: ValidationError) -> str:
    """The first fault of a typed operation."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where + ': ' if where else ''}{fault['msg'].removeprefix('Value error, ')}"


NORMALIZERS = {"Normalize", "NormalizeImage"}
MARKERS = {"ToTensor", "ToCHWImage", "DecodeImage"}


def _number(value: Any, where: str) -> float:
    """A number, or a quotient of two given as text (`1.0/255.0`)."""
    parts = value.split("/") if isinstance(value, str) else [value]
    try:
        numbers = [float(part) for part in parts]
        return numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{where}: expected a number, got {value!r}") from error


def _normalize(name: str, params: Params, scaled: bool, order: str, where: str) -> Normalize:
    values: dict[str, Any] = {"order": order}
    values.update({key: params.pop(key) for key in ("mean", "std") if params.get(key) is not None})
    if name == "NormalizeImage":
        scale = params.pop("scale", None)
        values["scale"] = 1.0 / 255.0 if scale is None else _number(scale, f"{where}.scale")
        params.pop("order", None)
        if params.pop("channel_num", 3) != 3 or params.pop("output_fp16", False):
            raise InputError(f"{where}: expected channel_num 3 and output_fp16 False")
    else:
        values["scale"] = 1.0 / 255.0 if scaled else 1.0
        params.pop("data_format", None)
        if params.pop("to_rgb", False):
            raise InputError(f"{where}.to_rgb: expected False: channels are RGB already")
    return Normalize(**values)


def parse_transform_ops(entries: Any, where: str, backend: Backend, exif: Literal["ignore", "apply"]) -> Preprocess:
    """A `transform_ops` list as a Preprocess.

    backend: what a `Resize` without one uses (the data set's `backend`). exif: the reader's orientation rule.
    Raises InputError for an unknown or misplaced operation or option.
    """
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: expected a list of operations, got {entries!r:.80}")
    ops: list[Op] = []
    normalize: Normalize | None = None
    to_tensor, order = False, "rgb"
    for index, entry in enumerate(entries):
        at = f"{where}.{index}"
        name, params = split_op(entry, at)
        at = f"{at}.{name}"
        try:
            if name in GEOMETRY:
                if normalize is not None or to_tensor:
                    raise InputError(f"{at}: expected before ToTensor and Normalize")
                ops.append(parse_geometry(name, params, backend, at))
            elif name in NORMALIZERS:
                if normalize is not None:
                    raise InputError(f"{at}: a second normalisation; expected one")
                normalize = _normalize(name, params, to_tensor, order, at)
            elif name in MARKERS:
                to_tensor = to_tensor or name == "ToTensor"
                if name == "DecodeImage":
                    order = "rgb" if params.pop("to_rgb", True) else "bgr"
                    exif = cast(Any, params.pop("exif", exif))
                    if params.pop("channel_first", False):
                        raise InputError(f"{at}.channel_first: expected False")
                for known in ("to_np", "backend", "data_format"):
                    params.pop(known, None)
            else:
                known_names = {*GEOMETRY, *NORMALIZERS, *MARKERS}
                raise InputError(f"{at}: unknown operation{suggestion(name, known_names)}")
        except ValidationError as error:
            raise InputError(f"{at}: {first_fault(error)}") from error
        refuse_leftovers(params, at)
    if normalize is None:
        raise InputError(f"{where}: no Normalize or NormalizeImage in the list")
    try:
        return Preprocess(ops=(Decode(exif=exif), *ops, normalize))
    except ValidationError as error:
        raise InputError(f"{where}: {first_fault(error)}") from error


class PreprocessFile(Frozen):
    """A YAML with `RecPreProcess.transform_ops` or `PreProcess.transform_ops`; its other sections are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    RecPreProcess: dict[str, Any] | None = None
    PreProcess: dict[str, Any] | None = None


def read_preprocess(path: Path) -> Preprocess:
    """The preprocessing of a deployment config in the reference's form, whose script reads images with OpenCV."""
    sections = validate(PreprocessFile, read_yaml(path), f"config {path}")
    section = sections.RecPreProcess or sections.PreProcess
    if section is None:
        raise InputError(f"config {path}: expected RecPreProcess.transform_ops")
    return parse_transform_ops(section.get("transform_ops"), f"{path}: transform_ops", backend="cv2", exif="apply")
