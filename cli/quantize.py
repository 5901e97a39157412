"""`edgerecall quantize`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .console import command_line, console, kept_for_resume, progress_bar, setup_logging, share_bar, tell_passed_over

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--calibrate",
    type=PATH,
    metavar="DIR",
    help="Training images to measure ranges on: DIR's train_list.txt, else all in it.",
)
@click.option("--list", "listed", type=PATH, help="Another list, paths relative to --calibrate's folder.")
@click.option(
    "--calibrate-count", default=300, show_default=True, type=click.IntRange(32, 1000), help="How many of them."
)
@click.option(
    "--artifacts",
    default="onnx-int8,openvino-int8",
    show_default=True,
    help="Comma list; also onnx-fp16, openvino-fp16, ncnn-int8, ncnn-fp16, mnn-fp16.",
)
@click.option("--recipe", type=PATH, help="YAML with how; see docs/quantisation.md.")
@click.option("--out", type=PATH, help="Write another bundle; default: add to BUNDLE itself.")
@click.option("--force", is_flag=True, help="Make artifacts anew that BUNDLE has already.")
@click.option(
    "--validate",
    type=PATH,
    metavar="DIR",
    help="Race recipes, by speed and recall on DIR's val_list.txt, and add those that win.",
)
@click.option("--validate-list", type=PATH, help="Another list, paths relative to --validate's folder.")
@click.option(
    "--max-recall-drop",
    type=click.FloatRange(0, 1),
    help="With --validate: of recall@1, also in the float32 gallery; by default 0.005.",
)
@click.option("--max-map-drop", type=click.FloatRange(0, 1), help="The same of mAP; by default 0.005.")
@click.option("--threads", type=click.IntRange(1, 1024), help="With --validate: of each runtime; by default 1.")
@click.option("--minutes", type=click.FloatRange(0, 1e6), help="With --validate: begin no other recipe after so many.")
@click.option("--resume", is_flag=True, help="With --validate: go on with an interrupted race.")
@click.option("--json", "json_file", type=PATH, help="With --validate: all that was raced.")
def command(
    bundle: Path, calibrate: Path | None, listed: Path | None, artifacts: str, recipe: Path | None, **given: Any
) -> int:
    """Add artifacts of lower precision to BUNDLE, made from its own float32 ones.

    What they cost and what they do to recall: 'edgerecall bench BUNDLE --images DIR'."""
    from ..export.quantize.artifacts import CALIBRATED, NOT_MADE, QUANTISED
    from ..export.quantize.quantizer import check_request, check_target
    from ..export.quantize.recipes import load_recipes
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.core.config import require_known
    from ..runtimes.core.errors import InputError

    names = list(dict.fromkeys(name.strip() for name in artifacts.split(",")))
    for name in names:
        if name in NOT_MADE:
            raise InputError(f"--artifacts: {name} is not made: {NOT_MADE[name]}")
        require_known(name, QUANTISED, "--artifacts")
    if listed is not None and calibrate is None:
        raise InputError("--list is of --calibrate's folder: give --calibrate DIR")
    if given["validate"] is None:
        for name in ("validate_list", "max_recall_drop", "max_map_drop", "threads", "minutes", "resume", "json_file"):
            if given[name] not in (None, False):
                option = name.removesuffix("_file").replace("_", "-")
                raise InputError(f"--{option} is of a race of recipes: give --validate DIR")
    recipes, opened = load_recipes(recipe), Bundle.open(bundle)
    logger = setup_logging(console(stderr=True))
    check_request(opened, names, calibrate is not None, given["force"])
    target = given["out"] or bundle
    check_target(opened, target)
    needed = any(name in CALIBRATED for name in names)
    images = reader(opened, calibrate, listed, given["calibrate_count"], logger) if needed else None
    job = Job(opened, target, names, images, recipes, given["force"])
    return quantize(job, logger) if given["validate"] is None else race(job, logger, given)


def reader(
    bundle: Any, folder: Path | None, listed: Path | None, count: int, logger: logging.Logger
) -> Callable[[], Any]:
    """Reads the calibration's images when it is called; whether they are there is looked at before."""
    from ..export.quantize.calibration import TRAIN_LIST, Calibration, calibration_files, read_calibration

    assert folder is not None
    files = calibration_files(folder, listed)
    if listed is None and not (folder / TRAIN_LIST).is_file():
        tell_passed_over(folder)

    def read() -> Calibration:
        told = lambda error: logger.warning("bad image, left out: %s", error)  # noqa: E731
        found = read_calibration(bundle, files, count, told)
        logger.info("calibration: %d images of %d", len(found.hashes), len(files.chosen))
        return found

    return read


