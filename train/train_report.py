"""`train_report.html`: a run's curves and evaluations in one file, without any service."""

from __future__ import annotations

import io
import json
import platform
from pathlib import Path
from typing import Any

from ..runtimes.files import write_text
from ..runtimes.versions import installed_versions
from .config import TrainConfig
from .recorder import read_records

REPORT = "train_report.html"
Records = list[dict[str, Any]]
# title, record kind, names of the curves, logarithmic, what to read in it
PLOTS = (
    ("Loss", "train", ("loss",), True, "The loss of single iterations; it jumps up when the memory starts."),
    ("Recall and mAP", "eval", (), False, "On the evaluation lists, self left out."),
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
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>
 body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1b1f24 }
 h1 { font-size: 1.5rem } h2 { font-size: 1.05rem; margin: 0 }
 .grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1.2rem }
 figure { margin: 0; border: 1px solid #d8dee4; border-radius: 8px; padding: .8rem }
 figure svg { width: 100%; height: auto } figcaption { color: #57606a; font-size: .85rem }
 table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem; text-align: right }
 th { border-bottom: 2px solid #d8dee4 } tr.best td { font-weight: 700 } td:first-child { text-align: left }
 pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; border-radius: 8px; font-size: .8rem }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ summary }}</p>
<div class="grid">
{% for plot in plots %}<figure><h2>{{ plot.title }}</h2>{{ plot.svg }}<figcaption>{{ plot.note }}</figcaption></figure>
{% endfor %}</div>
{% if evaluations %}<h2 style="margin-top:2rem">Evaluations</h2>
<table><tr><th>epoch</th>{% for name in names %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in evaluations %}<tr{% if row.epoch == best %} class="best"{% endif %}><td>{{ row.epoch }}</td>
{% for name in names %}<td>{{ "%.4f"|format(row[name]) if name in row }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
<h2>How it was made</h2>
<pre>{{ command }}
{{ versions }}
{{ config }}</pre>
</body></html>
"""


def write_report(folder: Path, config: TrainConfig, command: str) -> Path:
    """Draws the run in `folder` from its `metrics.jsonl`; returns the page's path."""
    from jinja2 import Environment
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
    loss = config.Loss.Train[0]
    summary = (
        f"{config.Arch.Backbone.name}, {config.Arch.Neck.class_num} dimensions, {loss.name};"
        f" {last['step']} of {config.Global.iterations} iterations."
    )
    page = (
        Environment(autoescape=True)
        .from_string(PAGE)
        .render(
            title=f"Training: {folder.resolve().name}",
            summary=summary,
            plots=plots,
            evaluations=evaluations,
            names=names,
            best=best,
            command=command,
            versions=json.dumps({"python": platform.python_version(), **installed_versions()}),
            config=config.model_dump_json(indent=1, exclude_unset=True),
        )
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
