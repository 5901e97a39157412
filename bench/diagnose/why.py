"""Why two embeddings of one image differ: the first stage at which their ways part, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import InputError
from ...runtimes.embed.model import golden_tensors
from ...runtimes.embed.verify import TENSOR_TOLERANCE, cosines
from ...runtimes.predictor.interface import Predictor
from ...runtimes.preprocess.comparison import difference
from ...runtimes.preprocess.ops import Preprocess
from ..measure.image_set import ImageSet
from .graphs import look_inside, unseen_fault, wrong_graph
from .input_faults import Workshop, find_cause, input_faults
from .int8_loss import int8_words
from .pixel_trace import explain, first_difference, trace
from .sides import ALLOWED, SEALED, Side, SideRequest, Tensor, embed, load_side, max_error

EQUAL = "the same"
PAIRED = 12  # faults of the input, the nearest, that are tried in pairs
Note = Callable[..., None]


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


@dataclass(frozen=True)
class Unsaid:
    """What lies behind a side that came as a tensor or embedding. preprocess: the nearest; cause: a fault besides it,
    or None. error: how far what they give is off; explained: whether that is near enough.
    """

    preprocess: Preprocess
    cause: str | None
    error: float
    explained: bool


def explain_side(side: Side, other: Side) -> Unsaid | None:
    """How the image became a side's tensor or embedding, where there is a way to find out."""
    if side.steps is not None:
        return None
    known, wanted, runner = side.tensor, side.embedding, other.predictor

    def error_of(tensor: Tensor) -> float:
        if known is not None:
            return float(np.abs(tensor - known).max())
        assert runner is not None and wanted is not None
        return max_error(embed(runner, tensor), wanted, side.is_file)

    enough = ALLOWED if known is None else TENSOR_TOLERANCE
    if known is None and (runner is None or wanted is None or error_of(other.known_tensor()) <= enough):
        return None
    found = explain(side.data, side.preprocess, side.name, error_of)
    if found.error <= enough:
        return Unsaid(found.preprocess, None, found.error, True)
    workshop = Workshop(side.data, side.preprocess, side.name)
    # No pairs for an embedding: each try is an inference.
    faults = list(input_faults(side.preprocess))
    cause = find_cause(workshop, faults, error_of, enough, PAIRED if known is not None else 0)
    if cause is None or found.error <= cause.error:
        return Unsaid(found.preprocess, None, found.error, False)
    return Unsaid(side.preprocess, cause.name, cause.error, cause.error <= enough)


def why(bundle: Bundle, image: Path | None, a: SideRequest, b: SideRequest, images: ImageSet | None = None) -> Answer:
    """Follows both sides from the bytes to the embedding. image: when None the golden one where the two runtimes, or
    the runtime and what is sealed, differ most. images: labelled ones, on which recall is told of an int8 side with its
    worst layers in float.

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
        runners = (a.open(bundle, stack), b.open(bundle, stack))
        path = image or most_different(bundle, (a, b), runners)
        left, right = (load_side(side, bundle, path, runner) for side, runner in zip((a, b), runners, strict=True))
        return compare(left, right, images)


def most_different(
    bundle: Bundle, sides: tuple[SideRequest, SideRequest], runners: tuple[Predictor | None, Predictor | None]
) -> Path:
    """The golden image of whose tensor the sides' embeddings differ most; the first where a side is a file."""
    paths, tensors, sealed = bundle.golden()
    if not all(side.runs or side.what == SEALED for side in sides):
        return paths[0]
    given = [sealed if runner is None else embed(runner, *tensors) for runner in runners]
    return paths[int(np.abs(given[0] - given[1]).max(axis=1).argmax())]  # NaN is the most


def worst_golden(bundle: Bundle) -> Path | None:
    """The golden image whose tensor changed most since it was sealed; None when none did."""
    paths, sealed, _ = bundle.golden()
    errors = np.abs(golden_tensors(bundle) - sealed).max(axis=(1, 2, 3))
    return paths[int(errors.argmax())] if errors.max() > TENSOR_TOLERANCE else None


def compare(a: Side, b: Side, images: ImageSet | None = None) -> Answer:
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
    left, unseen = compare_graphs(a, b, note, not causes, images)
    note_end(max_error(emb_b, emb_a, a.is_file or b.is_file), answer, causes, left)
    if unseen and not answer.differs:
        answer.cause = f"no difference beyond the tolerance: cosine {answer.cosine:.7f}, although {unseen}"
    return answer


def embedding_of(side: Side, other: Side) -> Tensor:
    """What the side gave; a tensor alone is run by the other side."""
    if side.embedding is not None:
        return side.embedding
    if other.predictor is None:
        raise InputError(f"{side.name}: a tensor is compared with a runtime, which then embeds it too")
    return embed(other.predictor, side.known_tensor())


