"""Why two embeddings of one image differ: the first stage at which their ways part, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import InputError
from ...runtimes.core.files import sha256
from ...runtimes.embed.model import golden_tensors
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.embed.verify import TENSOR_TOLERANCE, cosines
from ...runtimes.predictor.interface import Predictor, RunOptions
from ...runtimes.predictor.precision import TOLERANCE
from ...runtimes.preprocess.images import read_bytes
from ...runtimes.preprocess.ops import Preprocess
from .divergence import first_divergence
from .pixel_trace import Explanation, Step, explain, first_difference, trace

Tensor = NDArray[np.float32]
SEALED, TENSOR_FILE, EMBEDDING_FILE = "sealed", "tensor=", "embedding="
EQUAL = "the same"
ALLOWED = TOLERANCE["fp32"]  # of L2-normalised embeddings, relative to the largest value
Note = Callable[..., None]


@dataclass(frozen=True)
class SideRequest:
    """One side of the question.

    what: a runtime, `runtime:precision`, `sealed` (the golden image's own tensor and embedding, from the training
    framework), `tensor=FILE.npy` (what an application fed its model) or `embedding=FILE.npy` (what it got).
    preprocess, bundle, image: instead of the bundle's own, of the bundle, of the image asked about.
    """

    what: str
    preprocess: Preprocess | None = None
    bundle: Bundle | None = None
    image: Path | None = None

    @property
    def runs(self) -> bool:
        """Whether it is a runtime."""
        return self.what != SEALED and not self.what.startswith((TENSOR_FILE, EMBEDDING_FILE))


@dataclass
class Side:
    """A side with what is known of it. steps: None where it came as a tensor or an embedding only."""

    name: str
    data: bytes
    image: Path
    preprocess: Preprocess
    steps: list[Step] | None
    tensor: Tensor | None
    embedding: Tensor | None
    predictor: Predictor | None
    precision: str | None = None


@dataclass(frozen=True)
class StageResult:
    """One line of the answer."""

    stage: str
    result: str
    differs: bool = False


@dataclass
class Answer:
    """cosine: of the two embeddings as they are. stages: in order. cause: the sentence."""

    cosine: float
    stages: list[StageResult] = field(default_factory=list)
    cause: str = ""
    differs: bool = False


def read_npy(path: Path, sizes: tuple[int, ...]) -> Tensor:
    """A float array of this many values from a `.npy` file, float32 in that shape. InputError."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected a .npy file: {error}") from error
    fits = isinstance(found, np.ndarray) and found.dtype.kind == "f"
    if not fits or tuple(s for s in found.shape if s != 1) != tuple(s for s in sizes if s != 1):
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise InputError(f"{path}: expected floats of shape {sizes}, got {got}")
    if not np.isfinite(found).all():
        raise InputError(f"{path}: holds NaN or infinity")
    return np.ascontiguousarray(found.reshape(sizes), dtype=np.float32)


def golden_index(bundle: Bundle, image: Path) -> int | None:
    """Which golden image has these bytes."""
    digest = sha256(image)
    hashes = {file.path: file.sha256 for file in bundle.manifest.golden}
    return next((i for i, name in enumerate(bundle.manifest.golden_images) if hashes[name] == digest), None)


def open_side(request: SideRequest, bundle: Bundle, image: Path, stack: ExitStack) -> Side:
    """Loads what a side needs; runtimes in workers of their own."""
    own, path = request.bundle or bundle, request.image or image
    spec = own.spec
    if (spec.input_shape, spec.embedding_dim) != (bundle.spec.input_shape, bundle.spec.embedding_dim):
        raise InputError(
            f"{own.root}: takes {spec.input_shape} and gives {spec.embedding_dim} numbers, {bundle.root} takes"
            f" {bundle.spec.input_shape} and gives {bundle.spec.embedding_dim}: these cannot be compared"
        )
    preprocess = request.preprocess or spec.preprocess
    side = Side(request.what, read_bytes(path), path, preprocess, None, None, None, None)
    if request.what.startswith(TENSOR_FILE):
        side.tensor = read_npy(Path(request.what[len(TENSOR_FILE) :]), spec.input_shape)
    elif request.what.startswith(EMBEDDING_FILE):
        side.embedding = read_npy(Path(request.what[len(EMBEDDING_FILE) :]), (1, spec.embedding_dim))
    elif request.what == SEALED:
        index = golden_index(own, path)
        if index is None:
            raise InputError(f"sealed: {path} is not one of the bundle's golden images, whose outputs are sealed in it")
        _, tensors, embeddings = own.golden()
        side.tensor, side.embedding = tensors[index], embeddings[index : index + 1]
        side.precision = "fp32"
    else:
        side.steps = trace(side.data, preprocess, str(path))
        side.tensor = np.asarray(side.steps[-1].values, dtype=np.float32)
        runtime, _, precision = request.what.partition(":")
        options = RunOptions(precision=precision or "fp32")
        side.predictor = stack.enter_context(open_predictor(own, runtime, options, worker=True))
        side.embedding = side.predictor.embed(side.tensor[None])
        executed = side.predictor.execution_record(side.tensor[None])
        side.precision = executed.precision if executed else side.predictor.info.precision
    return side


