"""One result, many printers: terminal, Markdown, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .rows import BenchResult, Row

NOTHING = "-"


def _number(digits: int) -> Callable[[Any], str]:
    return lambda value: f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.4f}" if abs(value) >= 5e-5 else "0.0000"


def _floor6(value: float) -> str:
    """Cut and not rounded: 0.9999996 must not read as 1."""
    return f"{int(value * 1e6) / 1e6:.6f}" if value < 1 else "1.000000"


@dataclass(frozen=True)
class Column:
    """A field of Row and how it is printed."""

    field: str
    title: str
    text: Callable[[Any], str] = str

    def cell(self, row: Row) -> str:
        """The printed value."""
        value = getattr(row, self.field)
        return NOTHING if value is None else self.text(value)


COLUMNS = (
    Column("runtime", "runtime"),
    Column("precision", "precision"),
    Column("threads", "threads"),
    Column("size_mb", "size MB", _number(2)),
    Column("load_ms", "load ms", _number(0)),
    Column("first_ms", "first ms", _number(2)),
    Column("latency_p50_ms", "p50 ms", _number(2)),
    Column("latency_p90_ms", "p90 ms", _number(2)),
    Column("latency_p99_ms", "p99 ms", _number(2)),
    Column("images_per_s", "images/s", _number(0)),
    Column("peak_rss_mb", "peak RSS MB", _number(0)),
    Column("cosine_min", "cosine min", _floor6),
    Column("recall1", "recall@1", _number(4)),
    Column("delta_recall1", "delta recall@1", _signed),
    Column("status", "status"),
)


WIDTH = 150


def terminal(result: BenchResult, console: Console) -> None:
    """A table, one row a runtime, or one column a runtime where the terminal is narrow; then the notes."""
    table = Table(show_edge=False, pad_edge=False)
    if console.width >= WIDTH:
        for column in COLUMNS:
            table.add_column(column.title, justify="left" if column.field in ("runtime", "status") else "right")
        for row in result.rows:
            table.add_row(*(column.cell(row) for column in COLUMNS))
    else:
        first, *others = COLUMNS
        table.add_column(first.title)
        for row in result.rows:
            table.add_column(first.cell(row), justify="right")
        for column in others:
            table.add_row(column.title, *(column.cell(row) for row in result.rows))
    console.print(table)
    for line in notes(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def notes(result: BenchResult) -> list[str]:
    """What a reader must know beside the table."""
    lines = [f"{row.runtime}: {row.status}: {row.reason}" for row in result.rows if row.reason]
    asked = result.options["threads"]
    lines += [
        f"{row.runtime}: asked for {asked} threads, runs {row.threads}: not to be compared with rows that run {asked}"
        for row in result.rows
        if row.threads not in (None, asked)
    ]
    if result.problem:
        lines.append(result.problem)
    lines += [f"warning: {warning}" for warning in result.warnings]
    if result.baseline:
        lines.append(
            f"cosine: golden images against the training framework, {result.images} images against"
            f" {result.baseline}; delta recall@1 against {result.baseline}"
        )
    if not result.labelled:
        lines.append("no labels (no test_list.txt in the folder): recall is not measured")
    if result.bad_images:
        lines.append(f"{len(result.bad_images)} bad images left out, the first: {result.bad_images[0]}")
    return lines


def markdown(result: BenchResult) -> str:
    """A report to paste: the table, its notes, machine, versions, command."""
    lines = ["# EdgeRecall bench", ""]
    lines.append("| " + " | ".join(column.title for column in COLUMNS) + " |")
    lines.append("|" + "|".join("---" if c.field in ("runtime", "status") else "---:" for c in COLUMNS) + "|")
    for row in result.rows:
        lines.append("| " + " | ".join(column.cell(row) for column in COLUMNS) + " |")
    lines += ["", *(f"- {line}" for line in notes(result)), ""]
    machine = result.machine
    lines.append(
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']},"
        f" load {machine['load_1min']} before the run."
    )
    options = result.options
    lines.append(
        f"Asked for: {options['threads']} thread(s), {options['precision']}, batch {options['batch']},"
        f" {options['samples']} samples in {options['rounds']} interleaved rounds."
    )
    lines.append("Versions: " + ", ".join(f"{name} {text}" for name, text in result.packages.items()) + ".")
    lines.append(f"Command: `{result.command}`")
    return "\n".join(lines) + "\n"


def as_csv(result: BenchResult) -> str:
    """All scalar fields of every row."""
    fields = [name for name in asdict(Row("")) if name not in ("samples_ns", "detail")]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in result.rows)
    return text.getvalue()


def as_json(result: BenchResult) -> str:
    """Everything, raw samples included."""
    return json.dumps({"schema": 1, **asdict(result)}, indent=1) + "\n"
