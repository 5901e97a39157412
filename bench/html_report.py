"""`report.html`: a result on one page that loads nothing, in light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .failure_report import data_uri, thumbnail
from .plots import SERIES, latency_plot, pareto_plot, stage_plot
from .report import COLUMNS, floor6, machine_line, notes, options_line
from .rows import BenchResult, CrossRecall
from .speeds import verdict

DARK_SERIES = ("#58a6ff", "#ff9f5a", "#56d364", "#bc8cff", "#f778ba", "#39c5cf", "#d4b106", "#9aa4ae")
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>EdgeRecall bench: {{ result.bundle }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
 :root { --paper: #ffffff; --card: #f6f8fa; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --bad: #cf222e;
  --good: #1a7f37; {% for c in light %}--s{{ loop.index0 }}: {{ c }}; {% endfor %} }
 @media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --card: #161b22; --ink: #e6edf3; --soft: #9aa4ae;
  --line: #3d444d; --bad: #ff7b72; --good: #56d364; {% for c in dark %}--s{{ loop.index0 }}: {{ c }}; {% endfor %} } }
 * { box-sizing: border-box }
 body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1260px; padding: 1.2rem 1rem 3rem;
  color: var(--ink); background: var(--paper) }
 h1 { font-size: 1.4rem; margin: .2rem 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
 .verdict { font-size: 1.05rem; border-left: 4px solid var({{ "--good" if result.exit_code == 0 else "--bad" }});
  padding: .3rem .8rem; background: var(--card) }
 .soft, figcaption { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere }
 .wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem }
 td, th { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line) }
 td:first-child, th:first-child, .left { text-align: left }
 tr.bad td:nth-child(2) { color: var(--bad); font-weight: 600 }
 .rows th { white-space: normal; vertical-align: bottom } .rows td, .rows th { padding: .3rem .45rem }
 @media (max-width: 600px) { .rows td:first-child { white-space: normal; min-width: 6rem; overflow-wrap: anywhere }
  .rows td:nth-child(4) { white-space: normal; min-width: 5.4rem } .rows td, .rows th { padding: .3rem } }
 .grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)) }
 figure { margin: 0; background: var(--card); border-radius: 8px; padding: .8rem; min-width: 0 }
 figure svg { width: 100%; height: auto; display: block } figure h2 { margin-top: 0 }
 svg text { font-family: system-ui, sans-serif !important }
 .pairs { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)) }
 .pair { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; background: var(--card); padding: .6rem;
  border-radius: 8px } .pair p { grid-column: 1 / -1; margin: 0 } .pair img { width: 100%; border-radius: 4px }
 .pair div { min-width: 0 } li { overflow-wrap: anywhere } .matrix td { min-width: 5rem }
 pre { background: var(--card); padding: .8rem; overflow-x: auto; border-radius: 8px; font-size: .8rem }
</style></head><body>
<h1>EdgeRecall bench</h1>
<p class="soft">{{ result.bundle }}: {{ result.images }} images, {{ result.rows|length }} rows</p>
<p class="verdict">{{ verdict }}</p>
<div class="wide"><table class="rows"><tr>{% for column in columns -%}
<th{% if column.left %} class="left"{% endif %}>{{ column.title }}</th>{% endfor %}</tr>
{% for row in result.rows %}<tr{% if row.status != "ok" %} class="bad"{% endif %}>{% for column in columns -%}
<td{% if column.left %} class="left"{% endif %}>{{ column.cell(row) }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<div class="grid">{% for plot in plots %}<figure><h2>{{ plot.title }}</h2>{{ plot.svg }}
<figcaption>{{ plot.note }}</figcaption></figure>{% endfor %}</div>
{% if matrix %}<h2>Across runtimes: recall@1</h2>
<p class="soft">Queries embedded by the row, gallery by the column; an image never finds itself. Red: below the diagonal
of its column.</p>
<div class="wide"><table class="matrix"><tr><th>query \\ gallery</th>{% for name in matrix.names %}<th>{{ name }}</th>
{% endfor %}</tr>{% for line in matrix.lines %}<tr><td>{{ line.name }}</td>{% for cell in line.cells %}
<td{% if cell.worse %} style="color: var(--bad)"{% endif %}>{{ cell.text }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
{% endif %}
{% if pairs %}<h2>Where {{ pairs[0].row }} differs most from {{ result.baseline }}</h2>
<p class="soft">An image, its nearest neighbour by the baseline, and its nearest neighbour by the row.</p>
<div class="pairs">{% for pair in pairs %}<div class="pair"><p class="soft">cosine {{ pair.cosine }},
{{ "another neighbour" if pair.changed else "the same neighbour" }}</p>
{% for cell in pair.cells %}<div><img alt="{{ cell.path }}" src="{{ cell.source }}"><span class="soft">{{ cell.title }}
<br>{{ cell.path }}</span></div>{% endfor %}</div>{% endfor %}</div>{% endif %}
<h2>What ran</h2>
<div class="wide"><table><tr><th>row</th><th>version</th><th>precision known from</th><th>operators</th>
<th>threads seen</th><th>cores used</th><th>CPUs</th><th>warm-up</th><th>MAD ms</th><th>model sha256</th></tr>
{% for row in result.rows if row.measured %}<tr><td>{{ row.name }}</td><td>{{ row.version }}</td>
<td>{{ row.precision_source or "its configuration" }}</td><td>{{ row.operators.values()|sum }}</td>
<td>{{ row.busy_threads }}</td><td>{{ "%.2f"|format(row.cores_used or 0) }}</td><td>{{ row.cpus }}</td>
<td>{{ row.warmup_runs }}</td><td>{{ "%.4f"|format(row.latency_mad_ms or 0) }}</td>
<td>{{ (row.model_sha256 or "")[:12] }}</td></tr>{% endfor %}</table></div>
<h2>How it was measured</h2>
<p>{{ machine }}.</p><p>{{ options }}.</p>
<p class="soft">{% for name, version in result.packages.items() %}{{ name }} {{ version }}{{ ", " if not loop.last }}
{% endfor %}</p><pre>{{ result.command }}</pre>
</body></html>
"""


