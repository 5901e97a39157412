"""`train_report.html`: a run's curves and evaluations in one file, without any service."""

from __future__ import annotations

import io
import json
import platform
from pathlib import Path
from typing import Any

from ...runtimes.core.files import write_text
from ...runtimes.core.pages import render
from ...runtimes.predictor.registry import tool_versions
from ..config.training import TrainConfig
from .recorder import read_records

REPORT = "train_report.html"
Records = list[dict[str, Any]]
# title, record kind, names of the curves, logarithmic, what to read in it
PLOTS = (
    ("Loss", "train", ("loss",), True, "The loss of single iterations; it jumps up when the memory starts."),
    ("Evaluation", "eval", (), False, "On the evaluation lists; an image never finds itself."),
    ("Learning rate", "train", ("lr",), True, ""),
    ("Memory", "train", ("memory_fill",), False, "Embeddings held, of the most that fit."),
    (
        "Feature drift",
        "train",
        ("drift",),
        True,
        "Mean squared distance that the embeddings of the same images moved since the point before. A memory pays"
        " where this is small over the time an embedding stays in it.",
    ),
    ("Images per second", "train", ("images_per_s",), False, ""),
)


def write_report(folder: Path, config: TrainConfig, command: str) -> Path:
    """Draws the run in `folder` from its `metrics.jsonl`; returns the page's path."""
    from markupsafe import Markup

    records = read_records(folder)
    evaluations = [record for record in records if record["kind"] == "eval"]
    names = [name for name in (evaluations[-1] if evaluations else {}) if name not in ("kind", "step", "epoch")]
    best = max(evaluations, key=lambda row: float(row.get(names[0], -1)))["epoch"] if evaluations else None
    plots = [
        {"title": title, "svg": Markup(svg), "note": note}
        for title, kind, curves, log, note in PLOTS
        if (svg := draw([r for r in records if r["kind"] == kind], curves or tuple(names), log))
    ]
    last = records[-1] if records else {"step": 0}
    neck = config.Arch.Neck
    summary = (
        f"{config.Arch.Backbone.name}, {f'{neck.outputs} dimensions' if neck else 'its features'}, {config.Loss.name};"
        f" {last['step']} of {config.Global.iterations} iterations."
    )
    page = render(
        __file__,
        "train_report.html.j2",
        title=f"Training: {folder.resolve().name}",
        summary=summary,
        plots=plots,
        evaluations=evaluations,
        names=names,
        best=best,
        command=command,
        versions=json.dumps({"python": platform.python_version(), **tool_versions()}),
        config=config.model_dump_json(indent=1, exclude_unset=True),
    )
    path = folder / REPORT
    write_text(path, page)
    return path


def draw(records: Records, names: tuple[str, ...], log: bool) -> str | None:
    """Curves over iterations as SVG; None when no record has any."""
    series = {name: [(r["step"], r[name]) for r in records if name in r] for name in names}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return None
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for name, points in series.items():
        axes.plot(*zip(*points, strict=True), label=name, marker="o" if len(points) < 30 else None, markersize=3)
    if log and all(value > 0 for points in series.values() for _, value in points):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axes.legend(frameon=False)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
