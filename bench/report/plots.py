"""The report's plots, as SVG that takes its colours from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..measure.stages import NAMES
from ..schema.recommendation import per_image_ms
from ..schema.rows import BenchResult, Row

# Stand-ins that matplotlib draws with, and the page's variables that replace them.
INK, GRID = "#010203", "#040506"
SERIES = ("#1f6feb", "#bf5700", "#1a7f37", "#8250df", "#b3207a", "#008b8b", "#7d6608", "#57606a")
VARIABLES = {INK: "var(--ink)", GRID: "var(--line)", **{c: f"var(--s{i})" for i, c in enumerate(SERIES)}}


def colour(index: int) -> str:
    """The colour of a row or stage."""
    return SERIES[index % len(SERIES)]


def figure(height: float) -> tuple[Any, Any]:
    """A matplotlib figure and its axes, in the page's stand-in colours; not registered with pyplot."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": GRID,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "svg.fonttype": "none",
        "svg.hashsalt": "edgerecall",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        drawn = Figure(figsize=(5.4, height), layout="constrained")
        axes = drawn.add_subplot()
    axes.grid(True, linewidth=0.6)
    axes.set_axisbelow(True)
    return drawn, axes


def to_svg(drawn: Any) -> str:
    """Inline SVG without a background, its colours the page's."""
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgerecall"}):
        drawn.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:width|height)="[^"]*pt"', "", svg, count=2)
    for stand_in, variable in VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    return svg


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Rows that no other beats both in time and in what retrieval keeps, fastest first."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (per_image_ms(row), -quality(row))):
        if not front or quality(row) > quality(front[-1]):
            front.append(row)
    return front


def quality(row: Row) -> float:
    """recall@1; without labels the lowest cosine to the baseline."""
    return next((value for value in (row.recall1, row.cosine_min) if value is not None), 0.0)


def pareto_plot(result: BenchResult, rows: Sequence[Row]) -> str:
    """Time of an image against recall@1, with the front."""
    drawn, axes = figure(3.4)
    front = pareto(rows)
    axes.plot([per_image_ms(row) for row in front], [quality(row) for row in front], color=GRID, zorder=1)
    for index, row in enumerate(rows):
        at = (per_image_ms(row), quality(row))
        low, high = (row.delta_recall1_low, row.delta_recall1_high)
        if row.recall1 is not None and low is not None and high is not None and row.delta_recall1 is not None:
            base = row.recall1 - row.delta_recall1
            axes.plot([at[0]] * 2, [base + low, base + high], color=colour(index), linewidth=1.2)
        marker = "o" if row.status == "ok" else "X"
        axes.scatter(*at, color=colour(index), marker=marker, s=55, zorder=3, label=row.name)
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.25)
    plain_ticks(axes)
    axes.set_xlabel("ms per image (p50)")
    axes.set_ylabel("recall@1" if result.labelled else "lowest cosine")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="best")
    return to_svg(drawn)


def plain_ticks(axes: Any) -> None:
    """Numbers on a logarithmic axis as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def latency_plot(rows: Sequence[Row]) -> str:
    """Every row's samples: the box holds the middle half, the whiskers 1 % to 99 %."""
    drawn, axes = figure(1.1 + 0.42 * len(rows))
    boxes = axes.boxplot(
        [np.asarray(row.samples_ns) / 1e6 for row in rows],
        orientation="horizontal",
        whis=(1, 99),
        widths=0.55,
        patch_artist=True,
        flierprops={"marker": ".", "markersize": 2.5, "markeredgecolor": INK, "alpha": 0.5},
        tick_labels=[row.name for row in rows],
    )
    for index, box in enumerate(boxes["boxes"]):
        box.set(facecolor=colour(index), edgecolor=colour(index), alpha=0.75)
    for line in (*boxes["whiskers"], *boxes["caps"], *boxes["medians"]):
        line.set(color=INK)
    axes.invert_yaxis()
    axes.set_xscale("log")
    plain_ticks(axes)
    axes.set_xlabel("ms per batch")
    return to_svg(drawn)


def stage_plot(rows: Sequence[Row]) -> str:
    """The median of each stage, stacked."""
    drawn, axes = figure(1.5 + 0.42 * len(rows))
    left = np.zeros(len(rows))
    for index, stage in enumerate(NAMES):
        widths = np.array([row.stages_ms.get(stage, 0.0) for row in rows])
        axes.barh([row.name for row in rows], widths, left=left, color=colour(index), label=stage, height=0.6)
        left += widths
    axes.invert_yaxis()
    axes.set_xlabel("ms per batch")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    return to_svg(drawn)
