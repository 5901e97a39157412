"""One result, many printers: terminal, Markdown, CSV, JSON, JSON lines; `html_report` draws the page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from ..schema.recommendation import verdict
from ..schema.rows import BenchResult, Row

NOTHING = "-"
SHOWN = 5e-5  # smaller changes are zero in four digits
Value = Callable[[Row], Any]


def _number(digits: int) -> Callable[[Any], str]:
    return lambda value: f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.4f}" if abs(value) >= SHOWN else "0.0000"


def floor6(value: float) -> str:
    """Cut and not rounded: 0.9999996 must not read as 1."""
    return f"{int(value * 1e6) / 1e6:.6f}" if value < 1 else "1.000000"


def lowest_cosine(row: Row) -> float | None:
    """The lower of the golden images' against the sealed embeddings and all images' against the baseline."""
    return min((c for c in (row.golden_cosine_min, row.cosine_min) if c is not None), default=None)


def shown_change(figure: str) -> Value:
    """The change of a figure with its interval."""

    def text(row: Row) -> str | None:
        change = row.change(figure)
        if change is None or change.low is None or change.high is None:
            return None
        if max(-change.low, change.high) < SHOWN:
            return "0.0000"
        return f"{_signed(change.value)} ({_signed(change.low)} to {_signed(change.high)})"

    return text


def shown_precision(row: Row) -> str | None:
    """The precision, with a mark where no record of the runtime's vouches for it."""
    return row.precision if row.precision is None or row.precision_source else f"{row.precision}*"


@dataclass(frozen=True)
class Column:
    """A value of Row and how it is printed. left: how it is aligned. timed: whether the machine decides it."""

    title: str
    value: Value
    text: Callable[[Any], str] = str
    left: bool = False
    timed: bool = False

    def cell(self, row: Row) -> str:
        """The printed value; in brackets where it was timed on an emulated machine."""
        value = self.value(row)
        if value is None:
            return NOTHING
        return f"({self.text(value)})" if self.timed and row.emulated else self.text(value)


# Accuracy stands before speed: on a narrow page or terminal, the last columns are the first to be out of sight.
COLUMNS = (
    Column("row", lambda row: row.name, left=True),
    Column("status", lambda row: row.status, left=True),
    Column("recall@1", lambda row: row.recall1, _number(4)),
    Column("chance", lambda row: row.recall1_chance, _number(4)),
    Column("delta recall@1", shown_change("recall1")),
    Column("mixed gallery", shown_change("mixed1")),
    Column("cosine min", lowest_cosine, floor6),
    Column("quantisation", lambda row: row.quantisation),
    Column("precision", shown_precision),
    Column("threads", lambda row: row.threads),
    Column("size MB", lambda row: row.size_mb, _number(2)),
    Column("load ms", lambda row: row.load_ms, _number(0), timed=True),
    Column("first ms", lambda row: row.first_ms, _number(2), timed=True),
    Column("p50 ms", lambda row: row.latency_p50_ms, _number(2), timed=True),
    Column("p90 ms", lambda row: row.latency_p90_ms, _number(2), timed=True),
    Column("p99 ms", lambda row: row.latency_p99_ms, _number(2), timed=True),
    Column("images/s", lambda row: row.images_per_s, _number(0), timed=True),
    Column("peak RSS MB", lambda row: row.peak_rss_mb, _number(0), timed=True),
)
WIDTH = 150


def terminal(result: BenchResult, console: Console) -> None:
    """A table, one line a row, or one column a row where the terminal is narrow; then the notes."""
    table = Table(show_edge=False, pad_edge=False)
    if console.width >= WIDTH:
        for column in COLUMNS:
            table.add_column(column.title, justify="left" if column.left else "right")
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
    lines = [f"{row.name}: {row.status}: {row.reason}" for row in result.rows if row.reason]
    for row in result.rows:
        if row.recipe:
            decided = "; ".join(one.text for one in row.verdicts)
            lines.append(f"{row.name}: {row.recipe}" + (f": {decided}" if decided else ""))
    lines += [f"{row.name}: not to be shipped: {row.meaningless}" for row in result.rows if row.meaningless]
    lines += [f"{row.name}: warning: {text}" for row in result.rows for text in row.warnings if text != row.reason]
    if result.problem:
        lines.append(result.problem)
    lines += [f"warning: {warning}" for warning in result.warnings]
    emulated = dict.fromkeys(row.device for row in result.rows if row.emulated)
    lines += [f"{name} is emulated: believe its embeddings, not the figures in brackets" for name in emulated]
    lines += [speed.text for speed in result.speeds]
    lines += [f"{row.name}: {gpu_line(row)}" for row in result.rows if row.gpu]
    lines += [scenario_line(row, index) for row in result.rows for index in range(len(row.scenarios))]
    if result.baseline:
        lines.append(
            f"cosine: golden images against the sealed embeddings, {result.images} images against"
            f" {result.baseline}; delta recall@1, with its 95 % interval, against {result.baseline}; mixed gallery:"
            " that of the row's queries in its gallery"
        )
    unproven = [row.name for row in result.rows if row.measured and row.precision and not row.precision_source]
    if unproven:
        lines.append(f"*: {', '.join(unproven)}: what ran is not recorded there; the precision is as configured")
    if not result.labelled and not any("recall is not measured" in warning for warning in result.warnings):
        lines.append("no labels (no test_list.txt in the folder): recall is not measured")
    if result.bad_images:
        lines.append(f"{len(result.bad_images)} bad images left out, the first: {result.bad_images[0]}")
    lines.append(verdict(result))
    return lines


