"""The run: a fresh worker per row, all fed the same tensors, timed in interleaved rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes._native import Gallery
from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.contract import CONTRACT
from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.embed.batches import stream_tensors
from ...runtimes.embed.verify import cosines, verify_pixels
from ...runtimes.predictor.registry import tool_versions
from ...runtimes.preprocess.ops import Preprocess
from ..devices.remote import RemoteBench, remote_bench
from ..retrieval.label_sense import label_warnings
from ..schema.group_result import Explain, GroupResult
from ..schema.options import BenchOptions, OnProgress
from ..schema.recommendation import speeds
from ..schema.rows import BenchResult, Row
from .early_stop import EarlyStop
from .image_set import ImageSet
from .loader import Loader
from .loadgen import LoadSettings, run_scenarios
from .machine import Watch, describe_machine
from .parity import Embedded, collapse_warning, cross_recall, judge, worst_pairs
from .resume_store import ResumeStore
from .row_runner import RowRunner, require_sound
from .side_by_side import SideBySide
from .tensor_cache import TensorCache

Tensors = NDArray[np.float32]
ENCODE_BATCH, MESSAGE_BYTES = 32, 64 << 20  # images in one message to a worker, and of them no more than so much
STAGE_SAMPLES: int = CONTRACT["stage_samples"]
RANDOM_INPUTS = 4
CROSS_LIMIT = 8


class Run:
    """One bench. preprocess: what the rows are fed instead of the bundle's own. progress(what, share done).

    explain: finds out why a device's row differs. meanwhile: is done while the first workers load.
    """

    def __init__(
        self,
        bundle: Bundle,
        images: ImageSet,
        options: BenchOptions,
        progress: OnProgress,
        preprocess: Preprocess | None = None,
        load: LoadSettings | None = None,
        explain: Explain | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        self.explain, self.meanwhile = explain, meanwhile
        self.bundle, self.images, self.options = bundle, images, options
        self.preprocess = preprocess or bundle.spec.preprocess
        if self.preprocess.output_shape != bundle.spec.input_shape:
            raise InputError(
                f"--preprocess gives {self.preprocess.output_shape}, the model takes {bundle.spec.input_shape}"
            )
        self.spec = bundle.spec.model_copy(update={"preprocess": self.preprocess})
        self.load = load or LoadSettings()
        self.bad: list[str] = []
        self.tensors: TensorCache | None = None
        self.kept: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.early: EarlyStop | None = None
        self.groups = options.groups(bundle.quantisations)
        self.first = Loader(self.groups[0] if self.groups else (), bundle, options)
        self.noise = random_inputs(bundle)
        self.devices = [self._device_bench(index, name) for index, name in enumerate(options.devices)]
        names = [bench.name for bench in self.devices]
        if len(set(names)) < len(names):
            raise InputError(f"--device: expected each device once, got {', '.join(names)}")
        self._progress, self._done = progress, 0.0
        _, self.golden, self.reference = bundle.golden()
        # Rows in a lower precision, or fed otherwise, are judged against a sound fp32 row that is none of them.
        plain = any(is_plain(row) for group in self.groups for row in group)
        at_once = min(ENCODE_BATCH, MESSAGE_BYTES // (4 * int(np.prod(bundle.spec.input_shape))))
        self._size = max(at_once // max(options.batch), 1) * max(options.batch)
        self.needs_reference = not plain or self.preprocess != bundle.spec.preprocess

    def measure(self, state: ResumeStore | None = None) -> tuple[list[GroupResult], GroupResult | None]:
        """All groups, and the reference where one is needed."""
        if not self.needs_reference and (state is None or state.load("group-0") is None):
            self.first.begin()
        import scipy.special  # noqa: F401 - it takes a moment

        if self.meanwhile is not None:
            self.meanwhile()
        self._read_images()
        reference = None
        if self.needs_reference:
            reference = self._kept("reference", state, self._reference_row)
        groups = [self._kept(f"group-{i}", state, partial(self._group, i)) for i in range(len(self.groups))]
        groups += [self._kept(f"device-{i}", state, partial(self._device, i)) for i in range(len(self.devices))]
        rows = [row for group in groups for row in group.rows if row.whole]
        if reference is None and rows and not any(map(is_plain, rows)):  # those have died
            with contextlib.suppress(InputError, RuntimeFailed):  # then they are not judged
                reference = self._kept("reference", state, self._reference_row)
        return groups, reference

    def _kept(self, name: str, state: ResumeStore | None, make: Callable[[], GroupResult]) -> GroupResult:
        found = state.load(name) if state else None
        if found is None:
            found = make()
            if state:
                state.save(name, found)
            if self._tell_causes(found) and state:
                state.save(name, found)
        for row in found.rows:
            if is_plain(row) and row.status == "ok":
                self._judge_by(row.name, found.embeddings[row.name])
        self._done += 1
        return found

    def _step(self, what: str, share: float) -> None:
        parts = len(self.groups) + len(self.devices) + self.needs_reference
        label = f" ({int(self._done) + 1} of {parts})" if parts > 1 else ""
        self._progress(what + label, (self._done + share) / parts)

    def close(self) -> None:
        """Frees the space of the images' tensors, and ends workers that never had their turn."""
        self.first.close()
        if self.tensors is not None:
            self.tensors.close()

    def _read_images(self) -> None:
        """Once for all groups."""
        self.tensors = TensorCache(
            self.images.paths, self.preprocess, lambda share: self._step("reading images", 0.05 * share)
        )
        self.bad, self.kept = self.tensors.bad, self.tensors.kept
        if not len(self.kept):
            raise InputError(f"none of the {len(self.images.paths)} images could be read: {self.bad[0]}")
        # What stages search: as many random embeddings as there are images, at the cost of the real ones.
        noise = np.random.default_rng(0).standard_normal((len(self.kept), self.spec.embedding_dim))
        self.gallery = Gallery(self.spec.embedding_dim)
        self.gallery.add(noise.astype(np.float32))

    @property
    def paths(self) -> list[Path]:
        """The good images."""
        return [self.images.paths[index] for index in self.kept]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Their labels, `(n,)`; None without, or where no two images are of one class."""
        labels = None if self.images.labels is None else self.images.labels[self.kept]
        return labels if labels is not None and len(np.unique(labels)) < len(labels) else None

    def _group(self, index: int) -> GroupResult:
        loader = Loader(self.groups[index], self.bundle, self.options) if index else self.first
        try:
            runners = loader.runners(lambda what, share: self._step(what, 0.05 + 0.1 * share))
            warnings = self._time(runners, 0.15, 0.55)
            _each(runners, lambda c: c.check_golden(self.golden, self.reference))
            self._encode_group(runners, 0.55, 0.8)
            if self.load.scenarios:
                for number, runner in enumerate(runners):
                    self._step(f"LoadGen, {runner.row.name}", 0.8 + 0.15 * number / len(runners))
                    _each([runner], lambda c: run_scenarios(c, self.golden, self.load))
            _each(runners, lambda c: c.finish(timing_batch(self.golden, c.row.batch)))
        finally:
            loader.close()
        return measured(runners, warnings)

    def _time(self, runners: Sequence[RowRunner], begin: float, end: float) -> list[str]:
        """The first inference, warm-up, then interleaved rounds; what disturbed them."""
        options, paths = self.options, self.paths
        batches = {size: timing_batch(self.golden, size) for size in options.batch}
        watch = Watch(lambda: [c.worker.pid for c in runners if c.worker is not None])
        _each(runners, lambda c: c.first_inference(batches[c.row.batch]))
        for runner in runners:
            self._step(f"warming up {runner.row.name}", begin)
            _each([runner], lambda c: c.warm_up(batches[c.row.batch]))

        for number, share in enumerate(np.array_split(np.arange(options.samples), options.rounds)):
            # A B C A B C: drift of the machine falls on all rows alike.
            for runner in runners:
                if options.stage == "e2e":
                    _each([runner], lambda c: c.time_stages(paths, self.spec, self.gallery, len(share), True))  # noqa: B023
                else:
                    _each([runner], lambda c: c.time_model(batches[c.row.batch], len(share)))  # noqa: B023
            done = (number + 1) / options.rounds
            self._step(f"timing, round {number + 1} of {options.rounds}", begin + (end - begin) * done)
        disturbance = watch.stop()
        if options.stage == "model":
            _each(runners, lambda c: c.time_stages(paths, self.spec, self.gallery, STAGE_SAMPLES, False))
        _each(runners, lambda c: c.read_memory(batches[c.row.batch]))
        return disturbance.warnings(len(usable_cpus()))

    def _encode_group(self, runners: Sequence[RowRunner], begin: float, end: float) -> None:
        """Embeds the images in every worker; with --sequential in those that surely fail only some of them."""
        if self.options.sequential and self.early is None:
            plain = [one for one in runners if one.alive and is_plain(one.row) and one.row.status == "ok"][:1]
            for first in plain:
                self._encode(plain, self.preprocess, begin, (begin + end) / 2)
                if first.alive:
                    self._judge_by(first.row.name, first.embedded)
            runners, begin = [one for one in runners if one not in plain], (begin + end) / 2
        if self.early is not None:
            self._encode_in_parts(runners, self.early, begin, end)
        elif runners:
            self._encode(runners, self.preprocess, begin, end)

    def _judge_by(self, name: str, embeddings: Tensors) -> None:
        """What rows that are embedded after it are judged by on the way, if they are to be."""
        if self.options.sequential and self.early is None and self.labels is not None:
            self.early = EarlyStop(Embedded(name, embeddings, self.labels), self.options.gates)

    def _encode_in_parts(self, runners: Sequence[RowRunner], early: EarlyStop, begin: float, end: float) -> None:
        assert self.tensors is not None
        done = 0
        with SideBySide(runners, self.options) as rows:
            for look in (*early.looks, len(early.order)):
                going = [one for one in runners if one.row.stopped_after is None]
                for tensors in self.tensors.batches(self._size, early.order[done:look]) if going else ():
                    rows.each(lambda c: c.encode(tensors), going)  # noqa: B023 - used before the next batch
                    self._step("embedding images", begin + (end - begin) * done / len(early.order))
                done = look
                if look < len(early.order):
                    rows.each(lambda c: c.stop_if(early.problem(c.embedded, c.row.lowered)), going)
        whole = [one for one in runners if one.row.stopped_after is None]
        _each(whole, lambda c: c.reorder(early.order))
        _each(whole, lambda c: c.embed_random(self.noise))

    def _encode(self, runners: Sequence[RowRunner], preprocess: Preprocess, begin: float, end: float) -> None:
        """Embeds each image in every worker; then random input."""
        done = 0
        if preprocess == self.preprocess and self.tensors is not None:
            batches = self.tensors.batches(self._size)
        else:
            batches = (tensors for _, tensors in stream_tensors(self.paths, preprocess, self._size, 1, None))
        with SideBySide(runners, self.options) as rows:
            for tensors in batches:
                rows.each(lambda c: c.encode(tensors))  # noqa: B023 - used before the next batch
                done += len(tensors)
                self._step("embedding images", begin + (end - begin) * done / len(self.kept))
        _each(runners, lambda c: c.embed_random(self.noise))

    def _device_bench(self, index: int, name: str) -> RemoteBench:
        if self.preprocess != self.bundle.spec.preprocess:
            raise InputError("--preprocess is for this machine's rows: a device preprocesses as its bundle says")
        options = self.options
        programs = [Path(path) for path in options.device_programs]
        made = remote_bench(name, self.bundle, options, self.noise, programs, len(self.groups) + index)
        made.prepare()
        return made

    def _device(self, index: int) -> GroupResult:
        digests = [self.images.digests[i].hex() for i in self.kept]
        return self.devices[index].measure(self.paths, digests, self._step)

    def _tell_causes(self, group: GroupResult) -> bool:
        """Why a device's rows differ; whether any did. Rows that differ alike are looked into once."""
        told: dict[object, str | None] = {}
        for row in group.rows:
            evidence = group.evidence.get(row.name)
            if self.explain is None or evidence is None:
                continue
            if evidence.key not in told:
                self._step(f"why {row.name} differs", 1.0)
                told[evidence.key] = self.explain(self.bundle, evidence)
            row.tell_cause(told[evidence.key])
        return bool(told)

    def _reference_row(self) -> GroupResult:
        """A sound fp32 runtime, fed as the bundle says."""
        reasons = []
        options = replace(self.options, precision=("fp32",), threads=(1,), batch=(1,))
        for runtime in self.bundle.runtimes():
            reference = RowRunner(options.row(runtime, "fp32", 1, "fp32", 1), self.bundle, options)
            try:
                _each([reference], lambda c: c.check_golden(self.golden, self.reference))
                if reference.row.status == "ok":
                    self._encode([reference], self.bundle.spec.preprocess, 0.1, 1.0)
                    require_sound(reference)
                    return measured([reference], [])
            finally:
                reference.close()
            reasons.append(f"{runtime}: {reference.row.reason}")
        raise InputError(f"these rows need a sound fp32 runtime beside them: {'; '.join(reasons)}")


