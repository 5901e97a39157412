"""The one row schema of a measurement, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ...runtimes.core.contract import CONTRACT
from ...runtimes.core.errors import InputError
from .statistics import Interval, median_absolute_deviation

SCHEMA: int = CONTRACT["row_schema"]
ROUNDING = 1e-6  # by which a figure may pass its limit
LOCAL = "local"  # the device of rows that ran here
# undecided: nothing fails, but its queries cannot tell that a gate holds.
Status = Literal["ok", "undecided", "parity", "request", "failed", "missing"]
SOUND = ("ok", "undecided")  # of rows without a failure


@dataclass
class GateVerdict:
    """What a row's images say of one gate. gate: such as "mAP". allowed: the drop. queries: about as many would decide,
    where it is undecided; None where no sensible number would.
    """

    gate: str
    decision: Literal["holds", "fails", "undecided"]
    allowed: float
    queries: int | None = None

    @property
    def text(self) -> str:
        """In a few words."""
        number = f" (about {self.queries:,} queries would decide)" if self.queries else ""
        return f"{self.gate} {self.decision}{number}"


@dataclass
class Scenario:
    """One MLPerf LoadGen scenario. valid: LoadGen's own verdict; problem: what it says where it is not.

    Latencies in ms are those of LoadGen's log, of queries; samples_per_s is its throughput.
    """

    name: str
    valid: bool
    queries: int
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    samples_per_s: float | None = None
    problem: str | None = None
    log: dict[str, Any] = field(default_factory=dict)


@dataclass
class Row:
    """One runtime with one set of options, measured in a worker process of its own.

    Figures are None where they were not, or could not be, measured.
    """

    # What it is
    runtime: str
    name: str = ""  # the runtime, and what sets this row apart in a sweep
    group: int = 0  # rows of one group were timed in turns
    device: str = LOCAL  # where it ran
    emulated: bool = False  # times mean nothing there, embeddings do
    stage: str = "model"  # what latency is of: "model", or "e2e", from the image's bytes to its neighbours
    artifact: str | None = None  # its name in the bundle
    quantisation: str = "fp32"  # of the artifact
    recipe: str | None = None  # how it was quantised
    model_sha256: str | None = None
    version: str | None = None  # of the runtime

    # What was requested, and what ran
    requested_precision: str = "fp32"  # execution precision
    precision: str | None = None  # what ran, such as "int8+fp32"
    precision_source: str | None = None  # the record that tells it; None: as configured
    requested_threads: int = 1
    threads: int | None = None  # as the runtime tells, else as seen
    cpus: str | None = None  # that its threads were allowed, such as "0,2-3"
    batch: int = 1  # images in one inference

    # Cost
    size_mb: float | None = None  # the artifact's files, MB (1e6 bytes)
    import_ms: float | None = None
    load_ms: float | None = None
    first_ms: float | None = None  # the first inference
    warmup_runs: int | None = None  # inferences before the timed ones
    latency_p50_ms: float | None = None  # of one inference of a batch
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_mad_ms: float | None = None  # median absolute deviation
    images_per_s: float | None = None
    cores_used: float | None = None  # CPU time over wall time while timing
    busy_threads: int | None = None  # threads seen at work
    preemptions: int | None = None  # times the system took a CPU from them
    energy_mj_per_image: float | None = None  # millijoules, of the whole package (RAPL)
    peak_rss_mb: float | None = None  # the worker's peak resident memory, MB (1e6 bytes)

    # Where a GPU computes, after the timing
    gpu: str | None = None  # its name and compute capability
    gpu_driver: str | None = None
    gpu_memory_mb: float | None = None  # of its memory, what the worker held, MB (1e6 bytes)
    gpu_clock_mhz: float | None = None  # of its multiprocessors
    gpu_compute_ms: float | None = None  # median of an inference there, without the copies to and from it

    # Against what is sealed, on the golden images
    golden_cosine_min: float | None = None
    golden_max_error: float | None = None  # of raw embedding values
    repeat_max_error: float | None = None  # the last call against the first
    batch_max_error: float | None = None  # all golden images at once against one by one

    # Against the baseline row, on all images
    random_cosine_min: float | None = None  # on random input
    cosine_min: float | None = None
    cosine_p1: float | None = None  # the first percentile
    cosine_mean: float | None = None
    neighbour_flips: float | None = None  # share of images whose nearest neighbour is another
    recall1: float | None = None  # recall@1, each image a query against the others
    delta_recall1: float | None = None  # minus the baseline's; low, high: its 95 % interval
    delta_recall1_low: float | None = None
    delta_recall1_high: float | None = None
    recall5: float | None = None
    recall1_chance: float | None = None  # what embeddings without any meaning would reach, on average
    mean_ap: float | None = None
    delta_map: float | None = None
    delta_map_low: float | None = None
    delta_map_high: float | None = None
    mixed_recall1: float | None = None  # the row's queries against the gallery of the baseline
    delta_mixed1: float | None = None
    delta_mixed1_low: float | None = None
    delta_mixed1_high: float | None = None
    mixed_map: float | None = None
    delta_mixed_map: float | None = None
    delta_mixed_map_low: float | None = None
    delta_mixed_map_high: float | None = None
    queries: int | None = None  # that have a relevant image
    stopped_after: int | None = None  # of the images, where they told that the row fails; figures of all are not there

    # Verdict
    status: Status = "ok"
    reason: str | None = None  # why it is not ok
    verdicts: list[GateVerdict] = field(default_factory=list)  # of each gate of recall and mAP
    queries_to_decide: int | None = None  # about as many, of such classes, would; None: not undecided, or none would
    warnings: list[str] = field(default_factory=list)
    meaningless: str | None = None  # why its embeddings tell nothing, whatever the baseline's are: never to be shipped

    # Details
    stages_ms: dict[str, float] = field(default_factory=dict)  # median of each stage of one batch
    scenarios: list[Scenario] = field(default_factory=list)
    operators: dict[str, int] = field(default_factory=dict)  # heavy layers that ran: kind -> count
    detail: dict[str, Any] = field(default_factory=dict)  # the runtime's own settings
    hits: str = ""  # recall@1 of each query, 1 or 0
    average_precisions: list[float] = field(default_factory=list)  # of each query
    round_medians_ns: list[float] = field(default_factory=list)  # one a round
    samples_ns: list[int] = field(default_factory=list)  # all latencies, in the order they were taken

    def __post_init__(self) -> None:
        self.name = self.name or self.runtime

    def set_rounds(self, rounds: list[NDArray[np.int64]]) -> None:
        """Fills the latency columns from each round's nanoseconds."""
        self.round_medians_ns = [float(np.median(part)) for part in rounds]
        self.set_samples(np.concatenate(rounds))

    def set_samples(self, samples: NDArray[np.int64]) -> None:
        """Fills the columns that follow from all latencies, in nanoseconds."""
        self.samples_ns = samples.tolist()
        p50, p90, p99 = np.percentile(samples, [50, 90, 99]) / 1e6
        self.latency_p50_ms, self.latency_p90_ms, self.latency_p99_ms = float(p50), float(p90), float(p99)
        self.latency_mad_ms = median_absolute_deviation(samples) / 1e6
        self.images_per_s = float(self.batch * len(samples) / (samples.sum() / 1e9))

    def fail(self, status: Status, reason: str) -> None:
        """Marks the row; the first reason stays, but a doubt gives way to a failure."""
        if self.status in SOUND:
            self.status, self.reason, self.queries_to_decide = status, reason, None

    def tell_cause(self, cause: str | None) -> None:
        """Why the row differs, if that is known: after its reason, or as a warning where it has none."""
        if cause is None:
            return
        if self.reason is None:
            self.warnings.append(cause)
        else:
            self.reason += f"; {cause}"

    def doubt(self, reason: str, queries: int | None) -> None:
        """Marks a row without failures as undecided; of several doubts the first reason and the most queries stay."""
        if self.status == "ok":
            self.status, self.reason, self.queries_to_decide = "undecided", reason, queries
        elif self.status == "undecided" and self.queries_to_decide is not None:
            self.queries_to_decide = queries and max(queries, self.queries_to_decide)

    def change(self, figure: str) -> Interval | None:
        """delta_`figure` with its interval, or None where it was not measured."""
        value, low, high = (getattr(self, f"delta_{figure}{end}") for end in ("", "_low", "_high"))
        return None if value is None else Interval(value, low, high)

    def set_change(self, figure: str, change: Interval) -> None:
        """Fills delta_`figure` and its interval."""
        for end, value in (("", change.value), ("_low", change.low), ("_high", change.high)):
            setattr(self, f"delta_{figure}{end}", value)

    @property
    def lowered(self) -> bool:
        """Whether it is int8, or was asked to compute in less than fp32."""
        return self.quantisation == "int8" or self.requested_precision != "fp32"

    @property
    def measured(self) -> bool:
        """Whether its figures are there, whatever they say."""
        return self.status not in ("failed", "missing")

    @property
    def whole(self) -> bool:
        """Whether it embedded every image."""
        return self.measured and self.stopped_after is None


