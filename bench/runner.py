"""The run: a fresh worker per row, all fed the same tensors, timed in interleaved rounds."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle import Bundle
from ..runtimes.cpus import usable_cpus
from ..runtimes.errors import ImageError, InputError, RuntimeFailed
from ..runtimes.model import available_in, stream_tensors
from ..runtimes.spec import Preprocess
from ..runtimes.verify import cosines, verify_pixels
from ..runtimes.versions import installed_versions
from .contender import Contender, require_sound
from .device import open_device
from .device_bench import DeviceBench
from .image_set import ImageSet
from .loadgen import LoadSettings, run_scenarios
from .machine import Watch, describe_machine
from .options import BenchOptions
from .parity import Embedded, collapse_warning, cross_recall, judge, worst_pairs
from .rows import BenchResult, Row
from .speeds import speeds
from .sweep_state import Measured, SweepState

Tensors = NDArray[np.float32]
Progress = Callable[[str, float], None]
ENCODE_BATCH = 8
STAGE_SAMPLES = 20
RANDOM_INPUTS = 4
CROSS_LIMIT = 8


class Run:
    """One bench. preprocess: what the rows are fed instead of the bundle's own. progress(what, share done)."""

    def __init__(
        self,
        bundle: Bundle,
        images: ImageSet,
        options: BenchOptions,
        progress: Progress,
        preprocess: Preprocess | None = None,
        load: LoadSettings | None = None,
    ) -> None:
        self.bundle, self.images, self.options = bundle, images, options
        self.preprocess = preprocess or bundle.spec.preprocess
        if self.preprocess.output_shape != bundle.spec.input_shape:
            raise InputError(
                f"--preprocess gives {self.preprocess.output_shape}, the model takes {bundle.spec.input_shape}"
            )
        self.spec = bundle.spec.model_copy(update={"preprocess": self.preprocess})
        self.load = load or LoadSettings()
        self.bad: list[str] = []
        self.kept: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.groups = options.groups()
        self.noise = random_inputs(bundle)
        self.devices = [self._device_bench(index, name) for index, name in enumerate(options.devices)]
        names = [bench.device.name for bench in self.devices]
        if len(set(names)) < len(names):
            raise InputError(f"--device: expected each device once, got {', '.join(names)}")
        self._progress, self._done = progress, 0.0
        _, self.golden, self.reference = bundle.golden()
        # Rows in a lower precision, or fed otherwise, are judged against a sound fp32 row that is none of them.
        self.needs_witness = "fp32" not in options.precision or self.preprocess != bundle.spec.preprocess

    def measure(self, state: SweepState | None = None) -> tuple[list[Measured], Measured | None]:
        """All groups, and the witness where one is needed."""
        self._find_good()
        witness = None
        if self.needs_witness:
            witness = self._kept("witness", state, self._witness)
        groups = [self._kept(f"group-{i}", state, partial(self._group, i)) for i in range(len(self.groups))]
        groups += [self._kept(f"device-{i}", state, partial(self._device, i)) for i in range(len(self.devices))]
        rows = [row for group in groups for row in group.rows if row.measured]
        if witness is None and rows and all(row.asked_precision != "fp32" for row in rows):  # those have died
            with contextlib.suppress(InputError, RuntimeFailed):  # then they are not judged
                witness = self._kept("witness", state, self._witness)
        return groups, witness

    def _kept(self, name: str, state: SweepState | None, make: Callable[[], Measured]) -> Measured:
        found = state.load(name) if state else None
        if found is None:
            found = make()
            if state:
                state.save(name, found)
        self._done += 1
        return found

    def _step(self, what: str, share: float) -> None:
        parts = len(self.groups) + len(self.devices) + self.needs_witness
        label = f" ({int(self._done) + 1} of {parts})" if parts > 1 else ""
        self._progress(what + label, (self._done + share) / parts)

    def _find_good(self) -> None:
        """Which images can be read, once for all groups."""
        good = []

        def on_bad(path: Path, error: ImageError) -> None:
            self.bad.append(str(error))

        for indices, _ in stream_tensors(self.images.paths, self.preprocess, ENCODE_BATCH, 1, on_bad):
            good += indices
            self._step("reading images", 0.05 * len(good) / len(self.images.paths))
        if not good:
            raise InputError(f"none of the {len(self.images.paths)} images could be read: {self.bad[0]}")
        self.kept = np.asarray(good, dtype=np.int64)

    @property
    def paths(self) -> list[Path]:
        """The good images."""
        return [self.images.paths[index] for index in self.kept]

    def _group(self, index: int) -> Measured:
        rows, options = self.groups[index], self.options
        contenders: list[Contender] = []
        try:
            for number, row in enumerate(rows):
                contenders.append(Contender(row, self.bundle, options))
                self._step(f"loading {row.name}", 0.05 + 0.1 * number / len(rows))
            warnings = self._time(contenders, 0.15, 0.55)
            _each(contenders, lambda c: c.check_golden(self.golden, self.reference))
            self._encode(contenders, self.preprocess, 0.55, 0.8)
            if self.load.scenarios:
                for number, contender in enumerate(contenders):
                    self._step(f"LoadGen, {contender.row.name}", 0.8 + 0.15 * number / len(contenders))
                    _each([contender], lambda c: run_scenarios(c, self.golden, self.load))
            _each(contenders, lambda c: c.finish(timing_batch(self.golden, c.row.batch)))
        finally:
            for contender in contenders:
                contender.close()
        return measured(contenders, warnings)

    def _time(self, contenders: Sequence[Contender], begin: float, end: float) -> list[str]:
        """The first inference, warm-up, then interleaved rounds; what disturbed them."""
        options, paths = self.options, self.paths
        batches = {size: timing_batch(self.golden, size) for size in options.batch}
        watch = Watch(lambda: [c.worker.pid for c in contenders if c.worker is not None])
        _each(contenders, lambda c: c.first_inference(batches[c.row.batch]))
        for contender in contenders:
            self._step(f"warming up {contender.row.name}", begin)
            _each([contender], lambda c: c.warm_up(batches[c.row.batch]))

        for number, share in enumerate(np.array_split(np.arange(options.samples), options.rounds)):
            # A B C A B C: drift of the machine falls on all rows alike.
            for contender in contenders:
                if options.stage == "e2e":
                    _each([contender], lambda c: c.time_stages(paths, self.spec, len(share), True))  # noqa: B023
                else:
                    _each([contender], lambda c: c.time_model(batches[c.row.batch], len(share)))  # noqa: B023
            done = (number + 1) / options.rounds
            self._step(f"timing, round {number + 1} of {options.rounds}", begin + (end - begin) * done)
        disturbance = watch.stop()
        if options.stage == "model":
            _each(contenders, lambda c: c.time_stages(paths, self.spec, STAGE_SAMPLES, False))
        _each(contenders, lambda c: c.read_memory())
        return disturbance.warnings(len(usable_cpus()))

    def _encode(self, contenders: Sequence[Contender], preprocess: Preprocess, begin: float, end: float) -> None:
        """Preprocesses each image once and embeds it in every worker; then random input."""
        done = 0
        size = max(ENCODE_BATCH, *self.options.batch, 1)
        for _, tensors in stream_tensors(self.paths, preprocess, size, 1, None):
            _each(contenders, lambda c: c.encode(tensors))  # noqa: B023 - used before the next batch
            done += len(tensors)
            self._step("embedding images", begin + (end - begin) * done / len(self.kept))
        _each(contenders, lambda c: c.embed_random(self.noise))

    def _device_bench(self, index: int, name: str) -> DeviceBench:
        if self.preprocess != self.bundle.spec.preprocess:
            raise InputError("--preprocess is for this machine's rows: a device preprocesses as its bundle says")
        options = self.options
        programs = [Path(path) for path in options.device_programs]
        made = DeviceBench(open_device(name), self.bundle, options, self.noise, programs, len(self.groups) + index)
        made.prepare()
        return made

    def _device(self, index: int) -> Measured:
        return self.devices[index].measure(self.paths, self._step)

    def _witness(self) -> Measured:
        """A sound fp32 runtime, fed as the bundle says."""
        reasons = []
        options = replace(self.options, precision=("fp32",), threads=(1,), batch=(1,))
        for runtime in available_in(self.bundle):
            witness = Contender(options.row(runtime, 1, "fp32", 1), self.bundle, options)
            try:
                _each([witness], lambda c: c.check_golden(self.golden, self.reference))
                if witness.row.status == "ok":
                    self._encode([witness], self.bundle.spec.preprocess, 0.1, 1.0)
                    require_sound(witness)
                    return measured([witness], [])
            finally:
                witness.close()
            reasons.append(f"{runtime}: {witness.row.reason}")
        raise InputError(f"these rows need a sound fp32 runtime beside them: {'; '.join(reasons)}")


