"""`edgerecall data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .console import command_line, console, options_of, progress_bar


@click.group()
def command() -> None:
    """Make a data set, or list files for one that is there."""


# Of the two commands that write lists.
SPLIT = (
    click.option("--lists", type=click.Path(path_type=Path), help="Folder for the lists; by default FOLDER."),
    click.option("--train-classes", type=click.IntRange(min=2), help="To train; by default half of them."),
    click.option(
        "--val-classes", default=0, show_default=True, type=click.IntRange(min=0), help="Of those, to validate."
    ),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the classes drawn."),
    click.option("--force", is_flag=True, help="Replace lists that are there."),
    click.option("--no-file-check", is_flag=True, help="Do not look whether every listed image is there."),
    click.option("--no-leak-check", is_flag=True, help="Do not look for training images in the other lists."),
)


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
@click.option(
    "--layout", help="Of the data set; by default found out: sop, grocery, cub, cars, inshop, market1501, veri."
)
@options_of(*SPLIT)
def convert(folder: Path, layout: str | None, **given: Any) -> None:
    """Write list files for FOLDER, a published data set: train_list.txt and test_list.txt, or query and gallery.

    Where a data set does not divide its classes into those to train and to test (grocery), they are drawn by --seed."""
    from ..runtimes.core.config import require_known
    from ..train.data.layouts import LAYOUTS, find_layout

    name = layout or find_layout(folder)
    require_known(name, LAYOUTS, "--layout")
    write_lists(folder, name, **given)


@command.command(name="folder")
@click.argument("folder", type=click.Path(path_type=Path))
@options_of(*SPLIT)
def folder_command(folder: Path, **given: Any) -> None:
    """Write train_list.txt and test_list.txt for FOLDER, which has one folder of images for each class.

    No class is in both: half of them, drawn by --seed, are for training."""
    write_lists(folder, None, **given)


def write_lists(
    folder: Path,
    layout: str | None,
    lists: Path | None,
    train_classes: int | None,
    val_classes: int,
    seed: int,
    force: bool,
    no_file_check: bool,
    no_leak_check: bool,
) -> None:
    """Converts, counts and warns."""
    from ..train.data.convert import convert as convert_to_lists
    from ..train.data.layouts import Split
    from ..train.data.leakage import leak_warnings, require_hashes

    looks = not (no_file_check or no_leak_check)
    if looks:
        require_hashes()
    split = Split(train_classes, val_classes, seed)
    sets = convert_to_lists(folder, layout, split, lists, not no_file_check, force)
    warnings = [warning for one in sets for warning in one.warnings]
    if looks:
        with progress_bar("looking for leaks", sum(len(one.images) for one in sets)) as advance:
            warnings += leak_warnings(folder, sets, advance)
    for one in sets:
        console().print(f"{(lists or folder) / one.file}: {len(one.images)} images, {len(one.classes)} classes")
    for warning in warnings:
        console(stderr=True).print(f"warning: {warning}")
