"""What a run reports: `metrics.jsonl` in the output folder, one record a line, and VisualDL scalars when asked."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...runtimes.core.errors import InputError, RuntimeUnavailable
from ...runtimes.core.files import write_error, write_text
from ...runtimes.core.versions import needs

logger = logging.getLogger(__name__)
METRICS, EARLIER = "metrics.jsonl", "metrics.earlier.jsonl"
KINDS = ("train", "eval")


class Scores(Protocol):
    """What an evaluation finds."""

    @property
    def named(self) -> dict[str, float]:
        """Every metric by its name; the best model is chosen by the first."""
        ...

    def line(self, epoch: int, ks: Sequence[int] | None = None) -> str:
        """The summary as the reference prints it. ks: of the recalls shown."""
        ...


@dataclass(frozen=True)
class StepReport:
    """One iteration, for progress and log. step counts from 1 over all epochs; drift: since the measurement before."""

    epoch: int
    step: int
    total: int
    loss: float
    lr: float
    images_per_s: float
    eta_s: float
    memory_fill: int | None
    memory_size: int | None
    drift: float | None = None
    losses: dict[str, float] = field(default_factory=dict)  # of a sum, each without its weight

    def line(self) -> str:
        """The console line."""
        minutes, seconds = divmod(round(self.eta_s), 60)
        eta = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
        memory = f", memory: {self.memory_fill}/{self.memory_size}" if self.memory_size else ""
        drift = f", drift: {self.drift:.4f}" if self.drift is not None else ""
        parts = ", ".join(f"{name} {value:.5f}" for name, value in self.losses.items())
        return (
            f"[Train][Epoch {self.epoch}][Iter {self.step}/{self.total}] loss: {self.loss:.5f}"
            f"{f' ({parts})' if parts else ''}, lr: {self.lr:.2e}"
            f"{memory}{drift}, {self.images_per_s:.1f} images/s, eta: {eta}"
        )


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far; a last line that was cut off is left out, and what is no record of ours."""
    path = folder / METRICS
    records: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                break
            if isinstance(record, dict) and record.get("kind") in KINDS and {"step", "epoch"} <= record.keys():
                records.append(record)
    return records


class Recorder:
    """Appends records. A fresh run (`step` 0) starts anew, a resumed one drops what came after its savepoint.

    step, epochs: iterations and evaluations that are done.
    """

    def __init__(
        self, folder: Path, step: int, epochs: int, visualdl: bool, loss_name: str, schedule_name: str
    ) -> None:
        self.path = folder / METRICS
        self.loss_name, self.schedule_name = loss_name, schedule_name
        done = {"train": ("step", step), "eval": ("epoch", epochs)}
        records = read_records(folder)
        kept = [record for record in records if step and _within(record, *done[record["kind"]])]
        if records and not step:
            earlier = folder / EARLIER
            self.path.replace(earlier)
            logger.warning("%s has an earlier training: its metrics are kept as %s", folder, earlier.name)
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.writer = log_writer(folder) if visualdl else None

    def step(self, report: StepReport) -> None:
        """Records an iteration."""
        record = {
            "kind": "train",
            "step": report.step,
            "epoch": report.epoch,
            "loss": report.loss,
            "lr": report.lr,
            "images_per_s": round(report.images_per_s, 1),
        }
        if report.memory_size:
            record["memory_fill"] = report.memory_fill or 0
            record["memory_size"] = report.memory_size
        if report.drift is not None:
            record["drift"] = report.drift
        if report.losses:
            record["losses"] = report.losses
        self._append(record)
        # The tags are those of PaddleClas.
        self._scalar(f"lr({self.schedule_name})", report.lr, report.step)
        self._scalar(f"train_{self.loss_name}", report.loss, report.step)
        self._scalar("train_loss", report.loss, report.step)
        for name, value in report.losses.items():
            self._scalar(f"train_{name}", value, report.step)
        if report.memory_size:
            self._scalar("memory_fill", float(report.memory_fill or 0), report.step)
        if report.drift is not None:
            self._scalar("drift", report.drift, report.step)

    def evaluation(self, epoch: int, step: int, scores: Scores) -> None:
        """Records an evaluation."""
        self._append({"kind": "eval", "step": step, "epoch": epoch, **scores.named})
        self._scalar("eval_acc", next(iter(scores.named.values())), epoch)
        for name, value in scores.named.items():
            self._scalar(f"eval_{name}", value, epoch)

    def close(self) -> None:
        """Flushes what VisualDL holds."""
        if self.writer is not None:
            self.writer.close()

    def _append(self, record: dict[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise write_error(self.path, error) from error

    def _scalar(self, tag: str, value: float, step: int) -> None:
        if self.writer is not None:
            self.writer.add_scalar(tag=tag, step=step, value=value)


def _within(record: dict[str, Any], key: str, limit: int) -> bool:
    return int(record[key]) <= limit


def log_writer(folder: Path) -> Any:
    """VisualDL's writer."""
    try:
        from visualdl import LogWriter
    except ImportError as error:
        raise RuntimeUnavailable(f"Global.use_visualdl {needs('visualdl')}, or use False") from error
    try:
        return LogWriter(logdir=str(folder))
    except OSError as error:
        raise InputError(f"VisualDL cannot write to {folder}: {error}") from error
