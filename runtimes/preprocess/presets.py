"""Preprocessing by name, and as torchvision prints it: `imagenet`, `clip`, `timm:MODEL`, or a file with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..core.config import suggestion
from ..core.errors import InputError
from ..core.text import one_line
from .ops import CenterCrop, Decode, Normalize, Op, Preprocess, ResizeExact, ResizeShort
from .transform_ops import first_fault, read_preprocess

Triple = tuple[float, float, float]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# As `print(transform)` shows them in torchvision 0.13 and newer, and OpenAI's CLIP.
PRESETS = {
    "imagenet": """Compose(
        Resize(size=256, interpolation=bilinear)
        CenterCrop(size=(224, 224))
        ToTensor()
        Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    )""",
    "clip": """Compose(
        Resize(size=224, interpolation=bicubic)
        CenterCrop(size=(224, 224))
        ToTensor()
        Normalize(mean=[0.48145466, 0.4578275, 0.40821073], std=[0.26862954, 0.26130258, 0.27577711])
    )""",
}
TIMM = "timm:"
PRINTED = re.compile(r"\s*[A-Za-z_]\w*\(")
# OpenAI's CLIP and open_clip: of Pillow images, what decoding does here.
TO_RGB = re.compile(r"<function _?convert_(image_)?to_rgb at 0x[0-9a-f]+>")
ROUNDED = 5e-5  # what torch leaves out where it prints a tensor
# What turns pixels into numbers: what it takes, and what it gives.
STEPS = {
    "ToTensor": ("image", "scaled"),
    "MaybeToTensor": ("image", "scaled"),
    "ToImage": ("image", "tensor"),
    "PILToTensor": ("image", "tensor"),
    "ToDtype": ("tensor", "scaled"),
    "ConvertImageDtype": ("tensor", "scaled"),
}
BEFORE = {"image": "resizes and crops, once", "tensor": "ToImage or PILToTensor"}
OPTIONS: dict[str, set[str]] = {
    **{name: set[str]() for name in STEPS},
    "ToDtype": {"scale", "dtype"},
    "Resize": {"size", "interpolation", "max_size", "antialias"},
    "CenterCrop": {"size"},
    "Normalize": {"mean", "std", "inplace"},
}
# Of torchvision's and timm's interpolation to ours, as Pillow computes it.
FILTERS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def find_preprocess(text: str) -> Preprocess:
    """What `--preprocess` names: a preset, `timm:MODEL`, or a file, YAML in PaddleClas's form or a printed one."""
    if text in PRESETS:
        return printed_transform(PRESETS[text], text)
    if text.startswith(TIMM):
        return printed_transform(timm_transform(text[len(TIMM) :]), text)
    path = Path(text)
    if not path.is_file():
        near = suggestion(text, PRESETS)
        raise InputError(
            f"--preprocess: expected a file, {', '.join(PRESETS)} or {TIMM}MODEL, got '{text:.100}', no such file{near}"
        )
    try:
        start = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        start = ""
    return printed_transform(start, str(path)) if PRINTED.match(start) else read_preprocess(path)


def timm_transform(model: str) -> str:
    """What timm prints of a pretrained model's own evaluation transform. InputError without timm."""
    try:
        import timm
        from timm.data import create_transform, resolve_data_config
    except ImportError as error:
        raise InputError(
            f"--preprocess {TIMM}{model:.60}: needs timm: 'pip install timm', or print the transform where it is"
        ) from error
    try:
        known = timm.get_pretrained_cfg(model)
        config = resolve_data_config(pretrained_cfg=known.to_dict()) if known is not None else None
    except Exception as error:  # timm's own, for a tag that it does not know
        raise InputError(f"--preprocess {TIMM}{model:.60}: {one_line(error)}") from error
    if config is None:
        raise InputError(f"--preprocess: timm knows no pretrained '{model:.60}'")
    exact = f"Normalize(mean={list(config['mean'])}, std={list(config['std'])})"  # it prints four digits
    return re.sub(r"Normalize\(.*\)", exact, str(create_transform(**config)))


