"""`edgerecall bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import command_line, console, kept_for_resume, share_bar, tell_passed_over

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=FILE)
@click.option("--images", "folder", required=True, type=FILE, help="Folder; its test_list.txt gives labels.")
@click.option("--list", "list_file", type=FILE, help="Another list, paths relative to the folder.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images.")
@click.option("--runtime", default="all", show_default=True, help="Comma list; all: what BUNDLE has, on the CPU.")
@click.option("--threads", default="1", show_default=True, help="Numbers and ranges: 1,2 or 1-4 or 1-16*2.")
@click.option(
    "--quantization",
    "--quantisation",
    "quantisation",
    default="all",
    show_default=True,
    help="Of artifacts: comma list of fp32, fp16, int8.",
)
@click.option(
    "--precision", default="fp32", show_default=True, help="How they compute: comma list of fp32, tf32, fp16, bf16."
)
@click.option("--batch", default="1", show_default=True, help="Numbers and ranges.")
@click.option("--stage", type=click.Choice(["model", "e2e"]), default="model", show_default=True)
@click.option("--samples", default=200, show_default=True, help="Upper limit of timed inferences per row.")
@click.option("--rounds", default=10, show_default=True, help="Interleaved rounds they are spread over.")
@click.option("--seconds", default=20.0, show_default=True, help="Upper limit of timing per row, in seconds.")
@click.option("--together", default=8, show_default=True, help="Rows timed in turns; more make groups.")
@click.option("--cpus", help="CPUs that rows may be pinned to, such as 0,2-3; by default all.")
@click.option("--no-pin", is_flag=True, help="Leave it to the system where workers run.")
@click.option(
    "--timeout",
    "timeout_s",
    default=300.0,
    type=click.FloatRange(0.1, 86400.0),
    show_default=True,
    help="Seconds for one answer of a worker.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="DEVICE",
    help="Run there too: qemu:aarch64, ssh://USER@HOST, adb[:SERIAL], browser[:chromium]. Several may be given.",
)
@click.option(
    "--device-program",
    "device_programs",
    multiple=True,
    metavar="FILE",
    help="Archive of 'edgerecall cross'; by default dist/edgerecall-device-*.tar.gz.",
)
@click.option("--device-cpus", default="all", show_default=True, help="CPUs there: all, big, little, or 4-7.")
@click.option("--preprocess", "preprocess_file", type=FILE, help="Feed rows as this YAML's RecPreProcess says instead.")
@click.option(
    "--scenario", default="", help="Comma list of MLPerf LoadGen's SingleStream, MultiStream, Offline, Server."
)
@click.option("--scenario-seconds", default=5.0, show_default=True)
@click.option("--target-qps", type=float, help="Server: queries per second; by default half of what the row can do.")
@click.option("--target-latency-ms", type=float, help="Server: upper limit of p99; by default ten times the latency.")
@click.option("--loadgen-logs", type=FILE, help="Folder that keeps LoadGen's logs.")
@click.option("--gates", "gates_file", type=FILE, help="YAML with limits; overridden by the two options below.")
@click.option("--min-cosine", type=float, help="By default 0.999; in lower precision none, recall judges.")
@click.option("--max-recall-drop", type=float, help="Of recall@1, from 0 to 1; by default 0.002.")
@click.option("--strict", is_flag=True, help="A request that was not honoured, or a noisy run, is a failure.")
@click.option(
    "--sequential", is_flag=True, help="Embed a row no further than it takes to know that it fails cosine or recall@1."
)
@click.option("--json", "json_file", type=FILE, help="All figures with raw samples; for compare and --resume.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run of the same --json FILE.")
@click.option("--jsonl", "jsonl_file", type=FILE, help="One line per row.")
@click.option("--csv", "csv_file", type=FILE)
@click.option("--markdown", "markdown_file", type=FILE)
@click.option("--html", "html_file", type=FILE, help="A self-contained page with plots.")
def command(bundle: Path, folder: Path, list_file: Path | None, limit: int | None, **given: Any) -> int:
    """Latency, memory, size and recall parity of every runtime of BUNDLE, each in a fresh worker process.

    Options with several values make a row of every combination. Exit code 0: all rows valid; 1: a gate, parity or
    runtime failure; 2: bad usage or nothing to run here; 3, with --strict: a row is undecided."""
    if given["resume"] and given["json_file"] is None:
        raise click.UsageError("--resume needs the --json FILE of the interrupted run")
    from ..bench.measure.image_set import ImageSet
    from ..bench.measure.loadgen import LoadSettings
    from ..bench.measure.machine import cpu_name
    from ..bench.measure.resume_store import ResumeStore
    from ..bench.measure.runner import run_bench
    from ..bench.report import tables
    from ..bench.schema.group_result import Explain
    from ..bench.schema.rows import BenchResult
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.core.cpus import usable_cpus
    from ..runtimes.core.files import sha256, write_text
    from ..runtimes.predictor.registry import tool_versions
    from ..runtimes.preprocess.transform_ops import read_preprocess

    if given["html_file"] is not None:
        import matplotlib  # noqa: F401 - missing, it is said before anything is measured
    scenarios = tuple(name.strip() for name in given["scenario"].split(",") if name.strip())
    load = LoadSettings(
        scenarios,
        given["scenario_seconds"],
        given["target_qps"],
        given["target_latency_ms"],
        str(given["loadgen_logs"]) if given["loadgen_logs"] else None,
    )
    opened = Bundle.open(bundle)
    options = read_options(given, opened.runtimes())
    images = ImageSet.find(folder, list_file)
    if images.labels is None:  # no list says which
        tell_passed_over(folder)
    images = images.limited(limit) if limit else images
    preprocess = read_preprocess(given["preprocess_file"]) if given["preprocess_file"] else None
    state = None
    if given["json_file"] and (given["json_file"].is_file() or not given["json_file"].exists()):  # no pipe or device
        request = {
            "bundle_sha256": sha256(opened.root / "bundle.json"),
            "images": [len(images.paths), images.sha256(range(len(images.paths)), True)],
            "machine": [cpu_name(), usable_cpus(), tool_versions()],
            "options": repr(options),
            "load": repr(load),
            "preprocess": repr(preprocess),
        }
        state = ResumeStore(given["json_file"], request, given["resume"])
    explain: Explain | None = None
    if options.devices:  # what looks into graphs is loaded for their sake alone
        from ..bench.diagnose.posted import explain_posted

        explain = explain_posted
    with share_bar(36) as progress, kept_for_resume(state):
        meanwhile = import_plots if given["html_file"] is not None else None
        result = run_bench(
            opened, images, options, command_line(), progress, preprocess, load, state, explain, meanwhile
        )
    tables.terminal(result, console())
    writers = (
        ("json_file", BenchResult.to_json),
        ("jsonl_file", tables.as_json_lines),
        ("csv_file", tables.as_csv),
        ("markdown_file", tables.markdown),
    )
    for name, text in writers:
        if given[name] is not None:
            write_text(given[name], text(result))
    if given["html_file"] is not None:
        from ..bench.report.html import html_report

        write_text(given["html_file"], html_report(result))
    if state:
        state.remove()
    return result.exit_code


def import_plots() -> None:
    """What the page takes a moment to import."""
    import matplotlib.figure  # noqa: F401

    from ..bench.report import html  # noqa: F401


def read_options(given: dict[str, Any], everything: tuple[str, ...]) -> Any:
    """The command's options as BenchOptions. everything: the runtimes that "all" means."""
    from ..bench.measure.machine import parse_cpus
    from ..bench.schema.gates import Gates
    from ..bench.schema.options import BenchOptions, names_in, parse_names, parse_range
    from ..bench.schema.rows import LOCAL
    from ..runtimes.predictor.precision import EXECUTIONS
    from ..runtimes.predictor.registry import backend

    runtimes = parse_names(given["runtime"], everything)
    executions = [name for name in EXECUTIONS if any(name in backend(one).executions for one in runtimes)]
    gates = Gates.read(given["gates_file"], min_cosine=given["min_cosine"], max_recall_drop=given["max_recall_drop"])
    return BenchOptions(
        runtimes=runtimes,
        quantisation=() if "all" in names_in(given["quantisation"]) else parse_names(given["quantisation"], ()),
        threads=parse_range(given["threads"], "threads"),
        precision=parse_names(given["precision"], executions),
        batch=parse_range(given["batch"], "batch"),
        cpus=parse_cpus(given["cpus"]) if given["cpus"] else (),
        pin=not given["no_pin"],
        gates=gates,
        devices=tuple(name for name in given["devices"] if name != LOCAL),
        device_programs=given["device_programs"],
        device_cpus=given["device_cpus"],
        every="all" in names_in(given["runtime"]),
        named=tuple(name for name in names_in(given["runtime"]) if name != "all"),
        **{
            name: given[name]
            for name in ("samples", "rounds", "seconds", "timeout_s", "together", "stage", "strict", "sequential")
        },
    )