@dataclass(frozen=True)
class Job:
    """Artifacts to add to a bundle. target: where it is written. images: reads the calibration's; None where none are
    needed. force: also those that it has.
    """

    bundle: Any
    target: Path
    names: list[str]
    images: Callable[[], Any] | None
    recipes: Any
    force: bool


def quantize(job: Job, logger: logging.Logger) -> int:
    """Makes the artifacts by the recipes."""
    from ..export.quantize.quantizer import quantize_bundle

    failed = []
    with progress_bar("quantising", len(job.names)) as advance:

        def report(name: str, problem: str | None, unchecked: str | None = None) -> None:
            if problem:
                logger.warning("%s: left out: %s", name, problem)
                failed.append(name)
            else:
                logger.info("%s: made%s", name, f", unchecked: {unchecked}" if unchecked else "")
            advance(1)

        made = quantize_bundle(
            job.bundle, job.target, job.names, job.images, job.recipes, command_line(), report, job.force
        )
    show(made, job.names)
    return 1 if failed else 0


def show(made: Any, names: list[str]) -> None:
    """The artifacts that were made, a line each."""
    target = console()
    for artifact in made.manifest.artifacts:
        if artifact.name in names and artifact.recipe is not None:
            cosine = f", cosine min {artifact.check.min_cosine:.4f} on golden images" if artifact.check else ""
            size = artifact.size_bytes / 1e6
            target.print(f"{artifact.name}: {artifact.recipe.scheme}, {size:.2f} MB{cosine}", soft_wrap=True)


def race(job: Job, logger: logging.Logger, given: dict[str, Any]) -> int:
    """Races recipes and adds those that win."""
    import json
    from dataclasses import asdict

    from ..bench.measure.machine import describe_machine
    from ..bench.schema.gates import Gates
    from ..export.search.race import Race, RaceOptions, require_float
    from ..export.search.report import print_race, summary
    from ..export.search.ship import choices, ship
    from ..export.search.validation import require_apart, validation_images
    from ..runtimes.core.files import sha256, write_text
    from ..runtimes.core.partial_folder import PartialFolder
    from ..runtimes.predictor.registry import tool_versions

    recall, mean_ap = (0.005 if given[name] is None else given[name] for name in ("max_recall_drop", "max_map_drop"))
    gates = Gates(min_cosine=-1, max_recall_drop=recall, max_map_drop=mean_ap)
    options = RaceOptions(tuple(job.names), job.recipes, gates, given["threads"] or 1, given["minutes"])
    require_float(job.bundle, options)
    scored = validation_images(given["validate"], given["validate_list"])
    calibration = job.images() if job.images is not None else None
    if calibration is not None:
        require_apart(scored, calibration)
    machine = describe_machine()
    request = {
        "bundle_sha256": sha256(job.bundle.root / "bundle.json"),
        "calibration": list(calibration.hashes) if calibration is not None else [],
        "validation_sha256": scored.sha256(range(len(scored.paths)), True),
        "options": [job.names, job.recipes.model_dump(mode="json"), gates.model_dump(mode="json"), options.threads],
        "machine": [machine["cpu"], machine["cores"], tool_versions()],
    }
    state = PartialFolder(job.target.resolve(), request, given["resume"])
    last, failed = "", dict[str, str]()

    def report(name: str, problem: str | None, unchecked: str | None = None) -> None:
        if problem:
            failed[name] = problem

    with share_bar(60) as show_share, kept_for_resume(state):

        def progress(what: str, share: float) -> None:
            nonlocal last
            title = what.partition(":")[0]
            if title != last:
                last = title
                logger.info("racing: %s", title)
            show_share(what, share)

        run = Race(job.bundle, calibration, scored, options, state.folder, command_line(), progress)
        run.run()
        chosen = choices(run)
        note = summary(run, chosen, scored, machine)
        if given["json_file"] is not None:
            whole = {**note, "entries": [asdict(one) for one in run.entries]}
            write_text(given["json_file"], json.dumps(whole, indent=1) + "\n")
        shipped = ship(run, chosen, job.target, report, note, job.force)
    print_race(run, chosen, console())
    show(shipped, job.names)
    for name, why in failed.items():
        logger.warning("%s: left out: %s", name, why)
    if failed:
        click.echo(f"kept in {state.folder}", err=True)
    else:
        state.remove()
    return 1 if failed else 0