def explain_side(side: Side, other: Side) -> Explanation | None:
    """The preprocessing behind a side that came as a tensor or embedding, where there is a way to find out."""
    if side.steps is not None:
        return None
    known = side.tensor
    if known is not None:
        return explain(side.data, side.preprocess, side.name, lambda tensor: float(np.abs(tensor - known).max()))
    runner, wanted = other.predictor, side.embedding
    if runner is None or wanted is None:
        return None
    if max_error(runner.embed(as_tensor(other)[None]), wanted) <= ALLOWED:
        return None
    return explain(side.data, side.preprocess, side.name, lambda t: max_error(runner.embed(t[None]), wanted))


def as_tensor(side: Side) -> Tensor:
    """The side's tensor; InputError when it has none."""
    if side.tensor is None:
        raise InputError(f"{side.name}: has no tensor: compare an embedding with a runtime")
    return side.tensor


def max_error(a: Tensor, b: Tensor) -> float:
    """Largest difference of two embeddings, L2-normalised or not alike, over the largest value."""
    x, y = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b))
    return float(np.abs(x - y).max() / max(float(np.abs(y).max()), 1e-12))


def why(bundle: Bundle, image: Path | None, a: SideRequest, b: SideRequest) -> Answer:
    """Follows both sides from the bytes to the embedding. image: the first golden one when None.

    Before the sides themselves, the bundle: where its preprocessing no longer gives its sealed tensors, that is the
    cause.
    """
    broken = worst_golden(bundle)
    plain = all(side.preprocess is None and side.image is None and side.runs for side in (a, b))
    if broken is not None and plain:
        answer = why(bundle, broken, SideRequest(SEALED), b)
        answer.stages.insert(0, StageResult("bundle", "its preprocessing does not give its sealed tensors", True))
        answer.cause = f"the bundle: {answer.cause}"
        return answer
    if not (a.runs or b.runs):
        raise InputError(f"{a.what} against {b.what}: expected a runtime on one side, say --a onnxruntime")
    with ExitStack() as stack:
        path = image or bundle.golden()[0][0]
        left, right = open_side(a, bundle, path, stack), open_side(b, bundle, path, stack)
        return compare(left, right, bundle)


def worst_golden(bundle: Bundle) -> Path | None:
    """The golden image whose tensor changed most since it was sealed; None when none did."""
    paths, sealed, _ = bundle.golden()
    errors = np.abs(golden_tensors(bundle) - sealed).max(axis=(1, 2, 3))
    return paths[int(errors.argmax())] if errors.max() > TENSOR_TOLERANCE else None


def compare(a: Side, b: Side, bundle: Bundle) -> Answer:
    """Stage by stage."""
    emb_a, emb_b = embedding_of(a, b), embedding_of(b, a)
    answer = Answer(float(cosines(emb_a, emb_b)[0]))
    causes: list[str] = []

    def note(stage: str, result: str, cause: str | None = None) -> None:
        answer.stages.append(StageResult(stage, result, cause is not None))
        if cause is not None:
            causes.append(cause)

    if a.data != b.data:
        note("bytes", f"{len(a.data)} and {len(b.data)} bytes", f"the files differ ({a.image} against {b.image})")
    else:
        note("bytes", EQUAL)
    compare_pixels(a, b, note)
    left = compare_graphs(a, b, bundle, note)
    note_end(max_error(emb_b, emb_a), answer, causes, left)
    return answer


def embedding_of(side: Side, other: Side) -> Tensor:
    """What the side gave; a tensor alone is run by the other side."""
    if side.embedding is not None:
        return side.embedding
    if other.predictor is None:
        raise InputError(f"{side.name}: a tensor is compared with a runtime, which then embeds it too")
    return other.predictor.embed(as_tensor(side)[None])


