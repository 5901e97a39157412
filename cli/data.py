"""`edgerecall data`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import command_line, console, progress_bar


@click.group()
def command() -> None:
    """Make or convert a data set in the Stanford Online Products layout."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--train-classes", default=120, show_default=True)
@click.option("--test-classes", default=60, show_default=True, help="Other classes than the training ones.")
@click.option("--images-per-class", default=10, show_default=True)
@click.option("--size", default=160, show_default=True, help="Longest side in pixels.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def synth(folder: Path, train_classes: int, test_classes: int, images_per_class: int, size: int, seed: int) -> None:
    """Generate product-like JPEGs with train_list.txt and test_list.txt in FOLDER (must not exist yet)."""
    from ..train.data.synth import SynthOptions, synthesise

    options = SynthOptions(train_classes, test_classes, images_per_class, size, seed)
    total = (train_classes + test_classes) * images_per_class
    with progress_bar("drawing images", total) as advance:
        synthesise(folder, options, command_line(), advance)
    console().print(f"{folder}: {total} images, {train_classes} training and {test_classes} test classes")


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--no-file-check", is_flag=True, help="Do not look whether every listed image is there.")
def convert(folder: Path, no_file_check: bool) -> None:
    """Write train_list.txt and test_list.txt into FOLDER, the official Stanford Online Products release."""
    from ..train.data.convert import convert as convert_release

    for split in convert_release(folder, check_files=not no_file_check):
        console().print(f"{folder}/{split.name}_list.txt: {split.images} images, {split.classes} classes")
        for warning in split.warnings():
            console(stderr=True).print(f"warning: {warning}")