def measured(contenders: Sequence[Contender], warnings: list[str]) -> Measured:
    """What is kept of contenders whose workers have ended."""
    whole = [contender for contender in contenders if contender.row.measured]
    return Measured(
        [contender.row for contender in contenders],
        {contender.row.name: contender.embedded for contender in whole},
        {contender.row.name: contender.random for contender in whole},
        warnings,
    )


def random_inputs(bundle: Bundle) -> Tensors:
    """Inputs that are no images, `(n, 3, H, W)`, the same on every machine."""
    noise = np.random.default_rng(0).standard_normal((RANDOM_INPUTS, *bundle.spec.input_shape))
    return noise.astype(np.float32)


def timing_batch(tensors: Tensors, size: int) -> Tensors:
    """`size` real images as one batch, repeating them when there are fewer."""
    return np.ascontiguousarray(np.resize(tensors, (size, *tensors.shape[1:])))


def _each(contenders: Sequence[Contender], action: Callable[[Contender], object]) -> None:
    for contender in contenders:
        if contender.alive:
            contender.attempt(partial(action, contender))


def images_sha256(paths: Sequence[Path], labels: NDArray[np.int64] | None) -> str:
    """Of the images' bytes in order (none for one that cannot be read), and their labels."""
    digest = hashlib.sha256()
    for path in paths:
        data = b""
        with contextlib.suppress(OSError):
            data = path.read_bytes()
        digest.update(hashlib.sha256(data).digest())
    digest.update(b"" if labels is None else labels.astype("<i8").tobytes())
    return digest.hexdigest()


