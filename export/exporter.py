"""Builds a bundle: makes every format, checks each on the golden images, then renames the whole into place."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle.bundle import Bundle, write_vectors
from ..runtimes.bundle.manifest import (
    EMBEDDINGS,
    FORMAT_VERSION,
    GOLDEN,
    MANIFEST,
    TENSORS,
    Artifact,
    Check,
    Manifest,
    Quantisation,
    Skipped,
    describe_file,
    host_target,
    machine_names,
)
from ..runtimes.bundle.spec import Spec
from ..runtimes.core.errors import (
    EdgeRecallError,
    ImageError,
    InputError,
    ParityError,
    RuntimeUnavailable,
    UnsoundModel,
)
from ..runtimes.core.files import atomic_folder
from ..runtimes.core.soundness import embedding_problem, require_finite
from ..runtimes.embed.replicas import open_predictor
from ..runtimes.embed.verify import check_problem, compare
from ..runtimes.predictor.interface import RunOptions
from ..runtimes.predictor.precision import precision_problem
from ..runtimes.predictor.registry import backend, tool_versions
from ..runtimes.preprocess.ops import Preprocess
from ..runtimes.preprocess.pipeline import preprocess_file
from .context import Context, DiskFull


@dataclass(frozen=True)
class Format:
    """maker: `module:function` of `formats`. targets: machines that run the artifact. opt_in: not one of "all".
    forms: of the source that it can be made from.
    """

    runtime: str
    targets: tuple[str, ...]
    maker: str
    opt_in: bool = False
    forms: tuple[str, ...] = ("paddle",)


ANY = ("paddle", "onnx")
# Order matters: a runtime takes the first artifact that fits, and openvino, mnn, ncnn and tnn may build on onnx.
FORMATS = {
    "paddle": Format("paddle", ("any",), "paddle_format:pir"),
    "paddle-pdmodel": Format("paddle", ("any",), "paddle_format:pdmodel"),
    "onnx": Format("onnxruntime", ("any",), "onnx_format:onnx", forms=ANY),
    "openvino": Format("openvino", ("any",), "openvino_format:openvino", forms=ANY),
    "lite-x86": Format("lite", ("x86_64",), "lite_format:x86"),
    "lite-armv8": Format("lite", ("aarch64",), "lite_format:armv8"),
    "lite-armv7": Format("lite", ("armv7l",), "lite_format:armv7"),
    "mnn": Format("mnn", ("any",), "mnn_format:mnn", forms=ANY),
    "litert": Format("litert", ("any",), "litert_format:litert", forms=(*ANY, "litert")),
    "ncnn": Format("ncnn", ("any",), "ncnn_format:ncnn", opt_in=True, forms=(*ANY, "ncnn")),
    "tnn": Format("tnn", ("any",), "tnn_format:tnn", opt_in=True, forms=ANY),
}


def all_formats(form: str) -> tuple[str, ...]:
    """What "all" means for a source of this form; of a runtime's own form its runtime."""
    return tuple(
        name for name, entry in FORMATS.items() if form in entry.forms and (not entry.opt_in or entry.runtime == form)
    )


class Report(Protocol):
    """Told of every format: problem is None when it is in; unchecked: why it could not be run here."""

    def __call__(self, name: str, problem: str | None, unchecked: str | None = None) -> None: ...


@dataclass(frozen=True)
class Source:
    """A model to export. models: forms at hand (see `Context`). reasons: why another form is missing.

    reference: float32 `(N, 3, H, W)` -> `(N, D)`, what every artifact is checked against.
    about: where it came from, for the manifest. quantisation: of its weights, where they are sealed as they come.
    """

    preprocess: Preprocess
    normalize_embedding: bool
    models: dict[str, tuple[Path, ...]]
    reasons: dict[str, str]
    reference: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    about: dict[str, Any]
    input_name: str
    quantisation: Quantisation = "fp32"


def make_golden(
    folder: Path, images: Sequence[Path], source: Source, count: int, on_bad: Callable[[ImageError], None]
) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Copies the first `count` good images and writes their tensors and reference embeddings.

    Returns names relative to the bundle, tensors and embeddings. InputError when no image is good.
    """
    (folder / GOLDEN).mkdir()
    names: list[str] = []
    tensors: list[NDArray[np.float32]] = []
    for path in images:
        if len(names) == count:
            break
        try:
            tensors.append(preprocess_file(path, source.preprocess))
        except ImageError as error:
            on_bad(error)
            continue
        names.append(f"{GOLDEN}/{len(names):02d}{path.suffix.lower()}")
        shutil.copyfile(path, folder / names[-1])
    if not names:
        raise InputError("golden images: none of the given images could be read")
    stacked = np.stack(tensors)
    embeddings = source.reference(stacked)
    if problem := embedding_problem(embeddings, stacked):
        raise UnsoundModel(f"the model's own output on the golden images: {problem}; is it trained?")
    write_vectors(folder, stacked, embeddings)
    return names, stacked, embeddings


def make_artifact(name: str, context: Context, quantisation: Quantisation = "fp32") -> Artifact:
    """Makes one format's files, of weights so quantised. FormatFailed with the reason."""
    entry = FORMATS[name]
    module, _, function = entry.maker.partition(":")
    maker = getattr(importlib.import_module(f".formats.{module}", __package__), function)
    files = maker(context)
    described = tuple(describe_file(context.folder, path, role) for role, path in files.items())
    return Artifact(name=name, runtime=entry.runtime, targets=entry.targets, files=described, quantisation=quantisation)


