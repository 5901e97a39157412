"""The run: a fresh worker per row, all fed the same tensors, timed in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle import Bundle
from ..runtimes.errors import (
    BundleError,
    EdgeRecallError,
    ImageError,
    InputError,
    RuntimeFailed,
    RuntimeUnavailable,
)
from ..runtimes.model import available_in, l2_normalize, open_predictor, stream_tensors
from ..runtimes.predictor import RUNTIMES, RunOptions, predictor_class
from ..runtimes.verify import check_problem, compare, precision_problem, verify_pixels
from ..runtimes.versions import installed_versions
from ..runtimes.worker import Timing, WorkerPredictor
from .image_set import ImageSet
from .machine import describe_machine
from .parity import Gates, collapse_warning, judge
from .retrieval import RetrievalScores, retrieval_scores
from .rows import BenchResult, Row

Tensors = NDArray[np.float32]
Progress = Callable[[str, int], None]
ENCODE_BATCH = 8


@dataclass(frozen=True)
class BenchOptions:
    """samples: timed inferences per row, spread over `rounds`. timeout_s: for one answer of a worker."""

    runtimes: tuple[str, ...] = RUNTIMES
    threads: int = 1
    precision: str = "fp32"
    batch: int = 1
    samples: int = 100
    rounds: int = 5
    warmup: int = 10
    timeout_s: float = 300.0
    gates: Gates = field(default_factory=Gates)

    def __post_init__(self) -> None:
        _ = self.run_options  # checks threads and precision
        for runtime in self.runtimes:
            predictor_class(runtime)
        if len(set(self.runtimes)) < len(self.runtimes):
            raise InputError(f"runtimes: each at most once, got {', '.join(self.runtimes)}")
        for name in ("batch", "samples", "rounds", "warmup"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.rounds > self.samples:
            raise InputError(f"rounds: expected at most as many as samples ({self.samples}), got {self.rounds}")

    @property
    def run_options(self) -> RunOptions:
        """What is asked of each runtime."""
        return RunOptions(threads=self.threads, precision=self.precision)


class Contender:
    """A row and its worker. `alive` until the worker fails; then the row says why."""

    def __init__(self, runtime: str, bundle: Bundle, options: BenchOptions) -> None:
        self.row = Row(runtime=runtime, batch=options.batch)
        self.worker: WorkerPredictor | None = None
        self.embeddings: list[Tensors] = []
        self.timings: list[Timing] = []
        self.golden_cosine = 1.0
        self.attempt(lambda: self._start(bundle, options))

    def _start(self, bundle: Bundle, options: BenchOptions) -> None:
        artifact = bundle.artifact(self.row.runtime)
        self.row.artifact, self.row.size_mb = artifact.name, artifact.size_bytes / 1e6
        predictor = open_predictor(
            bundle, self.row.runtime, options.run_options, worker=True, timeout_s=options.timeout_s
        )
        if not isinstance(predictor, WorkerPredictor):
            predictor.close()
            raise RuntimeUnavailable(f"{self.row.runtime} did not start in a worker process")
        self.worker = predictor
        info = predictor.info
        self.row.version, self.row.precision, self.row.threads = info.version, info.precision, info.threads
        self.row.detail, self.row.import_ms, self.row.load_ms = info.detail, predictor.import_ms, predictor.load_ms
        if problem := precision_problem(options.precision, info):
            self.row.fail("parity", problem)

    @property
    def alive(self) -> bool:
        """Whether the worker still answers."""
        return self.worker is not None

    def attempt(self, action: Callable[[], object]) -> None:
        """Runs an action of this row; a failure ends the worker and becomes the row's reason."""
        try:
            action()
        except (RuntimeUnavailable, BundleError) as error:
            self.row.fail("missing", str(error))
            self.close()
        except EdgeRecallError as error:
            # A dead worker outranks an earlier complaint about its row.
            self.row.status, self.row.reason = "failed", str(error)
            self.close()

    def check_golden(self, tensors: Tensors, reference: Tensors) -> None:
        """The first inference (timed), then the golden images against the training framework's embeddings."""
        assert self.worker is not None
        self.row.first_ms = float(self.worker.time(tensors[:1], 1).samples_ns[0]) / 1e6
        output = np.concatenate([self.worker.embed(tensor[None]) for tensor in tensors])
        check = compare(output, reference, self.row.runtime, self.row.precision or "fp32")
        self.golden_cosine, self.row.golden_max_error = check.min_cosine, check.max_abs_error
        if problem := check_problem(check):
            self.row.fail("parity", problem)

    def encode(self, tensors: Tensors) -> None:
        """Embeds a batch of the image set."""
        assert self.worker is not None
        self.embeddings.append(self.worker.embed(tensors))

    def warm_up(self, batch: Tensors, count: int) -> None:
        """Inferences that do not count."""
        assert self.worker is not None
        self.worker.time(batch, count)

    def time(self, batch: Tensors, count: int) -> None:
        """One round of timed inferences."""
        assert self.worker is not None
        self.timings.append(self.worker.time(batch, count))

    def finish(self) -> None:
        """The columns that come from all rounds, and the peak memory."""
        assert self.worker is not None
        self.row.set_samples(np.concatenate([timing.samples_ns for timing in self.timings]))
        self.row.cores_used = float(np.mean([timing.cores_used for timing in self.timings]))
        self.row.busy_threads = max((timing.busy_threads or 0 for timing in self.timings), default=0) or None
        if self.row.threads is None:  # the runtime does not tell: what was seen
            self.row.threads = self.row.busy_threads
        self.row.peak_rss_mb = self.worker.peak_rss_mb()

    def close(self) -> None:
        """Ends the worker."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None


def timing_batch(tensors: Tensors, size: int) -> Tensors:
    """`size` real images as one batch, repeating them when there are fewer."""
    return np.ascontiguousarray(np.resize(tensors, (size, *tensors.shape[1:])))


def run_bench(bundle: Bundle, images: ImageSet, options: BenchOptions, command: str, progress: Progress) -> BenchResult:
    """Measures every runtime of `options` on a bundle. progress(what, images or rounds done)."""
    machine = describe_machine()
    problem = verify_pixels(bundle)
    _, golden, reference = bundle.golden()
    contenders: list[Contender] = []
    witness: Contender | None = None
    bad: list[str] = []
    try:
        for runtime in options.runtimes:
            contenders.append(Contender(runtime, bundle, options))
            progress(f"loading {runtime}", 1)
        _each(contenders, lambda c: c.check_golden(golden, reference))
        if options.precision != "fp32":
            witness = _fp32_witness(bundle, options, golden, reference)
        kept = _encode_all([*contenders, *([witness] if witness else [])], bundle, images, bad, progress)
        if witness and not witness.alive:
            raise RuntimeFailed(f"the fp32 runtime that rows are compared with: {witness.row.reason}")
        batch = timing_batch(golden, options.batch)
        _each(contenders, lambda c: c.warm_up(batch, options.warmup))
        for round_index, share in enumerate(np.array_split(np.arange(options.samples), options.rounds)):
            # A B C A B C: drift of the machine falls on all rows alike.
            _each(contenders, lambda c: c.time(batch, len(share)))  # noqa: B023 - used before the next round
            progress(f"timing, round {round_index + 1} of {options.rounds}", 1)
        _each(contenders, lambda c: c.finish())
    finally:
        for contender in (*contenders, *([witness] if witness else [])):
            contender.close()
    labels = None if images.labels is None else images.labels[kept]
    unpaired = labels is not None and len(np.unique(labels)) == len(labels)
    baseline, warnings = _judge_all(contenders, witness, None if unpaired else labels, options.gates)
    if unpaired:
        warnings.append("no two of the images are of one class: recall is not measured")
    return BenchResult(
        command=command,
        bundle=str(bundle.root),
        machine=machine,
        packages=installed_versions(),
        options=asdict(options),
        images=len(kept),
        labelled=labels is not None and not unpaired,
        baseline=baseline,
        rows=[contender.row for contender in contenders],
        problem=problem,
        warnings=warnings,
        bad_images=bad,
    )


def _each(contenders: Sequence[Contender], action: Callable[[Contender], object]) -> None:
    for contender in contenders:
        if contender.alive:
            contender.attempt(partial(action, contender))


def _fp32_witness(bundle: Bundle, options: BenchOptions, golden: Tensors, reference: Tensors) -> Contender:
    """A sound fp32 runtime that is no row: rows of a lower precision are judged against it, not among themselves."""
    reasons = []
    for runtime in available_in(bundle):
        witness = Contender(runtime, bundle, replace(options, precision="fp32"))
        if witness.alive:
            witness.attempt(partial(witness.check_golden, golden, reference))
        if witness.row.status == "ok":
            return witness
        witness.close()
        reasons.append(f"{runtime}: {witness.row.reason}")
    raise InputError(f"--precision {options.precision} needs a sound fp32 runtime beside it: {'; '.join(reasons)}")


def _encode_all(
    contenders: Sequence[Contender], bundle: Bundle, images: ImageSet, bad: list[str], progress: Progress
) -> NDArray[np.int64]:
    """Preprocesses each image once and embeds it in every worker; the indices of the good images."""
    kept: list[int] = []

    def on_bad(path: Path, error: ImageError) -> None:
        bad.append(str(error))

    for indices, tensors in stream_tensors(images.paths, bundle.spec.preprocess, ENCODE_BATCH, 1, on_bad):
        _each(contenders, lambda c: c.encode(tensors))  # noqa: B023 - used before the next batch
        kept.extend(indices)
        progress("embedding images", len(indices))
    if not kept:
        raise InputError(f"none of the {len(images.paths)} images could be read: {bad[0]}")
    return np.asarray(kept, dtype=np.int64)


def _judge_all(
    contenders: Sequence[Contender], witness: Contender | None, labels: NDArray[np.int64] | None, gates: Gates
) -> tuple[str | None, list[str]]:
    """Parity of every living row against the witness, or the first sound row; the baseline's name, and warnings."""
    measured = [c for c in contenders if c.row.status in ("ok", "parity") and c.embeddings]
    if not measured:
        return None, []
    # The baseline must itself match the training framework on the golden images.
    baseline = witness or next((c for c in measured if c.row.status == "ok"), measured[0])
    base, base_scores = _retrieval(baseline, labels)
    for contender in measured:
        own, scores = (base, base_scores) if contender is baseline else _retrieval(contender, labels)
        judge(contender.row, own, base, scores, base_scores, contender.golden_cosine, gates)
    warning = collapse_warning(base)
    name = f"{baseline.row.runtime} in fp32" if witness else baseline.row.runtime
    return name, [warning] if warning else []


def _retrieval(contender: Contender, labels: NDArray[np.int64] | None) -> tuple[Tensors, RetrievalScores | None]:
    """A contender's L2-normalised embeddings, and their scores where there are labels."""
    embeddings = l2_normalize(np.concatenate(contender.embeddings))
    return embeddings, None if labels is None else retrieval_scores(embeddings, labels, ks=(1, 5))