def compare_pixels(a: Side, b: Side, note: Note) -> None:
    """Decode to normalise."""
    sides = []
    for side, other in ((a, b), (b, a)):
        steps = side.steps
        if steps is None:
            found = explain_side(side, other)
            limit = TENSOR_TOLERANCE if side.tensor is not None else ALLOWED
            chosen = found.preprocess if found else side.preprocess
            if found and found.error > limit:
                what = f"{side.name} is what no preprocessing tried gives; the nearest is {found.error:.2g} off"
                note("pixels", f"not known: {what}", f"pixels, precision or graph differ ({what})")
                return
            steps = trace(side.data, chosen, str(side.image))
        sides.append(steps)
    left, right = sides
    shown = first_difference(left, right)
    if shown is None:
        note("pixels", f"{EQUAL}: " + ", ".join(step.name for step in left))
        return
    for step in left:
        if step.name == shown.stage:
            break
        note(step.name, EQUAL)
    note(shown.stage, shown.what, f"{shown.stage} differs ({shown.what})")


def on_equal_pixels(a: Side, b: Side) -> tuple[Tensor, Tensor, Tensor] | None:
    """A tensor that both sides have an embedding of, and the two; None when there is none."""

    def given(side: Side, tensor: Tensor) -> Tensor | None:
        if side.predictor is not None:
            return side.predictor.embed(tensor[None])
        return side.embedding if side.tensor is tensor else None

    for tensor in (a.tensor, b.tensor):
        if tensor is not None:
            first, second = given(a, tensor), given(b, tensor)
            if first is not None and second is not None:
                return tensor, first, second
    return None


def compare_graphs(a: Side, b: Side, bundle: Bundle, note: Note) -> float | None:
    """Precision, then the graph on one and the same tensor; the cosine that is left there."""
    other_precision = bool(a.precision and b.precision and a.precision != b.precision)
    if other_precision:
        runs = f"{a.name} runs {a.precision}, {b.name} runs {b.precision}"
        note("precision", runs, f"precision differs ({runs})")
    elif a.precision and b.precision:
        note("precision", f"{EQUAL}: {a.precision}")
    equal = on_equal_pixels(a, b)
    if equal is None:
        return None
    tensor, first, second = equal
    error, cosine = max_error(second, first), float(cosines(first, second)[0])
    what = f"on equal pixels cosine {cosine:.7f}, {error:.1e} off"
    if error <= ALLOWED:
        note("graph", f"{EQUAL} {what}")
    elif other_precision:  # which is why
        note("graph", what)
    else:
        inside = look_inside(a, b, tensor) + culprit(a, b, bundle)
        note("graph", f"{what}; {inside}", f"graph differs ({inside})")
    return cosine


def culprit(a: Side, b: Side, bundle: Bundle) -> str:
    """Which side's graph does not give the sealed embedding of a golden tensor."""
    _, tensors, embeddings = bundle.golden()
    wrong = [
        side.name
        for side in (a, b)
        if side.predictor and max_error(side.predictor.embed(tensors[:1]), embeddings[:1]) > ALLOWED
    ]
    return f"; {' and '.join(wrong)} left the training framework's own output" if wrong else ""


def look_inside(a: Side, b: Side, tensor: Tensor) -> str:
    """The first inner tensor that differs, in words."""
    shown: list[Any] = []
    for side in (a, b):
        inner = side.predictor.inner_tensors(tensor[None]) if side.predictor else None
        if inner is None:
            return f"{side.name} shows no inner tensors"
        shown.append(inner)
    found = first_divergence(*shown)
    if found is None:
        return "no inner tensor differs"
    other = f", '{found.other_name}' in {b.name}" if found.other_name else ""
    off = f"{found.error:.1e} off" if np.isfinite(found.error) else "which has no counterpart"
    return (
        f"first at '{found.name}' ({found.kind}) in {a.name}{other}, {off},"
        f" after {found.index} of {found.matched} tensors that agree"
    )


def note_end(error: float, answer: Answer, causes: list[str], left: float | None) -> None:
    """The embedding, and the sentence. left: the cosine on equal pixels."""
    differs = error > ALLOWED
    answer.differs = differs or bool(causes)
    found = f"cosine {answer.cosine:.7f}, {error:.1e} off" if differs else EQUAL
    answer.stages.append(StageResult("embedding", found, differs))
    if causes:
        after = "" if left is None or left == answer.cosine else f", {left:.6f} after equal pixels"
        answer.cause = f"{'; and '.join(causes)}: cosine {answer.cosine:.6f} here{after}"
    elif differs:
        answer.cause = f"the embeddings differ (cosine {answer.cosine:.6f}) at no stage that can be seen"
    else:
        answer.cause = f"no difference: cosine {answer.cosine:.7f}"
