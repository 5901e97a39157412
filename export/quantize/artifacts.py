"""The quantised artifacts: what each starts from, and how it is made, by a process of its own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import VNNI, Artifact, Quantisation, Recipe, describe_file
from ..context import FormatFailed, own_step, run_step
from .recipes import Int8Recipe, RecipeFile


@dataclass(frozen=True)
class Quantised:
    """runtime, quantisation: of the artifact. file: the model's name. source: the runtime whose float32 artifact it is
    made from, by default its own.
    """

    runtime: str
    quantisation: Quantisation
    file: str
    source: str = ""


QUANTISED = {
    "onnx-fp16": Quantised("onnxruntime", "fp16", "model.onnx"),
    "onnx-int8": Quantised("onnxruntime", "int8", "model.onnx"),
    "openvino-fp16": Quantised("openvino", "fp16", "model.xml"),
    "openvino-int8": Quantised("openvino", "int8", "model.xml"),
    "mnn-fp16": Quantised("mnn", "fp16", "model.mnn", source="onnxruntime"),
    "ncnn-fp16": Quantised("ncnn", "fp16", "model.param"),
    "ncnn-int8": Quantised("ncnn", "int8", "model.param"),
}
# What is not made, and why: what makes it was tried, and gives what no check lets pass.
NOT_MADE = {
    "paddle-int8": "Paddle Inference gives chance recall on a quantised model with oneDNN, and is slower than float32"
    " without it",
    "paddle-fp16": "Paddle Inference has no half precision on CPUs; its bf16 needs no artifact: ask for that",
    "lite-int8": "Paddle Lite's optimiser gives models that are wrong on x86 (NaN, or cosine .13), and are not known to"
    " be right on ARM; ncnn-int8 and onnx-int8 run there",
    "lite-fp16": "Paddle Lite's optimiser changes neither size nor speed by it on x86, and ARM's kernels were not run",
    "mnn-int8": "MNN's quantiser writes nothing, and it refuses QDQ models",
}
# Machines that add products of 8-bit weights and activations without overflow.
EIGHT_BITS = (f"x86_64{VNNI}", "aarch64", "armv7l")
SILENT = {"NNCF_CI": "1"}  # else NNCF tells its makers of each use
CALIBRATED = tuple(name for name, entry in QUANTISED.items() if entry.quantisation == "int8")


class Told(NamedTuple):
    """What a step says that it did: by which tool, and what it left in float."""

    tool: str
    version: str
    kept: list[str]


@dataclass(frozen=True)
class Work:
    """What making an artifact takes. tensors: the calibration's, in a file, None where there is none; hashes: of its
    images; graphs: QDQ models made so far. known: a folder that keeps the ranges measured, for further recipes.
    """

    bundle: Bundle
    scratch: Path
    recipes: RecipeFile
    tensors: Path | None
    hashes: tuple[str, ...]
    graphs: dict[Int8Recipe, tuple[Path, Told]] = field(default_factory=dict)
    known: Path | None = None

    @property
    def made(self) -> Path:
        """Where artifacts are made, each in a folder of its name."""
        return self.scratch / "made"


def float_model(bundle: Bundle, runtime: str, otherwise: str = "") -> Path:
    """The float32 artifact of a runtime, hashed. FormatFailed where the bundle has none. otherwise: what else helps."""
    for artifact in bundle.manifest.artifacts:
        if artifact.runtime == runtime and artifact.quantisation == "fp32":
            files = bundle.files(artifact)
            if "model" not in files:
                raise FormatFailed(f"the bundle's artifact {artifact.name} has no file with the role 'model'")
            return Path(files["model"])
    raise FormatFailed(
        f"the bundle has no float32 artifact of {runtime} to start from: export it with that format{otherwise}"
    )


def run_quantiser(step: str, work: Work, source: Path, target: Path, recipe: Int8Recipe | None = None) -> Told:
    """Runs one of `steps` in a process of its own; FormatFailed with its reason."""
    answer, arguments = target.with_suffix(".answer"), [source, target]
    if recipe is not None:
        assert work.tensors is not None
        written = work.scratch / f"{step}.json"
        written.write_text(recipe.model_dump_json(exclude_unset=True), encoding="utf-8")
        arguments += [written, work.tensors]
        if step == "qdq" and work.known is not None:
            symmetric = recipe.calibration != "percentile" and recipe.activations == "int8"
            name = [recipe.calibration, f"{recipe.percentile:.12g}", "symmetric" if symmetric else "both"]
            arguments.append(work.known / f"ranges-{'-'.join(name)}.json")
    run_step(own_step(step, answer, *arguments), {**os.environ, **SILENT}, label=f"quantising ({step})")
    told = Told(**json.loads(answer.read_text(encoding="utf-8")))
    answer.unlink()
    return told


def qdq_graph(work: Work, recipe: Int8Recipe) -> tuple[Path, Told]:
    """The QDQ model of a recipe, which both runtimes read; made once."""
    if recipe not in work.graphs:
        target = work.scratch / f"qdq-{len(work.graphs)}.onnx"
        model = float_model(work.bundle, "onnxruntime", ", or choose 'scheme: nncf' by --recipe")
        told = run_quantiser("qdq", work, model, target, recipe)
        work.graphs[recipe] = (target, told)
    return work.graphs[recipe]


def make_quantised(name: str, work: Work) -> Artifact:
    """One artifact, made in `work.made`. FormatFailed with the reason."""
    entry, recipe = QUANTISED[name], work.recipes.of(name)
    place = work.made / name
    place.mkdir(parents=True)
    target = place / entry.file
    if recipe is None:
        step = name.replace("-", "_")
        told = run_quantiser(step, work, float_model(work.bundle, entry.source or entry.runtime), target)
    elif recipe.scheme in ("nncf", "ncnn"):
        told = run_quantiser(recipe.scheme, work, float_model(work.bundle, entry.runtime), target, recipe)
    else:
        graph, told = qdq_graph(work, recipe)
        if entry.runtime == "openvino":
            run_step(own_step("openvino", graph, target), label="OpenVINO's converter")
        else:
            shutil.copyfile(graph, target)
    weights = target.with_suffix(".bin")
    files = {"model": target, **({"weights": weights} if weights.is_file() else {})}
    return Artifact(
        name=name,
        runtime=entry.runtime,
        targets=EIGHT_BITS if recipe is not None and recipe.scheme == "qdq" and not recipe.reduce_range else ("any",),
        quantisation=entry.quantisation,
        recipe=Recipe(
            scheme="weights in float16" if recipe is None else recipe.text(),
            tool=told.tool,
            version=told.version,
            calibration=() if recipe is None else work.hashes,
            kept=tuple(told.kept),
        ),
        files=tuple(describe_file(work.made, path, role) for role, path in files.items()),
    )