def check_artifact(
    bundle: Bundle, artifact: Artifact, tensors: NDArray[np.float32], expected: NDArray[np.float32]
) -> Check:
    """Runs the artifact in a worker on the golden tensors. ParityError when it differs from the reference."""
    options = RunOptions()
    with open_predictor(bundle, artifact.runtime, options, worker=True, artifact=artifact.name) as predictor:
        try:  # a NaN may hide behind a ReLU; the source's own weights were finite
            require_finite(predictor.parameters() or {}, artifact.name)
        except UnsoundModel as error:
            raise ParityError(str(error)) from error
        output = np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
        whole = predictor.embed(tensors)
        precision = predictor.executed_info(tensors[:1]).precision
        wrong = precision_problem(artifact.quantisation, options.precision, precision)
        ran = (precision, artifact.quantisation)
    check = compare(output, expected, artifact.runtime, *ran)
    batched = compare(whole, expected, artifact.runtime, *ran)
    problem = wrong or check_problem(check)
    if problem is None and (in_batch := check_problem(batched)):
        problem = f"in a batch of {len(tensors)}, {in_batch}"
    if problem:
        raise ParityError(problem)
    return check


def export_bundle(
    target: Path,
    source: Source,
    images: Sequence[Path],
    formats: Sequence[str],
    command: str,
    report: Report,
    golden_count: int = 8,
    replace: bool = False,
) -> Bundle:
    """Writes a bundle to `target` and returns it opened.

    formats: names of `FORMATS`. report: called after each format.
    A format that cannot be made or does not match is listed in `skipped`; InputError when none is left.
    """
    with (
        atomic_folder(target, MANIFEST if replace else None) as folder,
        tempfile.TemporaryDirectory(prefix="edgerecall-") as scratch,
    ):
        bad = lambda error: report("golden image", str(error))  # noqa: E731
        names, tensors, embeddings = make_golden(folder, images, source, golden_count, bad)
        spec = Spec(
            input_name=source.input_name,
            input_shape=source.preprocess.output_shape,
            embedding_dim=embeddings.shape[1],
            normalize_embedding=source.normalize_embedding,
            preprocess=source.preprocess,
        )
        golden = tuple(describe_file(folder, folder / name, "golden") for name in (*names, TENSORS, EMBEDDINGS))
        context = Context(folder, Path(scratch), source.models, spec.input_shape, source.reasons)
        artifacts: list[Artifact] = []
        skipped: list[Skipped] = []

        def manifest(kept: Sequence[Artifact]) -> Manifest:
            return Manifest(
                format_version=FORMAT_VERSION,  # type: ignore[arg-type]
                spec=spec,
                source={**source.about, **context.notes},
                tools=tool_versions(),
                command=command,
                artifacts=tuple(kept),
                skipped=tuple(skipped),
                golden=golden,
                golden_images=tuple(names),
            )

        for name in formats:
            placed_before = len(context.placed)
            try:
                made = make_artifact(name, context, source.quantisation)
                artifacts.append(checked(made, Bundle(folder, manifest([made])), tensors, embeddings))
                report(name, None, artifacts[-1].unchecked)
            except (DiskFull, UnsoundModel):
                raise
            except EdgeRecallError as error:
                for place in context.placed[placed_before:]:
                    shutil.rmtree(place, ignore_errors=True)
                skipped.append(Skipped(name=name, runtime=FORMATS[name].runtime, reason=str(error)))
                report(name, str(error))
        if not artifacts:
            raise InputError(f"no format could be made: {skipped[0].name}: {skipped[0].reason}")
        Bundle(folder, manifest(artifacts)).save()
    return Bundle.open(target)


def checked(
    artifact: Artifact, bundle: Bundle, tensors: NDArray[np.float32], expected: NDArray[np.float32]
) -> Artifact:
    """The artifact with its check, or with the reason why it cannot be checked on this machine."""
    if not artifact.runs_on(*machine_names(host_target())):
        reason = f"it runs on {', '.join(artifact.targets)}, this machine is {host_target()}"
        return artifact.model_copy(update={"unchecked": reason})
    try:
        return artifact.model_copy(update={"check": check_artifact(bundle, artifact, tensors, expected)})
    except RuntimeUnavailable as error:
        library = backend(artifact.runtime).library
        if library is None or library.origin != "given":
            raise
        return artifact.model_copy(update={"unchecked": str(error)})  # the program on the device may have it
