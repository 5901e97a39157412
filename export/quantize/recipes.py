"""How an artifact is quantised, as data: what a `--recipe` file holds, and what is taken without one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from ...runtimes.core.config import Frozen, read_yaml, validate
from ...runtimes.core.errors import InputError

Word = Annotated[str, Field(min_length=1, max_length=200)]
KINDS = ("first", "last", "depthwise")


class Int8Recipe(Frozen):
    """Int8 weights and activations.

    scheme: `qdq`, ONNX Runtime's quantiser over the folded ONNX graph; `nncf`, NNCF's over OpenVINO's; `ncnn`, for its
    kernels. activations: unsigned with a zero point, or signed and symmetric (qdq; ncnn's are always that).
    calibration: what of the activations seen becomes the range; percentile: of them, for that method (not nncf).
    per_channel: a scale for each channel of the weights (not nncf). reduce_range: weights of fewer bits: 7 in qdq,
    without which ONNX Runtime's sums of products overflow on x86 CPUs that have no VNNI; 6 in those convolutions that
    ncnn computes by Winograd's transform, without which they are computed otherwise. bias_correction: biases take back
    what the rounding of weights does to the means (not nncf). keep: layers left in float: names in the folded graph
    or, for its own schemes, in the runtime's, operator types, or `first`, `last`, `depthwise`.
    """

    scheme: Literal["qdq", "nncf", "ncnn"] = "qdq"
    activations: Literal["uint8", "int8"] = "uint8"
    calibration: Literal["minmax", "percentile", "entropy"] = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    per_channel: bool = True
    reduce_range: bool = True
    bias_correction: bool = True
    keep: Annotated[tuple[Word, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def options_are_used(self) -> Int8Recipe:
        given = self.model_fields_set - {"scheme", "keep"}
        if self.scheme == "nncf" and given:
            raise ValueError(f"scheme nncf takes keep alone, not {', '.join(sorted(given))}")
        if self.scheme == "ncnn" and self.activations != "int8" and "activations" in given:
            raise ValueError("scheme ncnn has activations int8 alone")
        if self.calibration != "percentile" and "percentile" in given:
            raise ValueError(f"percentile is of that calibration, {self.calibration} has none")
        return self

    def text(self) -> str:
        """For the manifest and the report."""
        kept = f", in float: {', '.join(self.keep)}" if self.keep else ""
        if self.scheme == "nncf":
            return f"NNCF{kept}"
        how = f"percentile {self.percentile:.12g}" if self.calibration == "percentile" else self.calibration
        channels = "per channel" if self.per_channel else "per tensor"
        biases = ", biases corrected" if self.bias_correction else ""
        if self.scheme == "ncnn":
            bits = ", Winograd's weights of 6 bits" if self.reduce_range else ", no Winograd"
            return f"ncnn, int8, {channels}{bits}, {how}{biases}{kept}"
        bits = ", weights of 7 bits" if self.reduce_range else ""
        return f"QDQ, {self.activations}, {channels}{bits}, {how}{biases}{kept}"


class Layer(NamedTuple):
    """An operator of a graph. kind: its type; heavy: whether it multiplies by weights."""

    name: str
    kind: str
    heavy: bool
    depthwise: bool = False


def kept_layers(layers: Sequence[Layer], keep: Sequence[str]) -> list[str]:
    """The names of those that a recipe leaves in float. InputError for a word that names none."""
    heavy = [layer.name for layer in layers if layer.heavy]
    kinds = {
        "first": heavy[:1],
        "last": heavy[-1:],
        "depthwise": [layer.name for layer in layers if layer.depthwise],
    }
    found: dict[str, None] = {}
    for word in keep:
        named = [*kinds.get(word, []), *(layer.name for layer in layers if word in (layer.name, layer.kind))]
        if not named:
            types = ", ".join(sorted({layer.kind for layer in layers}))
            raise InputError(
                f"recipe: keep: no layer is '{word}': expected {', '.join(KINDS)}, a layer's name or one of {types}"
            )
        found.update(dict.fromkeys(named))
    return list(found)


def for_ncnn(given: Any) -> Any:
    """A recipe as the file has it, with the only scheme there is for ncnn where it names none."""
    return {"scheme": "ncnn", **given} if isinstance(given, dict) else given


class RecipeFile(Frozen):
    """Recipes by artifact."""

    onnx_int8: Annotated[Int8Recipe, Field(alias="onnx-int8")] = Int8Recipe()
    openvino_int8: Annotated[Int8Recipe, Field(alias="openvino-int8")] = Int8Recipe()
    ncnn_int8: Annotated[Int8Recipe, BeforeValidator(for_ncnn), Field(alias="ncnn-int8")] = Int8Recipe(scheme="ncnn")

    @model_validator(mode="after")
    def schemes_fit(self) -> RecipeFile:
        if self.onnx_int8.scheme == "nncf":
            raise ValueError("onnx-int8: scheme nncf is for openvino-int8: its ONNX runs slower than float32")
        for name, recipe, fitting in (
            ("onnx-int8", self.onnx_int8, ("qdq",)),
            ("openvino-int8", self.openvino_int8, ("qdq", "nncf")),
            ("ncnn-int8", self.ncnn_int8, ("ncnn",)),
        ):
            if recipe.scheme not in fitting:
                raise ValueError(f"{name}: expected scheme {' or '.join(fitting)}, got '{recipe.scheme}'")
        return self

    def of(self, artifact: str) -> Int8Recipe | None:
        """The recipe of an artifact; None for one that needs none."""
        found = getattr(self, artifact.replace("-", "_"), None)
        return found if isinstance(found, Int8Recipe) else None


def load_recipes(path: Path | None) -> RecipeFile:
    """A YAML file of recipes; without one those by default. InputError with one line for the first fault."""
    return RecipeFile() if path is None else validate(RecipeFile, read_yaml(path), f"recipe {path}")
