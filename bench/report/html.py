"""`report.html`: a result on one page that loads nothing, in light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtimes.core.pages import render
from ..retrieval.failure_report import data_uri, thumbnail
from ..schema.recommendation import verdict
from ..schema.rows import BenchResult, CrossRecall
from .plots import SERIES, latency_plot, pareto_plot, stage_plot
from .tables import COLUMNS, floor6, machine_line, notes, options_line

DARK_SERIES = ("#58a6ff", "#ff9f5a", "#56d364", "#bc8cff", "#f778ba", "#39c5cf", "#d4b106", "#9aa4ae")


def html_report(result: BenchResult) -> str:
    """The whole page. Images that are gone by now are shown empty."""
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
    return render(
        __file__,
        "bench.html.j2",
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