def run_bench(
    bundle: Bundle,
    images: ImageSet,
    options: BenchOptions,
    command: str,
    progress: Progress,
    preprocess: Preprocess | None = None,
    load: LoadSettings | None = None,
    state: SweepState | None = None,
) -> BenchResult:
    """Measures every row of `options` on a bundle. progress(what, share done).

    preprocess: the rows are fed this instead of what the bundle says, and judged against what it says. state: keeps
    what is measured, so that an interrupted run can go on.
    """
    if load and load.scenarios and options.stage != "model":
        raise InputError("scenarios measure the model: use them with --stage model")
    import scipy.stats  # noqa: F401 - missing, it is said before anything is measured

    machine = describe_machine()
    problem = verify_pixels(bundle)
    run = Run(bundle, images, options, progress, preprocess, load)
    groups, witness = run.measure(state)
    rows = [row for group in groups for row in group.rows]
    labels = None if images.labels is None else images.labels[run.kept]
    unpaired = labels is not None and len(np.unique(labels)) == len(labels)
    result = BenchResult(
        command=command,
        bundle=str(bundle.root),
        machine=machine,
        packages=installed_versions(),
        options={
            **asdict(options),
            "gates": options.gates.model_dump(),
            "load": asdict(run.load),
            "preprocess": preprocess.model_dump(mode="json") if preprocess else None,
        },
        images=len(run.kept),
        images_sha256=images_sha256(run.paths, labels),
        labelled=labels is not None and not unpaired,
        baseline=None,
        rows=rows,
        speeds=speeds(rows),
        problem=problem,
        warnings=list(dict.fromkeys(warning for group in groups for warning in group.warnings)),
        bad_images=run.bad,
    )
    progress("comparing embeddings", 1.0)
    judge_all(result, groups, witness, run.paths, None if unpaired else labels)
    for row in rows:
        if row.measured:
            options.gates.check(row)
    if unpaired:
        result.warnings.append("no two of the images are of one class: recall is not measured")
    if options.strict:
        be_strict(result)
    return result


def judge_all(
    result: BenchResult,
    groups: Sequence[Measured],
    witness: Measured | None,
    paths: Sequence[Path],
    labels: NDArray[np.int64] | None,
) -> None:
    """Parity of every measured row against the witness, or the first sound row in fp32."""
    sets = {name: Embedded(name, array, labels) for group in groups for name, array in group.embeddings.items()}
    random = {name: array for group in groups for name, array in group.random.items()}
    rows = [row for row in result.rows if row.name in sets]
    if not rows:
        return
    if witness:
        (name,) = witness.embeddings
        baseline, base_random = Embedded(name, witness.embeddings[name], labels), witness.random[name]
        result.baseline = f"{name} in fp32, as the bundle says"
    else:
        # The baseline must itself match the training framework on the golden images.
        fp32 = [row for row in rows if row.asked_precision == "fp32"]
        if not fp32:
            for row in rows:
                row.fail("parity", "no fp32 row is left to judge it against")
            return
        first = next((row for row in fp32 if row.status == "ok"), fp32[0])
        baseline, base_random, result.baseline = sets[first.name], random[first.name], first.name
    for row in rows:
        judge(row, sets[row.name], baseline)
        row.random_cosine_min = float(cosines(random[row.name], base_random).min())
    if len(paths) > 1 and (warning := collapse_warning(baseline.embeddings)):
        result.warnings.append(warning)
    result.cross_recall = cross_recall(distinct(rows, sets, baseline if witness else None))
    others = [row for row in rows if sets[row.name] is not baseline]
    if others:
        worst = min(others, key=lambda row: (-(row.neighbour_flips or 0.0), row.cosine_min or 0.0))
        result.worst_pairs = worst_pairs(sets[worst.name], baseline, paths)


def distinct(rows: Sequence[Row], sets: dict[str, Embedded], witness: Embedded | None) -> list[Embedded]:
    """One row for each device, runtime and precision: threads and batch hardly change an embedding."""
    chosen: dict[tuple[str, str, str], Embedded] = {}
    for row in rows:
        chosen.setdefault((row.device, row.runtime, row.asked_precision), sets[row.name])
    extra = [Embedded(f"{witness.name} (baseline)", witness.embeddings, witness.labels)] if witness else []
    return [*extra, *chosen.values()][:CROSS_LIMIT]


def be_strict(result: BenchResult) -> None:
    """Warnings become failures."""
    for row in result.rows:
        if row.warnings:
            row.fail("request", row.warnings[0])
    if result.problem is None and result.warnings:
        result.problem = f"--strict: {result.warnings[0]}"
