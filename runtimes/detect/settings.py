"""What a detector does beside its network: how a picture becomes its input, and which boxes count."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from ..core.config import Frozen, validate
from ..core.errors import InputError
from ..preprocess.ops import Decode, Filter, Normalize, Preprocess, ResizeExact
from ..preprocess.transform_ops import first_fault, refuse_leftovers, split_op

CV2_FILTERS: tuple[Filter, ...] = ("nearest", "bilinear", "bicubic", "area", "lanczos")  # by OpenCV's numbers
MOST_RESULTS = 1000
ORDER = "expected DetResize, DetNormalizeImage, DetPermute, in this order"
Share = Annotated[float, Field(ge=0, le=1)]
Results = Annotated[int, Field(ge=1, le=MOST_RESULTS)]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=10_000)]


class DetectorSettings(Frozen):
    """threshold: the least score of a box. max_results: of a picture, the best. overlap: of boxes of a class that
    overlap by more (IoU), the best one alone, where the network does not see to it itself. labels: of its classes.
    """

    preprocess: Preprocess
    threshold: Share = 0.2
    max_results: Results = 5
    overlap: Share = 0.5
    labels: Labels = ("foreground",)


Place = Annotated[Path | None, BeforeValidator(lambda value: value or None)]  # empty: none


class DetectorKeys(Frozen):
    """The reference's, of `Global`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    det_inference_model_dir: Place = None
    image_shape: tuple[int, int, int] | None = None
    threshold: Share = 0.2
    max_det_results: Results = 5
    label_list: Labels | None = None
    labe_list: Labels | None = None  # as some of its files have it


class DetectorConfig(Frozen):
    """What of a config of the reference is a detector's; the rest is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    Global: DetectorKeys
    DetPreProcess: dict[str, Any]

    @property
    def settings(self) -> DetectorSettings:
        """InputError where DetPreProcess cannot be done."""
        keys = self.Global
        preprocess = parse_det_ops(self.DetPreProcess.get("transform_ops"), "DetPreProcess.transform_ops")
        if keys.image_shape not in (None, preprocess.output_shape):
            raise InputError(
                f"Global.image_shape: DetPreProcess gives {preprocess.output_shape}, got {keys.image_shape}"
            )
        labels = keys.label_list or keys.labe_list or ("foreground",)
        return DetectorSettings(
            preprocess=preprocess, threshold=keys.threshold, max_results=keys.max_det_results, labels=labels
        )


def parse_detector(raw: Any, name: str) -> DetectorConfig:
    """A config's part. InputError, which begins with `name`."""
    return validate(DetectorConfig, raw, name)


def parse_det_ops(entries: Any, where: str) -> Preprocess:
    """The reference's `DetPreProcess.transform_ops`, whose pictures are read by OpenCV, as a Preprocess.

    InputError for an unknown or misplaced operation or option, and for what gives tensors of several sizes.
    """
    if not isinstance(entries, list):
        raise InputError(f"{where}: expected a list of operations, got {entries!r:.80}")
    resize: ResizeExact | None = None
    normalize: Normalize | None = None
    permuted = False
    for index, entry in enumerate(entries):
        name, params = split_op(entry, f"{where}.{index}")
        at = f"{where}.{index}.{name}"
        try:
            if name == "DetResize" and resize is None:
                resize = _resize(params, at)
            elif name == "DetNormalizeImage" and resize is not None and normalize is None:
                scale = 1 / 255 if _switch(params, "is_scale", True, at) else 1.0
                normalize = Normalize(scale=scale, **{key: params.pop(key) for key in ("mean", "std")})
            elif name == "DetPermute" and normalize is not None and not permuted:
                permuted = True
            elif name == "DetPadStride" and permuted and resize is not None:
                stride = params.pop("stride", 0)
                if type(stride) is not int or (stride > 0 and (resize.height % stride or resize.width % stride)):
                    raise InputError(f"{at}.stride: expected one that divides target_size, got {stride!r:.40}")
            else:
                raise InputError(f"{at}: {ORDER}")
        except KeyError as error:
            raise InputError(f"{at}: expected {error.args[0]}") from None
        except ValidationError as error:
            raise InputError(f"{at}: {first_fault(error)}") from error
        refuse_leftovers(params, at)
    if resize is None or normalize is None or not permuted:
        raise InputError(f"{where}: {ORDER}")
    return Preprocess(ops=(Decode(exif="apply"), resize, normalize))


def _switch(params: dict[str, Any], key: str, fallback: bool, at: str) -> bool:
    value = params.pop(key, fallback)
    if type(value) is not bool:
        raise InputError(f"{at}.{key}: expected true or false, got {value!r:.40}")
    return value


def _resize(params: dict[str, Any], at: str) -> ResizeExact:
    size = params.pop("target_size", None)
    size = [size, size] if type(size) is int else size
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise InputError(f"{at}.target_size: expected a size, or height and width, got {size!r:.80}")
    if _switch(params, "keep_ratio", True, at):
        raise InputError(f"{at}.keep_ratio: expected false: the network's input has one size")
    interp = params.pop("interp", 1)
    if type(interp) is not int or not 0 <= interp < len(CV2_FILTERS):
        raise InputError(
            f"{at}.interp: expected 0 to {len(CV2_FILTERS) - 1}, as OpenCV counts them, got {interp!r:.40}"
        )
    return ResizeExact(backend="cv2", filter=CV2_FILTERS[interp], height=size[0], width=size[1])
