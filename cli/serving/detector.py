"""`edgerecall detector`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..console import command_line, console, progress_bar, setup_logging, tell_passed_over

PATH = click.Path(path_type=Path)


@click.group()
def command() -> None:
    """Where in a picture something is: the stage before the embedding.

    `predict -c CONFIG` with IndexProcess runs what CONFIG's det_inference_model_dir names: a sealed detector, or a
    network as it is (a Paddle inference model's folder, or an .onnx)."""


@command.command()
@click.argument("out", type=PATH)
@click.option("-c", "--config", "config_path", required=True, type=PATH, help="PP-ShiTu's, with the detector's keys.")
@click.option("-o", "--override", "overrides", multiple=True, metavar="A.B=VALUE", help="Change one value.")
@click.option("--images", required=True, type=PATH, help="Pictures of what it is for: the first 8 are kept.")
def seal(out: Path, config_path: Path, overrides: tuple[str, ...], images: Path) -> int:
    """Network, preprocessing, thresholds and golden pictures of CONFIG's det_inference_model_dir to the folder OUT."""
    from ...runtimes.core.config import apply_overrides, read_yaml
    from ...runtimes.core.errors import InputError
    from ...runtimes.detect.sealed import seal
    from ...runtimes.detect.settings import parse_detector
    from ...runtimes.preprocess.images import find_images

    name = f"config {config_path}"
    config = parse_detector(apply_overrides(read_yaml(config_path), overrides), name)
    model = config.Global.det_inference_model_dir
    if model is None:
        raise InputError(f"{name}: expected Global.det_inference_model_dir")
    logger = setup_logging(console(stderr=True))
    kept, boxes = seal(
        model,
        config.settings,
        find_images(images),
        out,
        command_line(),
        lambda path, error: logger.warning("skipped: %s", error),
    )
    console().print(f"{out}: {boxes} boxes in {kept} golden pictures")
    return 0


@command.command()
@click.argument("detector", type=PATH)
def verify(detector: Path) -> int:
    """Golden pictures of a sealed DETECTOR on this machine: the boxes that were sealed must come out."""
    from ...runtimes.detect.sealed import verify

    told = verify(detector)
    for picture, problem in told:
        console().print(f"{picture}: {problem or 'ok'}")
    return int(any(problem for _, problem in told))


@command.command()
@click.argument("detector", type=PATH)
@click.argument("images", nargs=-1, required=True, type=PATH)
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 1024))
@click.option("--strict", is_flag=True, help="End at the first bad image.")
def find(detector: Path, images: tuple[Path, ...], threads: int, strict: bool) -> int:
    """Boxes in IMAGES (files and folders) by a sealed DETECTOR: lines of JSON, as `predict --boxes` takes them."""
    from ...runtimes.core.errors import ImageError, InputError
    from ...runtimes.detect.sealed import open_sealed
    from ...runtimes.preprocess.images import find_images

    logger = setup_logging(console(stderr=True))
    opened = open_sealed(detector, threads)
    for folder in images:
        if folder.is_dir():
            tell_passed_over(folder)
    paths = [path for one in images for path in find_images(one)]
    bad = 0
    with progress_bar("detecting", len(paths)) as advance:
        for path in paths:
            try:
                found = opened.detect(opened.read(path))
            except ImageError as error:
                if strict:
                    raise
                bad += 1
                logger.warning("skipped: %s", error)
            else:
                told = {
                    "image": str(path),
                    "boxes": [one.box for one in found],
                    "scores": [one.score for one in found],
                    "labels": [one.label for one in found],
                }
                click.echo(json.dumps(told, ensure_ascii=False))
            advance(1)
    if bad == len(paths):
        raise InputError(f"none of the {len(paths)} images could be read")
    return 0
