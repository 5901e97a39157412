"""`edgerecall quantize`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import command_line, console, progress_bar, setup_logging


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Training images to measure ranges on: DIR's train_list.txt, else all in it.",
)
@click.option(
    "--list", "listed", type=click.Path(path_type=Path), help="Another list, paths relative to --calibrate's folder."
)
@click.option(
    "--calibrate-count", default=300, show_default=True, type=click.IntRange(32, 1000), help="How many of them."
)
@click.option(
    "--artifacts",
    default="onnx-int8,openvino-int8",
    show_default=True,
    help="Comma list; also onnx-fp16, openvino-fp16.",
)
@click.option("--recipe", type=click.Path(path_type=Path), help="YAML with how; see docs/quantisation.md.")
@click.option("--out", type=click.Path(path_type=Path), help="Write another bundle; default: add to BUNDLE itself.")
@click.option("--force", is_flag=True, help="Make artifacts anew that BUNDLE has already.")
def command(
    bundle: Path,
    calibrate: Path | None,
    listed: Path | None,
    calibrate_count: int,
    artifacts: str,
    recipe: Path | None,
    out: Path | None,
    force: bool,
) -> int:
    """Add artifacts of lower precision to BUNDLE, made from its own float32 ones.

    What they cost and what they do to recall: 'edgerecall bench BUNDLE --images DIR'."""
    from ..export.quantize.artifacts import QUANTISED
    from ..export.quantize.calibration import Calibration, calibration_files, read_calibration
    from ..export.quantize.quantizer import quantize_bundle
    from ..export.quantize.recipes import load_recipes
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.core.config import require_known
    from ..runtimes.core.errors import InputError

    names = list(dict.fromkeys(name.strip() for name in artifacts.split(",")))
    for name in names:
        require_known(name, QUANTISED, "--artifacts")
    if listed is not None and calibrate is None:
        raise InputError("--list is of --calibrate's folder: give --calibrate DIR")
    recipes, opened = load_recipes(recipe), Bundle.open(bundle)
    logger = setup_logging(console(stderr=True))
    with progress_bar("quantising", len(names) + 1) as advance:
        failed = []

        def read() -> Calibration:
            assert calibrate is not None
            files = calibration_files(calibrate, listed)
            told = lambda error: logger.warning("bad image, left out: %s", error)  # noqa: E731
            found = read_calibration(opened, files, calibrate_count, told)
            logger.info("calibration: %d images of %d", len(found.hashes), len(files.chosen))
            advance(1)
            return found

        def report(name: str, problem: str | None, unchecked: str | None = None) -> None:
            if problem:
                logger.warning("%s: left out: %s", name, problem)
                failed.append(name)
            else:
                logger.info("%s: made%s", name, f", unchecked: {unchecked}" if unchecked else "")
            advance(1)

        images = None if calibrate is None else read
        made = quantize_bundle(opened, out or bundle, names, images, recipes, command_line(), report, force)
    target = console()
    for artifact in made.manifest.artifacts:
        if artifact.name in names and artifact.recipe is not None:
            cosine = f", cosine min {artifact.check.min_cosine:.4f} on golden images" if artifact.check else ""
            size = artifact.size_bytes / 1e6
            target.print(f"{artifact.name}: {artifact.recipe.scheme}, {size:.2f} MB{cosine}", soft_wrap=True)
    return 1 if failed else 0
