"""`edgerecall bench`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import command_line, console


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--images", "folder", required=True, type=click.Path(path_type=Path), help="Folder; its test_list.txt gives labels."
)
@click.option(
    "--list", "list_file", type=click.Path(path_type=Path), help="Another list, paths relative to the folder."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images.")
@click.option("--runtime", default="all", show_default=True, help="Comma list of paddle, onnxruntime, openvino, lite.")
@click.option("--threads", default=1, show_default=True)
@click.option("--precision", default="fp32", show_default=True, help="fp32, fp16 or bf16.")
@click.option("--batch", default=1, show_default=True)
@click.option("--samples", default=100, show_default=True, help="Timed inferences per row.")
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds they are spread over.")
@click.option(
    "--timeout",
    "timeout_s",
    default=300.0,
    type=click.FloatRange(0.1, 86400.0),
    show_default=True,
    help="Seconds for one answer of a worker.",
)
@click.option("--min-cosine", default=0.999, show_default=True)
@click.option("--max-recall-drop", default=0.002, show_default=True, help="Of recall@1, from 0 to 1.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="All figures with raw samples.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path))
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path))
def command(
    bundle: Path,
    folder: Path,
    list_file: Path | None,
    limit: int | None,
    runtime: str,
    threads: int,
    precision: str,
    batch: int,
    samples: int,
    rounds: int,
    timeout_s: float,
    min_cosine: float,
    max_recall_drop: float,
    json_file: Path | None,
    csv_file: Path | None,
    markdown_file: Path | None,
) -> int:
    """Latency, memory, size and recall parity of every runtime of BUNDLE, each in a fresh worker process.

    Exit code 0: all rows valid; 1: a parity or runtime failure; 2: bad usage or nothing to run here."""
    from ..bench import report
    from ..bench.image_set import ImageSet
    from ..bench.parity import Gates
    from ..bench.runner import BenchOptions, run_bench
    from ..runtimes.bundle import Bundle
    from ..runtimes.files import write_text
    from ..runtimes.predictor import RUNTIMES

    names = RUNTIMES if runtime == "all" else tuple(name.strip() for name in runtime.split(","))
    options = BenchOptions(
        names, threads, precision, batch, samples, rounds, timeout_s=timeout_s, gates=Gates(min_cosine, max_recall_drop)
    )
    opened = Bundle.open(bundle)
    images = ImageSet.find(folder, list_file)
    images = images.limited(limit) if limit else images
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    target = console(stderr=True)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=target, disable=not target.is_terminal, transient=True) as bar:
        # A round counts as many steps as there are images, so that the bar moves evenly.
        weight = {"timing": max(len(images.paths) // rounds, 1), "loading": max(len(images.paths) // 20, 1)}
        total = len(images.paths) + weight["timing"] * rounds + weight["loading"] * len(names)
        task = bar.add_task("starting", total=total)

        def progress(what: str, count: int) -> None:
            bar.update(task, description=what, advance=count * weight.get(what.split(",")[0].split()[0], 1))

        result = run_bench(opened, images, options, command_line(), progress)
    report.terminal(result, console())
    writers = ((json_file, report.as_json), (csv_file, report.as_csv), (markdown_file, report.markdown))
    for path, text in writers:
        if path is not None:
            write_text(path, text(result))
    return result.exit_code