def compare_pixels(a: Side, b: Side, note: Note) -> None:
    """Decode to normalise."""
    sides = []
    for side, other in ((a, b), (b, a)):
        steps = side.steps
        if steps is None:
            found = explain_side(side, other)
            if found is not None and (found.cause or not found.explained):
                note("input", *unsaid_words(side, found))
                return
            chosen = found.preprocess if found else side.preprocess
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


def unsaid_words(side: Side, found: Unsaid) -> tuple[str, str]:
    """The line and the cause for an input that no preprocessing of ours explains alone."""
    if found.explained:
        return str(found.cause), f"input differs ({side.name}: {found.cause})"
    if found.cause:
        nearest = found.cause
    else:
        changes = zip(side.preprocess.ops, found.preprocess.ops, strict=True)
        nearest = "; ".join(difference(a, b) for a, b in changes if a != b) or "the preprocessing as it is"
    what = f"from no cause known here; nearest: {nearest}, off by {found.error:.2g}"
    if side.tensor is None:
        return f"not known: {what}", f"{side.name} differs in pixels, precision or graph, {what}"
    return f"not known: {what}", f"input tensor differs, {what}"


def on_equal_pixels(a: Side, b: Side) -> tuple[Tensor, Tensor, Tensor] | None:
    """A tensor that both sides have an embedding of, and the two; None when there is none."""

    def given(side: Side, tensor: Tensor) -> Tensor | None:
        if side.predictor is not None:
            return embed(side.predictor, tensor)
        return side.embedding if side.tensor is tensor else None

    for tensor in (a.tensor, b.tensor):
        if tensor is not None:
            first, second = given(a, tensor), given(b, tensor)
            if first is not None and second is not None:
                return tensor, first, second
    return None


def compare_graphs(
    a: Side, b: Side, note: Note, search: bool, images: ImageSet | None = None
) -> tuple[float | None, str | None]:
    """Precision, then the graph on one and the same tensor; the cosine that is left there, and an operator at fault
    that the embedding does not show, for which it looks where `search` says so.
    """
    other_precision = bool(a.precision and b.precision and a.precision != b.precision)
    if other_precision:
        runs = f"{a.name} runs {a.precision}, {b.name} runs {b.precision}"
        note("precision", runs, f"precision differs ({runs})")
    elif a.precision and b.precision:
        note("precision", f"{EQUAL}: {a.precision}")
    equal = on_equal_pixels(a, b)
    if equal is None:
        return None, None
    tensor, first, second = equal
    error, cosine = max_error(second, first, a.is_file or b.is_file), float(cosines(first, second)[0])
    what = f"on equal pixels {off_words(cosine, error)}"
    unseen = None
    if error <= ALLOWED:
        unseen = unseen_fault(a, b, tensor) if search and not other_precision else None
        note("graph", f"{EQUAL} {what}" + (f", although {unseen}" if unseen else ""))
    elif a.is_int8 or b.is_int8:
        note("graph", what)
        for side, other in ((a, b), (b, a)):
            if not side.is_int8 and (found := wrong_graph(side, other, tensor)):
                note("graph", found, f"graph differs ({found})")
        for side, own in ((b, second), (a, first)):
            if side.is_int8 and side.artifact is not None:
                found = int8_words(side.bundle, side.artifact, tensor, own, images)
                note("int8", found, f"int8 differs ({side.name}: {found})")
    elif other_precision:  # which is why
        note("graph", what)
    else:
        inside = look_inside(a, b, tensor)
        note("graph", f"{what}; {inside}", f"graph differs ({inside})")
    return cosine, unseen


def off_words(cosine: float, error: float) -> str:
    """How far two embeddings are apart."""
    return f"cosine {cosine:.7f}, {error:.1e} off" if np.isfinite(error) else "one side gives NaN or infinity"


def note_end(error: float, answer: Answer, causes: list[str], left: float | None) -> None:
    """The embedding, and the sentence. left: the cosine on equal pixels."""
    differs = not error <= ALLOWED  # NaN too
    answer.differs = differs or bool(causes)
    found = off_words(answer.cosine, error) if differs else EQUAL
    answer.stages.append(StageResult("embedding", found, differs))
    if causes:
        if np.isfinite(error):
            after = "" if left is None or left == answer.cosine else f", {left:.6f} after equal pixels"
            seen = f"cosine {answer.cosine:.6f} here{after}"
        else:
            seen = "NaN or infinity here"
        answer.cause = f"{'; and '.join(causes)}: {seen}"
    elif differs:
        answer.cause = f"the embeddings differ (cosine {answer.cosine:.6f}) at no stage that can be seen"
    else:
        answer.cause = f"no difference: cosine {answer.cosine:.7f}"
