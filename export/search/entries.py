"""What a race found: an entry for each recipe in each runtime, and which of them to ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ...bench.schema.recommendation import times_as_fast
from ...bench.schema.rows import SOUND, GateVerdict, Row, Status
from ...bench.schema.statistics import Interval
from ...runtimes.predictor.precision import precision_problem

AS_IS = "float32"  # the name of a runtime's float32 artifact, computed in float32
SHOWN = {"recall1": "recall@1", "mixed1": "mixed recall@1", "map": "mAP", "mixed_map": "mixed mAP"}
FIGURES = tuple(SHOWN)  # changes that gates judge
Standing = Literal["holds", "undecided", "fails", "none"]
STANDINGS: dict[str, Standing] = {"ok": "holds", "undecided": "undecided", "parity": "fails"}


@dataclass
class Entry:
    """A recipe in a runtime, or its float32 artifact as it computes by itself or when asked for less.

    name: of the recipe. artifact: of `QUANTISED`; None where nothing is made. folder: of the bundle that has it, in the
    race's folder. status, reason: as of a bench row. speed: how many times as fast as the runtime's float32 in the same
    interleaved rounds, with its 95 % interval. changes: by figure, against float32, with clustered 95 % intervals.
    """

    name: str
    runtime: str
    artifact: str | None = None
    folder: str | None = None
    status: Status = "ok"
    reason: str | None = None
    quantisation: str = "fp32"
    precision: str | None = None
    recipe: str | None = None
    size_mb: float | None = None
    p50_ms: float | None = None
    speed: Interval | None = None
    recall1: float | None = None
    mean_ap: float | None = None
    changes: dict[str, Interval] = field(default_factory=dict)
    verdicts: list[GateVerdict] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        """Of its gates: none where it did not run, or not as asked."""
        return STANDINGS.get(self.status, "none")

    @property
    def worst(self) -> float:
        """The largest loss of its figures, as a change; 0 for none."""
        return min((change.value for change in self.changes.values()), default=0.0)

    @property
    def times(self) -> float:
        """Its speed as a number; 0 where it was not measured."""
        return self.speed.value if self.speed else 0.0

    @property
    def line(self) -> str:
        """Its figures, for `skipped`; why there are none."""
        if self.standing == "none" or self.speed is None:
            return f"{self.name}: {self.reason or 'not measured'}"
        figures = ", ".join(f"{SHOWN[key]} {change.value:+.4f}" for key, change in self.changes.items())
        return f"{self.name}: {self.times:.2f} times as fast as float32; {figures}"


def entry(name: str, row: Row, plain: Row | None, artifact: str | None = None, folder: str | None = None) -> Entry:
    """From a bench row. plain: the runtime's float32 row of the same run."""
    paired = plain is not None and row.round_medians_ns and plain.round_medians_ns
    speed = times_as_fast(row, plain) if plain is not None and paired else None
    changes = {key: change for key in FIGURES if (change := row.change(key)) is not None}
    status, reason = row.status, row.reason
    if status in SOUND and row.meaningless:
        status, reason = "failed", row.meaningless
    if row.measured and (
        wrong := precision_problem(row.quantisation, row.requested_precision, row.precision or "unknown")
    ):
        status, reason = "request", wrong
    return Entry(
        name=name,
        runtime=row.runtime,
        artifact=artifact,
        folder=folder,
        status=status,
        reason=reason,
        quantisation=row.quantisation,
        precision=row.precision,
        recipe=row.recipe,
        size_mb=row.size_mb,
        p50_ms=row.latency_p50_ms,
        speed=speed,
        recall1=row.recall1,
        mean_ap=row.mean_ap,
        changes=changes,
        verdicts=row.verdicts,
    )


def front(entries: Sequence[Entry]) -> list[Entry]:
    """The Pareto front of each runtime: no other of its entries is as fast and loses as little."""
    sound = [one for one in entries if one.standing != "none" and one.speed]

    def beaten(one: Entry) -> bool:
        return any(
            (other.times, other.worst) != (one.times, one.worst)
            and other.times >= one.times
            and other.worst >= one.worst
            for other in sound
            if other.runtime == one.runtime
        )

    return [one for one in sound if not beaten(one)]


@dataclass(frozen=True)
class Choice:
    """For one artifact: the entry to ship, or None and why not; either way in a sentence. ran: whether any did."""

    artifact: str
    entry: Entry | None
    sentence: str
    ran: bool = True


def choose(artifact: str, runtime: str, entries: Sequence[Entry], allowed: dict[str, float]) -> Choice:
    """The fastest that holds and, of those as fast by its interval, the one that loses least. Where none holds that is
    worth it, the same of those undecided that keep the limits on these images. Never an int8 that is not surely faster
    than what the runtime does so well without it.

    allowed: the drop of each figure.
    """
    own = [one for one in entries if one.artifact == artifact]
    ran = [one for one in own if one.standing != "none" and one.speed is not None]
    if not ran:
        why = next((one.reason for one in own if one.standing == "none" and one.reason), None)
        unpaired = f"{runtime} has no float32 row here to compare its speed with" if own else "nothing was raced"
        return Choice(artifact, None, why or unpaired, ran=False)
    holding = [one for one in ran if one.standing == "holds"]
    within_limits = [one for one in ran if one.standing == "undecided" and within(one, allowed)]
    pools = [pool for pool in (holding, within_limits) if pool]
    if not pools:
        best = max(ran, key=lambda one: one.worst)
        return Choice(artifact, None, f"no recipe kept the gates on the validation images; {best.line}")
    others = [one for one in entries if one.runtime == runtime and one.artifact != artifact]
    rivals = [one for one in others if one.name == AS_IS or good(one, allowed)]
    bar = max(rivals, key=lambda one: one.times, default=None)
    for pool in pools:
        best = best_of(pool)
        if best.quantisation != "int8" or bar is None or surely(best) > bar.times:
            doubts = "; ".join(one.text for one in best.verdicts if one.decision == "undecided")
            return Choice(artifact, best, f"{best.line}; undecided: {doubts}" if doubts else best.line)
    assert bar is not None
    best = best_of([best_of(pool) for pool in pools])
    return Choice(
        artifact,
        None,
        f"not surely faster than {bar.name} in {runtime} ({bar.times:.2f} times), which is as good; {best.line}",
    )


def best_of(some: Sequence[Entry]) -> Entry:
    """Of those as fast as the fastest, by its interval, the one that loses least."""
    fastest = max(some, key=lambda one: one.times)
    return max((one for one in some if one.times >= surely(fastest)), key=lambda one: one.worst)


def good(one: Entry, allowed: dict[str, float]) -> bool:
    """Whether its gates hold, or are undecided and kept on these images."""
    return one.standing == "holds" or (one.standing == "undecided" and within(one, allowed))


def within(one: Entry, allowed: dict[str, float]) -> bool:
    """Whether it keeps the limits on these images, whatever others may say."""
    return all(one.changes[key].value >= -drop for key, drop in allowed.items() if key in one.changes)


def surely(one: Entry) -> float:
    """The lower end of its speed's interval."""
    return one.speed.low if one.speed is not None and one.speed.low is not None else one.times
