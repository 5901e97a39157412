"""`edgerecall why`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console

FILE = click.Path(path_type=Path)
SIDE_HELP = "RUNTIME, RUNTIME:PRECISION, RUNTIME:int8, sealed, tensor=FILE.npy or embedding=FILE.npy."


@click.command()
@click.argument("bundle", type=FILE)
@click.option("--image", type=FILE, help="By default the golden image where they differ most.")
@click.option("--a", "a", default="sealed", show_default=True, help=SIDE_HELP)
@click.option("--b", "b", required=True, help="The same.")
@click.option("--a-preprocess", type=FILE, help="YAML with RecPreProcess, instead of the bundle's preprocessing.")
@click.option("--b-preprocess", type=FILE)
@click.option("--b-bundle", type=FILE, help="Another bundle for side b.")
@click.option("--b-image", type=FILE, help="Another file of the image for side b.")
@click.option("--images", type=FILE, help="Labelled images: recall of an int8 side with its worst layers in float.")
@click.option(
    "--list", "listed", type=FILE, help="Their list, paths relative to --images; by default its test_list.txt."
)
def command(
    bundle: Path,
    image: Path | None,
    a: str,
    b: str,
    a_preprocess: Path | None,
    b_preprocess: Path | None,
    b_bundle: Path | None,
    b_image: Path | None,
    images: Path | None,
    listed: Path | None,
) -> int:
    """Why two sides embed an image differently: the first stage where they part, ending in one sentence.

    A side runs a runtime of BUNDLE, or is what was sealed (the golden outputs), the tensor that an application
    fed its model, or the embedding that it got. Exit code 1 when they differ."""
    from rich.table import Table

    from ..bench.diagnose.sides import SideRequest
    from ..bench.diagnose.why import why
    from ..bench.measure.image_set import ImageSet
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.core.errors import InputError
    from ..runtimes.preprocess.transform_ops import read_preprocess

    first = SideRequest(a, read_preprocess(a_preprocess) if a_preprocess else None)
    second = SideRequest(
        b,
        read_preprocess(b_preprocess) if b_preprocess else None,
        Bundle.open(b_bundle) if b_bundle else None,
        b_image,
    )
    if listed is not None and images is None:
        raise InputError("--list is of --images' folder: give --images DIR")
    found = ImageSet.find(images, listed) if images is not None else None
    if found is not None and found.labels is None:
        raise InputError(f"--images {images}: expected a test_list.txt in it, for labels: or give --list")
    answer = why(Bundle.open(bundle), image, first, second, found)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("stage")
    table.add_column(f"{a} against {b}", overflow="fold")
    for stage in answer.stages:
        table.add_row(stage.stage, stage.result, style="bold" if stage.differs else None)
    target = console()
    target.print(table)
    target.print(answer.cause, soft_wrap=True)
    return int(answer.differs)
