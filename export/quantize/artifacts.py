"""The quantised artifacts: what each starts from, and how it is made, by a process of its own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact, Quantisation, Recipe, describe_file
from ..context import FormatFailed, own_step, run_step
from .recipes import RecipeFile


@dataclass(frozen=True)
class Quantised:
    """runtime, quantisation: of the artifact. step: of `steps`. file: the model's name."""

    runtime: str
    quantisation: Quantisation
    step: str
    file: str


QUANTISED = {
    "onnx-fp16": Quantised("onnxruntime", "fp16", "onnx_fp16", "model.onnx"),
    "onnx-int8": Quantised("onnxruntime", "int8", "onnx_int8", "model.onnx"),
    "openvino-fp16": Quantised("openvino", "fp16", "openvino_fp16", "model.xml"),
    "openvino-int8": Quantised("openvino", "int8", "openvino_int8", "model.xml"),
}
SILENT = {"NNCF_CI": "1"}  # else NNCF tells its makers of each use
CALIBRATED = tuple(name for name, entry in QUANTISED.items() if entry.quantisation == "int8")


@dataclass(frozen=True)
class Work:
    """What making an artifact takes. tensors: the calibration's, in a file, None where there is none; hashes: of its
    images.
    """

    bundle: Bundle
    scratch: Path
    recipes: RecipeFile
    tensors: Path | None
    hashes: tuple[str, ...]

    @property
    def made(self) -> Path:
        """Where artifacts are made, each in a folder of its name."""
        return self.scratch / "made"


def float_model(bundle: Bundle, runtime: str) -> Path:
    """The float32 artifact of a runtime, hashed. FormatFailed where the bundle has none."""
    for artifact in bundle.manifest.artifacts:
        if artifact.runtime == runtime and artifact.quantisation == "fp32":
            files = bundle.files(artifact)
            if "model" not in files:
                raise FormatFailed(f"the bundle's artifact {artifact.name} has no file with the role 'model'")
            return Path(files["model"])
    raise FormatFailed(
        f"the bundle has no float32 artifact of {runtime} to start from: export it with that format"
        + (", or choose 'scheme: nncf' by --recipe" if runtime == "onnxruntime" else "")
    )


def make_quantised(name: str, work: Work) -> Artifact:
    """One artifact, made in `work.made`. FormatFailed with the reason."""
    entry, recipe = QUANTISED[name], work.recipes.of(name)
    from_onnx = entry.runtime == "onnxruntime" or (recipe is not None and recipe.scheme == "qdq")
    source = float_model(work.bundle, "onnxruntime" if from_onnx else entry.runtime)
    place, answer = work.made / name, work.scratch / f"{name}.answer"
    place.mkdir(parents=True)
    target = place / entry.file
    arguments = [answer, source, target]
    if recipe is not None:
        assert work.tensors is not None
        written = work.scratch / f"{name}.json"
        written.write_text(recipe.model_dump_json(exclude_unset=True), encoding="utf-8")
        arguments += [written, work.tensors]
    run_step(own_step(entry.step, *arguments), {**os.environ, **SILENT}, label=f"quantising {name}")
    told = json.loads(answer.read_text(encoding="utf-8"))
    files = {"model": target, "weights": target.with_suffix(".bin")} if target.suffix == ".xml" else {"model": target}
    return Artifact(
        name=name,
        runtime=entry.runtime,
        targets=("any",),
        quantisation=entry.quantisation,
        recipe=Recipe(
            scheme="weights in float16" if recipe is None else recipe.text(),
            tool=told["tool"],
            version=told["version"],
            calibration=() if recipe is None else work.hashes,
            kept=tuple(told["kept"]),
        ),
        files=tuple(describe_file(work.made, path, role) for role, path in files.items()),
    )