@dataclass
class Speed:
    """A row beside the fastest of its group and batch: how many times longer it takes an image, with its interval."""

    slow: str
    fast: str
    ratio: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """One line."""
        if self.low is None or self.high is None:
            return f"{self.fast} ran {self.ratio:.2f} times as fast as {self.slow} (too few rounds for an interval)"
        interval = f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        if self.low <= 1 <= self.high:
            return f"{self.fast} and {self.slow} cannot be told apart: ratio {interval}"
        return f"{self.fast} ran {interval} times as fast as {self.slow}"


@dataclass
class CrossRecall:
    """recall@1 with queries embedded by one row and the gallery by another, [query][gallery], in the names' order."""

    names: list[str]
    recall1: list[list[float]]


@dataclass
class Pair:
    """An image that a row embeds least like the baseline. neighbours: nearest image by the baseline and by the row."""

    row: str
    cosine: float
    image: str
    baseline_neighbour: str
    row_neighbour: str


@dataclass
class BenchResult:
    """All rows and what they depend on. problem: what is wrong with the run as a whole, or None.

    images_sha256: of the images' bytes in order, and their labels. query_classes: of each query of the rows' figures.
    """

    command: str
    bundle: str
    machine: dict[str, Any]
    packages: dict[str, str]
    options: dict[str, Any]
    images: int
    images_sha256: str
    labelled: bool
    baseline: str | None
    rows: list[Row]
    speeds: list[Speed] = field(default_factory=list)
    cross_recall: CrossRecall | None = None
    worst_pairs: list[Pair] = field(default_factory=list)
    problem: str | None = None
    warnings: list[str] = field(default_factory=list)
    bad_images: list[str] = field(default_factory=list)
    query_classes: list[int] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def exit_code(self) -> int:
        """0 no row fails; 1 a parity or runtime failure, or a runtime that was named is missing; 2 nothing could run;
        3 with strict: no failure, but a row is undecided.

        A runtime that is missing is no failure where the bench was to take all that can be had, unless it is strict. A
        precision that a runtime does not have is one: it was requested.
        """
        if all(row.status == "missing" for row in self.rows):
            return 2
        forgiven = self.options.get("every") and not self.options.get("strict")
        named = self.options.get("named", ())

        def is_fine(row: Row) -> bool:
            missing = row.status == "missing" and row.requested_precision == "fp32"
            return row.status in SOUND or bool(forgiven and missing and row.runtime not in named)

        if self.problem is not None or not all(map(is_fine, self.rows)):
            return 1
        return 3 if self.options.get("strict") and any(row.status == "undecided" for row in self.rows) else 0

    def to_json(self) -> str:
        """Everything, raw samples included."""
        return json.dumps(asdict(self)) + "\n"


def read_result(path: Path) -> BenchResult:
    """A result from its file. InputError when it is not valid."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: expected the file of 'edgerecall bench --json', got no JSON: {error}") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        raise InputError(f"{path}: expected a bench result of schema {SCHEMA}, got {found!r}: run the bench again")
    try:
        result = TypeAdapter(BenchResult).validate_python(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(f"{path}: no bench result: '{where}': {fault['msg']}") from error
    for row in result.rows:
        for name, value in vars(row).items():
            least = -1.0 if name.startswith("delta") or "cosine" in name else 0.0
            if isinstance(value, float) and not least - ROUNDING <= value < float("inf"):
                raise InputError(f"{path}: no bench result: row '{row.name}': {name}: expected a figure, got {value}")
        if set(row.hits) - {"0", "1"} or not all(0 <= one <= 1 for one in row.average_precisions):
            raise InputError(
                f"{path}: no bench result: row '{row.name}': expected hits of 0 and 1, precisions of 0 to 1"
            )
    if not isinstance(result.options.get("gates", {}), dict | None):
        raise InputError(f"{path}: no bench result: 'options.gates': expected limits by name")
    return result