def printed_transform(text: str, where: str) -> Preprocess:
    """A torchvision transform for Pillow images as `print` shows it. InputError for what it does that we do not."""
    calls = parsed(text.strip(), where)
    if len(calls) == 1 and calls[0][0] == "ImageClassification":
        calls = classification(calls[0][1], where)
    ops: list[Op] = [Decode(exif="ignore")]
    normalize: Normalize | None = None
    state = "image"  # then "tensor" of 0 to 255, then "scaled" to 0 to 1
    for name, options in calls:
        at = f"{where}: {name}"
        if name not in OPTIONS:
            raise InputError(f"{at}: is not known here: expected Resize, CenterCrop, ToTensor and Normalize")
        if unknown := sorted(options.keys() - OPTIONS[name]):
            raise InputError(f"{at}: the option {unknown[0] or 'without a name'} is not known here")
        if normalize is not None:
            raise InputError(f"{at}: expected Normalize once, at the end")
        if name in STEPS:
            before, after = STEPS[name]
            if state != before:
                raise InputError(f"{at}: expected after {BEFORE[before]}")
            if name == "ToDtype" and options.get("scale") is not True:
                raise InputError(f"{at}: expected scale=True, which divides by 255")
            state = after
        elif name == "Normalize":
            if state != "scaled":
                raise InputError(f"{at}: expected after ToTensor, or ToImage and ToDtype(scale=True)")
            means, stds = triple(options, "mean", at), triple(options, "std", at)
            try:
                normalize = Normalize(mean=means, std=stds)
            except ValidationError as error:
                raise InputError(f"{at}: {first_fault(error)}") from error
        elif state != "image":
            raise InputError(f"{at}: expected before ToTensor: pixels are resized, not tensors")
        elif name == "Resize":
            ops.append(resize(options, at))
        else:
            height, width = pair(options.get("size"), at)
            ops.append(CenterCrop(height=height, width=width, margin="round"))
    if normalize is None:
        raise InputError(f"{where}: expected ToTensor and Normalize at the end")
    try:
        return Preprocess(ops=(*ops, normalize))
    except ValidationError as error:
        raise InputError(f"{where}: expected a resize or crop to a fixed size before ToTensor") from error


def parsed(text: str, where: str) -> list[tuple[str, dict[str, Any]]]:
    """The transforms in order, each with its options."""
    head, _, rest = text.partition("(")
    lines = [line.strip() for line in rest.strip().removesuffix(")").splitlines() if line.strip()]
    several = head in ("Compose", "Sequential")
    texts = [re.sub(r"^\(\d+\): ", "", line) for line in lines] if several else [f"{head}({', '.join(lines)})"]
    return [call(one, where) for one in texts if not TO_RGB.fullmatch(one)]


def call(text: str, where: str) -> tuple[str, dict[str, Any]]:
    """One printed transform."""
    try:
        tree = ast.parse(text, mode="eval").body
        if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
            raise ValueError(text)
        options = {str(one.arg): value_of(one.value) for one in tree.keywords}
        if tree.args:
            options[""] = [value_of(one) for one in tree.args]
        return tree.func.id, options
    except (SyntaxError, ValueError, TypeError, IndexError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: expected transforms as torchvision prints them, got '{text:.80}'") from error


def value_of(tree: ast.expr) -> Any:
    """A printed value: numbers and lists of them, `tensor([...])`, names such as `InterpolationMode.BILINEAR`."""
    if isinstance(tree, ast.Attribute):
        return tree.attr.lower()
    if isinstance(tree, ast.Name):
        return tree.id.lower()
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "tensor":
        return exact(ast.literal_eval(tree.args[0]))
    return ast.literal_eval(tree)


def exact(rounded: Any) -> Any:
    """Numbers that torch printed rounded to four digits: those that are known are known to all digits."""
    for known in (values for pair in (IMAGENET, CLIP, HALF) for values in pair):
        if len(rounded) == 3 and all(abs(a - b) <= ROUNDED for a, b in zip(rounded, known, strict=True)):
            return list(known)
    raise ValueError(rounded)


def resize(options: dict[str, Any], at: str) -> ResizeShort | ResizeExact:
    """One number is the shorter side, the longer one truncated; two are height and width."""
    size, name = options.get("size"), options.get("interpolation", "bilinear")
    if name not in FILTERS or options.get("max_size") not in (None, "none"):
        raise InputError(f"{at}: expected interpolation as one of {', '.join(FILTERS)}, and no max_size")
    if isinstance(size, list | tuple) and len(size) == 1:
        size = size[0]
    if isinstance(size, int) and not isinstance(size, bool):
        return ResizeShort(size=one_side(size, at), rounding="truncate", backend="pil", filter=name)
    height, width = pair(size, at)
    return ResizeExact(height=height, width=width, backend="pil", filter=name)


def one_side(size: Any, at: str) -> int:
    """A side in pixels."""
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 8192:
        raise InputError(f"{at}: expected a size of 1 to 8192, got {size!r:.40}")
    return size


def pair(size: Any, at: str) -> tuple[int, int]:
    """Height and width; a single number is both."""
    values = size if isinstance(size, list | tuple) else (size,)
    if len(values) not in (1, 2):
        raise InputError(f"{at}: expected a size or two of them, got {size!r:.40}")
    return one_side(values[0], at), one_side(values[-1], at)


def triple(options: dict[str, Any], name: str, at: str) -> Triple:
    """Three numbers, one a channel."""
    values = options.get(name)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
        raise InputError(f"{at}: expected {name} as three numbers, got {values!r:.60}")
    return float(values[0]), float(values[1]), float(values[2])


def classification(options: dict[str, Any], at: str) -> list[tuple[str, dict[str, Any]]]:
    """torchvision's preset of a weights entry, `weights.transforms()`, as the transforms that it applies."""
    resized = {"size": options.get("resize_size"), "interpolation": options.get("interpolation", "bilinear")}
    cropped = {"size": options.get("crop_size")}
    scaled = {"mean": options.get("mean"), "std": options.get("std")}
    return [("Resize", resized), ("CenterCrop", cropped), ("ToTensor", {}), ("Normalize", scaled)]