def is_plain(row: Row) -> bool:
    """Whether others may be judged by it: fp32 weights, computed in fp32."""
    return row.quantisation == row.requested_precision == "fp32"


def measured(runners: Sequence[RowRunner], warnings: list[str]) -> GroupResult:
    """What is kept of runners whose workers have ended."""
    whole = [runner for runner in runners if runner.row.whole]
    return GroupResult(
        [runner.row for runner in runners],
        {runner.row.name: runner.embedded for runner in whole},
        {runner.row.name: runner.random for runner in whole},
        warnings,
    )


def random_inputs(bundle: Bundle) -> Tensors:
    """Inputs that are no images, `(n, 3, H, W)`, the same on every machine."""
    noise = np.random.default_rng(0).standard_normal((RANDOM_INPUTS, *bundle.spec.input_shape))
    return noise.astype(np.float32)


def timing_batch(tensors: Tensors, size: int) -> Tensors:
    """`size` real images as one batch, repeating them when there are fewer."""
    return np.ascontiguousarray(np.resize(tensors, (size, *tensors.shape[1:])))


def _each(runners: Sequence[RowRunner], action: Callable[[RowRunner], object]) -> None:
    for runner in runners:
        if runner.alive:
            runner.attempt(partial(action, runner))


def run_bench(
    bundle: Bundle,
    images: ImageSet,
    options: BenchOptions,
    command: str,
    progress: OnProgress,
    preprocess: Preprocess | None = None,
    load: LoadSettings | None = None,
    state: ResumeStore | None = None,
    explain: Explain | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> BenchResult:
    """Measures every row of `options` on a bundle. progress(what, share done).

    preprocess: the rows are fed this instead of what the bundle says, and judged against what it says. state: keeps
    what is measured, so that an interrupted run can go on. explain: says why a device's row differs. meanwhile: is done
    while the first workers load.
    """
    if load and load.scenarios and options.stage != "model":
        raise InputError("scenarios measure the model: use them with --stage model")
    import scipy  # noqa: F401 - missing, it is said before anything is measured

    machine = describe_machine()
    problem = verify_pixels(bundle)
    check_artifacts(bundle, options)
    run = Run(bundle, images, options, progress, preprocess, load, explain, meanwhile)
    try:
        groups, reference = run.measure(state)
    finally:
        run.close()
    rows = [row for group in groups for row in group.rows]
    unpaired = images.labels is not None and run.labels is None
    result = BenchResult(
        command=command,
        bundle=str(bundle.root),
        machine=machine,
        packages=tool_versions(),
        options={
            **asdict(options),
            "gates": options.gates.model_dump(),
            "load": asdict(run.load),
            "preprocess": preprocess.model_dump(mode="json") if preprocess else None,
        },
        images=len(run.kept),
        images_sha256=images.sha256(run.kept, images.labels is not None),
        labelled=run.labels is not None,
        baseline=None,
        rows=rows,
        speeds=speeds(rows),
        problem=problem,
        warnings=list(dict.fromkeys(warning for group in groups for warning in group.warnings)),
        bad_images=run.bad,
    )
    progress("comparing embeddings", 1.0)
    baseline = judge_all(result, groups, reference, run.paths, run.labels)
    if baseline is not None and baseline.labels is not None:
        digests = [images.digests[index] for index in run.kept]
        result.warnings += label_warnings(run.paths, baseline.labels, baseline.embeddings, digests)
    for row in rows:
        if row.measured:
            options.gates.check(row)
    if unpaired:
        result.warnings.append("no two of the images are of one class: recall is not measured")
    if options.strict:
        be_strict(result)
    return result


def check_artifacts(bundle: Bundle, options: BenchOptions) -> None:
    """Hashes the files of all rows before anything is measured. BundleError when one was changed."""
    for runtime, quantisation in options.models(bundle.quantisations):
        with_files = [one for one in bundle.artifacts_for(runtime) if one.quantisation == quantisation]
        bundle.check(file for artifact in with_files[:1] for file in artifact.files)


def judge_all(
    result: BenchResult,
    groups: Sequence[GroupResult],
    reference: GroupResult | None,
    paths: Sequence[Path],
    labels: NDArray[np.int64] | None,
) -> Embedded | None:
    """Parity of every measured row against the baseline, which it gives: the reference, or the first sound fp32 row."""
    sets = {name: Embedded(name, array, labels) for group in groups for name, array in group.embeddings.items()}
    random = {name: array for group in groups for name, array in group.random.items()}
    rows = [row for row in result.rows if row.name in sets]
    if not rows:
        return None
    if reference:
        (name,) = reference.embeddings
        baseline, base_random = Embedded(name, reference.embeddings[name], labels), reference.random[name]
        result.baseline = f"{name} in fp32, as the bundle says"
    else:
        # The baseline must itself match what is sealed on the golden images.
        fp32 = [row for row in rows if is_plain(row)]
        if not fp32:
            for row in rows:
                row.fail("parity", "no fp32 row is left to judge it against")
            return None
        first = next((row for row in fp32 if row.status == "ok"), fp32[0])
        baseline, base_random, result.baseline = sets[first.name], random[first.name], first.name
    if baseline.labels is not None and baseline.scores is not None:
        result.query_classes = baseline.labels[baseline.scores.first_rank > 0].tolist()
    for row in rows:
        judge(row, sets[row.name], baseline)
        row.random_cosine_min = float(cosines(random[row.name], base_random).min())
    if len(paths) > 1 and (warning := collapse_warning(baseline.embeddings)):
        result.warnings.append(warning)
    result.cross_recall = cross_recall(distinct(rows, sets, baseline if reference else None))
    others = [row for row in rows if sets[row.name] is not baseline]
    if others:
        worst = min(others, key=lambda row: (-(row.neighbour_flips or 0.0), row.cosine_min or 0.0))
        result.worst_pairs = worst_pairs(sets[worst.name], baseline, paths)
    return baseline


def distinct(rows: Sequence[Row], sets: dict[str, Embedded], reference: Embedded | None) -> list[Embedded]:
    """One row for each device, runtime, quantisation and precision: threads and batch hardly change an embedding."""
    chosen: dict[tuple[str, ...], Embedded] = {}
    for row in rows:
        key = (row.device, row.runtime, row.quantisation, row.requested_precision)
        chosen.setdefault(key, sets[row.name])
    extra = [Embedded(f"{reference.name} (baseline)", reference.embeddings, reference.labels)] if reference else []
    return [*extra, *chosen.values()][:CROSS_LIMIT]


def be_strict(result: BenchResult) -> None:
    """Warnings become failures."""
    for row in result.rows:
        if row.warnings:
            row.fail("request", row.warnings[0])
        if row.meaningless is not None:
            row.fail("parity", row.meaningless)
    if result.problem is None and result.warnings:
        result.problem = f"--strict: {result.warnings[0]}"
