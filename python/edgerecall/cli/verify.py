"""`edgerecall verify`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console, progress_bar


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runtime", default="all", show_default=True, help="Comma list, or all that the bundle has.")
@click.option("--threads", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 or bf16.")
def command(bundle: Path, runtime: str, threads: int, precision: str) -> int:
    """Golden images through every runtime of BUNDLE: the sealed tensors first, then the embeddings."""
    from rich.table import Table

    from ..runtimes.bundle import Bundle
    from ..runtimes.model import available_in
    from ..runtimes.predictor import RunOptions
    from ..runtimes.verify import verify_pixels, verify_runtime

    opened = Bundle.open(bundle)
    names = available_in(opened) if runtime == "all" else [name.strip() for name in runtime.split(",")]
    options = RunOptions(threads=threads, precision=precision)
    table = Table(show_edge=False, pad_edge=False)
    for title in ("runtime", "version", "precision", "cosine min", "max error", "allowed", "verdict"):
        table.add_column(title)
    with progress_bar("verifying", len(names) + 1) as advance:
        pixels = verify_pixels(opened)
        table.add_row("preprocessing", "", "", "", "", "", pixels or "ok")
        advance(1)
        verdicts = []
        for name in names:
            verdict = verify_runtime(opened, name, options)
            verdicts.append(verdict)
            info, check = verdict.info, verdict.check
            table.add_row(
                name,
                info.version if info else "-",
                info.precision if info else "-",
                f"{check.min_cosine:.7f}" if check else "-",
                f"{check.max_abs_error:.2e}" if check else "-",
                f"{check.tolerance:.2e}" if check else "-",
                verdict.problem or "ok",
            )
            advance(1)
    console().print(table)
    return 1 if pixels or any(verdict.problem for verdict in verdicts) else 0