def html_report(result: BenchResult) -> str:
    """The whole page. Images that are gone by now are shown empty."""
    from jinja2 import Environment
    from markupsafe import Markup

    rows = [row for row in result.rows if row.measured and row.samples_ns and not row.emulated]
    plots = []
    if rows:
        drawn = (
            ("What it costs and what it keeps", pareto_plot(result, rows), PARETO_NOTE),
            ("Latency", latency_plot(rows), "Boxes: the middle half; whiskers: 1 % to 99 %; dots: beyond."),
            ("Stages", stage_plot([row for row in rows if row.stages_ms]), "Medians over real images, one batch."),
        )
        plots = [{"title": title, "svg": Markup(svg), "note": note} for title, svg, note in drawn]
    return (
        Environment(autoescape=True, trim_blocks=True)
        .from_string(PAGE)
        .render(
            result=result,
            verdict=verdict(result),
            columns=COLUMNS,
            notes=notes(result)[:-1],
            plots=plots,
            matrix=matrix(result.cross_recall),
            pairs=[pair_cells(pair) for pair in result.worst_pairs],
            machine=machine_line(result),
            options=options_line(result),
            light=SERIES,
            dark=DARK_SERIES,
        )
    )


PARETO_NOTE = (
    "Left and up is better; the line joins the rows that no other beats. Bars: the 95 % interval of the change of"
    " recall@1. Crosses: rows that broke a gate."
)


def matrix(cross: CrossRecall | None) -> dict[str, Any] | None:
    """The cross-runtime table for the page."""
    if cross is None:
        return None
    lines = [
        {
            "name": name,
            "cells": [
                {"text": f"{value:.4f}", "worse": value < cross.recall1[column][column] - 5e-5}
                for column, value in enumerate(line)
            ],
        }
        for name, line in zip(cross.names, cross.recall1, strict=True)
    ]
    return {"names": cross.names, "lines": lines}


def pair_cells(pair: Any) -> dict[str, Any]:
    """One image with its two neighbours."""
    titles = (("image", pair.image), ("baseline", pair.baseline_neighbour), (pair.row, pair.row_neighbour))
    cells = [
        {"title": title, "path": "/".join(Path(path).parts[-2:]), "source": data_uri(thumbnail(Path(path)))}
        for title, path in titles
    ]
    changed = pair.baseline_neighbour != pair.row_neighbour
    return {"row": pair.row, "cosine": floor6(pair.cosine), "changed": changed, "cells": cells}