def gpu_line(row: Row) -> str:
    """The GPU that computed a row."""
    parts = [
        (row.gpu_compute_ms, "{:.3f} ms on the GPU itself"),
        (row.gpu_memory_mb, "{:,.0f} MB of its memory"),
        (row.gpu_clock_mhz, "{:.0f} MHz"),
    ]
    told = [text.format(value) for value, text in parts if value is not None]
    return ", ".join([f"on {row.gpu}, driver {row.gpu_driver}", *told])


def scenario_line(row: Row, index: int) -> str:
    """One LoadGen scenario."""
    found = row.scenarios[index]
    says = "VALID" if found.valid else "INVALID"
    log = found.log
    return (
        f"{row.name}: LoadGen {found.name}: {says}, {log['metric']} {log['value']:.4g} {log['unit']}"
        f" (p50 {found.latency_p50_ms:.3f}, p90 {found.latency_p90_ms:.3f}, p99 {found.latency_p99_ms:.3f} ms,"
        f" {found.queries} queries)"
    )


def machine_line(result: BenchResult) -> str:
    """The machine, in a sentence."""
    machine = result.machine
    limits = f", limited to {machine['cpu_quota']:g} cores" if machine["cpu_quota"] else ""
    governor = machine["governor"] or "governor not told"
    return (
        f"{machine['cpu']}, {machine['cores']} cores{limits}, {machine['memory_gib']} GiB, {machine['system']},"
        f" {governor}, load {machine['load_1min']} before the run"
    )


def options_line(result: BenchResult) -> str:
    """What was asked for, in a sentence."""
    options = result.options
    axes = ", ".join(
        f"{name} {'/'.join(str(value) for value in options[name])}" for name in ("precision", "threads", "batch")
    )
    pinned = "pinned to their own CPUs" if options["pin"] or options["cpus"] else "not pinned"
    return (
        f"{axes}; stage {options['stage']}; at most {options['samples']} samples in {options['rounds']} interleaved"
        f" rounds and {options['seconds']:g} s a row; workers {pinned}"
    )


def markdown(result: BenchResult) -> str:
    """A report to paste: the table, its notes, machine, versions, command."""
    lines = ["# EdgeRecall bench", ""]
    lines.append("| " + " | ".join(column.title for column in COLUMNS) + " |")
    lines.append("|" + "|".join("---" if column.left else "---:" for column in COLUMNS) + "|")
    for row in result.rows:
        lines.append("| " + " | ".join(column.cell(row).replace("|", "\\|") for column in COLUMNS) + " |")
    lines += ["", *(f"- {line}" for line in notes(result)), ""]
    lines.append(f"Machine: {machine_line(result)}.")
    lines.append(f"Asked for: {options_line(result)}.")
    lines.append("Versions: " + ", ".join(f"{name} {text}" for name, text in result.packages.items()) + ".")
    lines.append(f"Command: `{result.command}`")
    return "\n".join(lines) + "\n"


LONG = (
    "samples_ns",
    "hits",
    "average_precisions",
    "round_medians_ns",
    "operators",
    "detail",
    "scenarios",
    "stages_ms",
    "verdicts",
    "warnings",
)


def as_csv(result: BenchResult) -> str:
    """All scalar fields of every row, its stages, and its warnings in one."""
    fields = [name for name in asdict(Row("")) if name not in LONG]
    stages = list(dict.fromkeys(name for row in result.rows for name in row.stages_ms))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*fields, *(f"{name}_ms" for name in stages), "warnings"])
    for row in result.rows:
        values = [getattr(row, name) for name in fields]
        writer.writerow([*values, *(row.stages_ms.get(name) for name in stages), "; ".join(row.warnings)])
    return text.getvalue()


def as_json_lines(result: BenchResult) -> str:
    """A line a row, each with what its figures depend on."""
    whole = asdict(result)
    context = {name: whole[name] for name in ("schema", "command", "bundle", "machine", "packages", "baseline")}
    return "".join(json.dumps({**row, "run": context}) + "\n" for row in whole["rows"])
