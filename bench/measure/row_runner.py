"""Runs one benchmark row: owns its worker process and fills the row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes._native import Gallery
from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.spec import Spec
from ...runtimes.core.contract import CONTRACT
from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import BundleError, EdgeRecallError, RuntimeFailed, RuntimeUnavailable, UnsoundModel
from ...runtimes.core.soundness import require_finite
from ...runtimes.embed.model import l2_normalize
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.embed.verify import check_problem, compare, cosines
from ...runtimes.predictor.interface import NOT_FINITE, RunOptions
from ...runtimes.predictor.precision import precision_problem
from ...runtimes.worker.client import Timing, WorkerPredictor
from ..schema.options import BenchOptions
from ..schema.rows import Row
from ..schema.statistics import is_steady, noise
from .machine import cpu_quota, energy_uj, joules_between, pinned_to, shown_cpus
from .stages import Stages, time_stages

Tensors = NDArray[np.float32]
WINDOW: int = CONTRACT["warm_up"]["window"]
MAX_WINDOWS: int = CONTRACT["warm_up"]["most_windows"]
WARM_UP_S: float = CONTRACT["warm_up"]["seconds"]
DISCARDED: int = CONTRACT["discarded"]


class RowRunner:
    """A row, filled step by step. `alive` until the worker fails; then the row says why."""

    def __init__(self, row: Row, bundle: Bundle, options: BenchOptions) -> None:
        self.row, self.options = row, options
        self.worker: WorkerPredictor | None = None
        self.embeddings: list[Tensors] = []
        self.rounds: list[NDArray[np.int64]] = []
        self.timings: list[Timing] = []
        self.stages = Stages()
        self.joules: float | None = 0.0
        cpus = options.cpus or usable_cpus()
        self.cpus = pinned_to(row.requested_threads, cpus) if options.pin or options.cpus else ()
        self.attempt(lambda: self._start(bundle, cpus))

    def _start(self, bundle: Bundle, cpus: tuple[int, ...]) -> None:
        row = self.row
        artifact = bundle.artifact(row.runtime, quantisation=row.quantisation)
        row.artifact, row.size_mb = artifact.name, artifact.size_bytes / 1e6
        row.recipe = None if artifact.recipe is None else artifact.recipe.scheme
        row.model_sha256 = next((file.sha256 for file in artifact.files if file.role == "model"), None)
        requested = RunOptions(threads=row.requested_threads, precision=row.requested_precision, batch=row.batch)
        predictor = open_predictor(
            bundle, row.runtime, requested, True, artifact.name, timeout_s=self.options.timeout_s, cpus=self.cpus
        )
        assert isinstance(predictor, WorkerPredictor)
        self.worker = predictor
        info = predictor.info
        row.version, row.precision, row.threads, row.detail = info.version, info.precision, info.threads, info.detail
        row.import_ms, row.load_ms = predictor.import_ms, predictor.load_ms
        usable = min(len(cpus), cpu_quota() or len(cpus))
        if row.requested_threads > usable:
            row.warnings.append(f"oversubscribed: {row.requested_threads} threads on {usable:g} usable cores")

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
            if self.worker is not None and self.row.reason.endswith(NOT_FINITE):
                with contextlib.suppress(EdgeRecallError):  # the reason stands without
                    problem = self._unsound_weights(self.worker)
                    self.row.reason += f": {problem}" if problem else ""
            self.close()

    def _unsound_weights(self, worker: WorkerPredictor) -> str | None:
        """The first weight that is NaN or infinite, in words; None where all are finite or not shown."""
        try:
            require_finite(worker.parameters() or {}, self.row.artifact or self.row.runtime)
        except UnsoundModel as error:
            return str(error)
        return None

    def first_inference(self, batch: Tensors) -> None:
        """The first one, timed, and what it gives."""
        assert self.worker is not None
        timing = self.worker.time(batch, 1)
        self.row.first_ms, self.early = float(timing.samples_ns[0]) / 1e6, timing.output

    def check_golden(self, tensors: Tensors, reference: Tensors) -> None:
        """The golden images against the sealed embeddings, one by one and all at once.

        After the timing: other batch sizes than the row's own would count in its memory.
        """
        assert self.worker is not None
        if problem := self._unsound_weights(self.worker):  # which the embeddings need not show: a ReLU may hide it
            self.row.fail("parity", problem)
        self.golden = self.worker.embed_each(tensors, 1)
        check = compare(self.golden, reference, self.row.runtime, self.row.precision or "fp32", self.row.quantisation)
        self.row.golden_cosine_min, self.row.golden_max_error = check.min_cosine, check.max_abs_error
        if problem := check_problem(check):
            self.row.fail("parity", problem)
        self.row.batch_max_error = float(np.abs(self.worker.embed(tensors) - self.golden).max())

    def encode(self, tensors: Tensors) -> None:
        """Embeds some of the image set, in the row's batches."""
        assert self.worker is not None
        self.embeddings.append(self.worker.embed_each(tensors, self.row.batch))

    @property
    def embedded(self) -> Tensors:
        """The image set's embeddings so far, L2-normalised float32 `(n, D)`."""
        return l2_normalize(np.concatenate(self.embeddings))

    def stop_if(self, problem: str | None) -> None:
        """Fails the row by the images embedded so far, where they tell a problem; it embeds no more then."""
        if problem is not None:
            self.row.stopped_after = sum(map(len, self.embeddings))
            self.row.fail("parity", problem)

    def reorder(self, order: NDArray[np.int64]) -> None:
        """Puts embeddings made in this order of the images, `(n,)`, in that of the image set."""
        whole = np.concatenate(self.embeddings)
        whole[order] = whole.copy()
        self.embeddings = [whole]

    def embed_random(self, tensors: Tensors) -> None:
        """Random input, beside the real images."""
        assert self.worker is not None
        self.random = self.worker.embed(tensors)

    def warm_up(self, batch: Tensors) -> None:
        """Inferences that do not count, until their latency stands still."""
        assert self.worker is not None
        medians: list[float] = []
        used, runs = 0.0, 0
        while not is_steady(medians) and len(medians) < MAX_WINDOWS and used < WARM_UP_S:
            timing = self.worker.time(batch, WINDOW, limit_s=WARM_UP_S / 3)
            medians.append(float(np.median(timing.samples_ns)))
            used += timing.wall_ns / 1e9
            runs += len(timing.samples_ns)
        if len(medians) >= 3 and not is_steady(medians):
            self.row.warnings.append(f"never steady: latency still moved after {runs} warm-up inferences")
        self.row.warmup_runs = runs
        self.worker.wait_idle()

    def time_model(self, batch: Tensors, count: int) -> None:
        """One round of timed inferences, after a few that fill the caches again."""
        assert self.worker is not None
        before = energy_uj()
        timing = self.worker.time(batch, count, DISCARDED, self.options.seconds / self.options.rounds)
        self._add_energy(joules_between(before, energy_uj()))
        self.worker.wait_idle()
        self.timings.append(timing)
        self.rounds.append(timing.samples_ns)

    def read_memory(self, batch: Tensors) -> None:
        """The peak so far, and the GPU's side of an inference. No failure to tell of a GPU fails what was measured."""
        assert self.worker is not None
        row, gpu = self.row, None
        row.peak_rss_mb = self.worker.peak_rss_mb()
        try:
            gpu = self.worker.accelerator(batch)
        except EdgeRecallError as error:
            row.warnings.append(f"the GPU is not told: {error}")
        if gpu is not None:
            row.gpu, row.gpu_driver, row.gpu_memory_mb = gpu.name, gpu.driver, gpu.memory_mb
            row.gpu_clock_mhz, row.gpu_compute_ms = gpu.clock_mhz, gpu.compute_ms

    def time_stages(self, paths: list[Path], spec: Spec, gallery: Gallery, count: int, as_round: bool) -> None:
        """`count` batches of images through every stage. as_round: whether their sums are the row's samples."""
        assert self.worker is not None
        limit_s = self.options.seconds / self.options.rounds
        first = len(self.stages.timings) * self.row.batch % len(paths)
        paths = paths[first:] + paths[:first]
        stages = time_stages(self.worker, spec, paths, self.row.batch, count, gallery, self.cpus, limit_s)
        self.stages.extend(stages)
        self.worker.wait_idle()
        if as_round:
            self.rounds.append(stages.sums())
            self.timings += stages.timings

    def _add_energy(self, joules: float | None) -> None:
        self.joules = None if joules is None or self.joules is None else self.joules + joules

    def finish(self, batch: Tensors) -> None:
        """The columns that come from all rounds, peak memory, and what really ran."""
        assert self.worker is not None
        row = self.row
        row.set_rounds(self.rounds)
        row.stages_ms = self.stages.medians_ms()
        samples = len(row.samples_ns)
        row.cores_used = sum(t.cpu_ns for t in self.timings) / max(sum(t.wall_ns for t in self.timings), 1)
        row.busy_threads = max((timing.busy_threads or 0 for timing in self.timings), default=0) or None
        row.preemptions = sum(timing.preemptions or 0 for timing in self.timings)
        row.cpus = shown_cpus({cpu for timing in self.timings for cpu in timing.cpus}) or None
        if self.joules and row.stage == "model":
            inferences = samples + DISCARDED * len(self.rounds)
            row.energy_mj_per_image = self.joules * 1e3 / (inferences * row.batch)
        if row.threads is None:  # the runtime does not tell: what was seen
            row.threads = row.busy_threads
        again = self.worker.embed(batch)
        row.repeat_max_error = float(np.abs(again - self.early).max())
        if row.repeat_max_error > 0 and cosines(again, self.early).min() < self.options.gates.cosine_limit():
            row.status = "failed"
            row.reason = f"the last call gave other embeddings than the first: {row.repeat_max_error:.2e} off"
        executed = self.worker.execution_record(batch)
        if executed is not None:
            row.precision, row.precision_source, row.operators = (
                executed.precision,
                executed.source,
                executed.operators,
            )
        self._check_requests()
        # Real images differ in size, and so do their latencies from end to end.
        alike = np.asarray(row.samples_ns if row.stage == "model" else [])
        row.warnings += noise(alike, np.asarray(row.round_medians_ns))

    def _check_requests(self) -> None:
        row = self.row
        if problem := precision_problem(row.quantisation, row.requested_precision, row.precision or "unknown"):
            row.fail("parity", problem)
        if row.threads is not None and row.threads != row.requested_threads:
            row.warnings.append(
                f"asked for {row.requested_threads} threads, runs {row.threads}:"
                f" not to be compared with rows that run {row.requested_threads}"
            )
        elif row.cores_used is not None and row.cores_used > row.requested_threads + 0.2:
            row.warnings.append(f"asked for {row.requested_threads} threads, used {row.cores_used:.1f} cores")
        elif row.busy_threads is not None and row.busy_threads < row.requested_threads:
            row.warnings.append(f"asked for {row.requested_threads} threads, {row.busy_threads} seen at work")
        elif self.cpus and row.cpus is not None and row.cpus != shown_cpus(self.cpus):
            row.warnings.append(f"pinned to CPU {shown_cpus(self.cpus)}, its threads may use {row.cpus}")

    def close(self) -> None:
        """Ends the worker."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None


def require_sound(runner: RowRunner) -> None:
    """RuntimeFailed when the runtime that rows are compared with has died."""
    if not runner.alive:
        raise RuntimeFailed(f"the fp32 runtime that rows are compared with: {runner.row.reason}")
