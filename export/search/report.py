"""A race in a table, and what of it the manifest keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ...bench.measure.image_set import ImageSet
from ...bench.schema.statistics import Interval
from .entries import SHOWN, Choice, Entry, front
from .race import Race

NOTHING = "-"


def changed(change: Interval | None) -> str:
    """A change with its interval."""
    if change is None:
        return NOTHING
    if change.low is None or change.high is None:
        return f"{change.value:+.4f}"
    return f"{change.value:+.4f} ({change.low:+.4f} to {change.high:+.4f})"


def sped(speed: Interval | None) -> str:
    """A speed with its interval."""
    if speed is None:
        return NOTHING
    if speed.low is None or speed.high is None or speed.low == speed.high:
        return f"{speed.value:.2f}"
    return f"{speed.value:.2f} ({speed.low:.2f} to {speed.high:.2f})"


COLUMNS = ("runtime", "recipe", "gates", "speed", "p50 ms", "size MB", "recall@1", "mAP")


def cells(one: Entry) -> list[str]:
    """The values of an entry under `COLUMNS` and the changes, those of recall without their intervals."""
    figures = ((one.p50_ms, ".2f"), (one.size_mb, ".2f"), (one.recall1, ".4f"), (one.mean_ap, ".4f"))
    numbers = [NOTHING if value is None else f"{value:{form}}" for value, form in figures]
    standing = NOTHING if one.standing == "none" else one.standing
    changes = [one.changes.get(key) for key in SHOWN]
    recall = [NOTHING if change is None else f"{change.value:+.4f}" for change in changes[:2]]
    return [one.runtime, one.name, standing, sped(one.speed), *numbers, *recall, *map(changed, changes[2:])]


def print_race(race: Race, chosen: Sequence[Choice], target: Console) -> None:
    """The table, fastest first within a runtime, and a sentence for each artifact."""
    best = front(race.entries)
    table = Table(show_edge=False, pad_edge=False)
    for title in ("", *COLUMNS, *(f"+- {name}" for name in SHOWN.values())):
        table.add_column(title, justify="left" if title in ("", *COLUMNS[:3]) else "right")
    order = sorted(race.entries, key=lambda one: (one.runtime, -one.times))
    won = [choice.entry for choice in chosen]
    for one in order:
        mark = "ship" if one in won else "*" if one in best else ""
        table.add_row(mark, *cells(one))
    target.print(table)
    for one in order:
        if one.reason and one.standing in ("none", "fails"):
            target.print(f"{one.runtime}, {one.name}: {one.reason}", soft_wrap=True)
    if race.left:
        target.print(f"not raced for want of time: {', '.join(race.left)}", soft_wrap=True)
    target.print(
        "*: on the Pareto front of its runtime: none of its others is as fast and loses as little; speed: times the"
        " runtime's float32, in the same interleaved rounds; +-: change against float32, of mAP with its 95 % interval,"
        " clustered by class; mixed: the row's queries in the float32 gallery",
        soft_wrap=True,
    )
    for choice in chosen:
        target.print(f"{choice.artifact}: {'ship' if choice.entry else 'left out'}: {choice.sentence}", soft_wrap=True)


def summary(race: Race, chosen: Sequence[Choice], images: ImageSet, machine: dict[str, Any]) -> dict[str, Any]:
    """What was raced and on what, for the manifest and --json."""
    return {
        "images": len(images.paths),
        "images_sha256": images.sha256(range(len(images.paths)), True),
        "gates": {
            "max_recall_drop": race.options.gates.max_recall_drop,
            "max_map_drop": race.options.gates.max_map_drop,
        },
        "machine": machine["cpu"],
        "threads": race.options.threads,
        "raced": [
            f"{one.runtime}, {one.line}" + ("" if one.standing == "none" else f"; {one.standing}")
            for one in race.entries
        ],
        "not_raced": race.left,
        "chosen": {choice.artifact: choice.sentence for choice in chosen},
    }
