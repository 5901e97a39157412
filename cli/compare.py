"""`edgerecall compare`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console

FILE = click.Path(path_type=Path)


def share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """`5%` or `0.05`."""
    text = value.strip()
    try:
        found = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 100:
        raise click.BadParameter(f"expected a share such as 5% or 0.05, got '{value}'")
    return found


@click.command()
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@click.option("--fail-above", callback=share, default="5%", show_default=True, help="Of p50, peak memory and size.")
@click.option("--force", is_flag=True, help="Compare although machine, threads, precision or data differ.")
@click.option("--strict", is_flag=True, help="Exit code 3 where nothing fails but something cannot be told.")
def command(old: Path, new: Path, fail_above: float, force: bool, strict: bool) -> int:
    """Two results of 'bench --json': exit code 1 when a row of NEW is slower, larger, less right or gone.

    A p50 fails when its rounds say that it surely rose by more, recall@1 and mAP when their queries say that they
    surely fell by more; where these cannot tell, it is said."""
    from rich.table import Table

    from ..bench.report.compare import compare_results, describe
    from ..bench.schema.rows import read_result
    from ..runtimes.core.errors import InputError

    found = compare_results(read_result(old), read_result(new), fail_above)
    if found.differences and not force:
        more = f" (and {len(found.differences) - 1} more)" if len(found.differences) > 1 else ""
        raise InputError(
            f"not comparable: {found.differences[0]}{more}; repeat one run as the other was made, or use --force"
        )
    table = Table(show_edge=False, pad_edge=False)
    for title in ("row", "figure", "old -> new", "verdict"):
        table.add_column(title)
    for change in found.changes:
        table.add_row(change.row, change.figure, describe(change), change.verdict)
    target = console()
    target.print(table)
    for line in (*(f"differs: {line}" for line in found.differences), *(f"failed: {line}" for line in found.failures)):
        target.print(line, soft_wrap=True)
    return 1 if found.failures else 3 if strict and found.doubts else 0
