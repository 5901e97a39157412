"""`edgerecall verify`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console, progress_bar


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runtime", default="all", show_default=True, help="Comma list; all: what the bundle has, on the CPU.")
@click.option("--threads", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="How runtimes compute: fp32, tf32, fp16 or bf16.")
def command(bundle: Path, runtime: str, threads: int, precision: str) -> int:
    """Golden images through every runtime of BUNDLE: the sealed tensors first, then the embeddings of each artifact.

    What could not be made for this machine when the bundle was exported is listed, and is no failure."""
    from rich.table import Table

    from ..bench.schema.options import names_in, parse_names
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.bundle.manifest import host_target, machine_names
    from ..runtimes.core.errors import BundleError
    from ..runtimes.embed.verify import verify_all, verify_pixels
    from ..runtimes.predictor.interface import RunOptions
    from ..runtimes.predictor.registry import backend

    opened = Bundle.open(bundle)
    opened.check()
    if not opened.manifest.artifacts:
        raise BundleError(f"{bundle}: expected artifacts, it has none: export it again")
    names, every = parse_names(runtime, opened.runtimes()), "all" in names_in(runtime)
    options = RunOptions(threads=threads, precision=precision)
    reasons: dict[str, str] = {}
    for one in opened.manifest.skipped if every else ():
        reasons.setdefault(one.runtime, one.reason)
    not_made = {
        name: reasons[backend(name).artifacts]
        for name in names
        if backend(name).artifacts in reasons and not opened.artifacts_for(name)
    }
    names = tuple(name for name in names if name not in not_made)
    table = Table(show_edge=False, pad_edge=False)
    for title in ("runtime", "artifact", "version", "runs", "cosine min", "max error", "allowed", "verdict"):
        table.add_column(title)
    failed = False
    with progress_bar("verifying", len(names) + 1) as advance:
        pixels = verify_pixels(opened)
        table.add_row("preprocessing", "", "", "", "", "", "", pixels or "ok")
        advance(1)
        for name in names:
            for verdict in verify_all(opened, [name], options):
                info, check, told = verdict.info, verdict.check, verdict.problem or "ok"
                if every and verdict.unavailable and opened.artifact(name, quantisation=verdict.quantisation).unchecked:
                    told = f"unchecked: {told}"  # as it was sealed: for machines that have the runtime
                else:
                    failed = failed or verdict.problem is not None
                table.add_row(
                    name,
                    verdict.quantisation,
                    info.version if info else "-",
                    info.precision if info else "-",
                    f"{check.min_cosine:.7f}" if check else "-",
                    f"{check.max_abs_error:.2e}" if check else "-",
                    f"{check.tolerance:.2e}" if check else "-",
                    told,
                )
            advance(1)
    for artifact in opened.manifest.artifacts if runtime == "all" else ():
        if not artifact.runs_on(*machine_names(host_target())):
            told = f"unchecked: it runs on {', '.join(artifact.targets)}"
            table.add_row(artifact.runtime, artifact.name, "-", "-", "-", "-", "-", told)
    for name, reason in not_made.items():
        table.add_row(name, "-", "-", "-", "-", "-", "-", f"not in the bundle: {reason}")
    console().print(table)
    return 1 if pixels or failed else 0
