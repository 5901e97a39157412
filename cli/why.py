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
def command(
    bundle: Path,
    image: Path | None,
    a: str,
    b: str,
    a_preprocess: Path | None,
    b_preprocess: Path | None,
    b_bundle: Path | None,
    b_image: Path | None,
) -> int:
    """Why two sides embed an image differently: the first stage where they part, ending in one sentence.

    A side runs a runtime of BUNDLE, or is what the training framework gave (sealed), the tensor that an application
    fed its model, or the embedding that it got. Exit code 1 when they differ."""
    from rich.table import Table

    from ..bench.diagnose.sides import SideRequest
    from ..bench.diagnose.why import why
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.preprocess.transform_ops import read_preprocess

    first = SideRequest(a, read_preprocess(a_preprocess) if a_preprocess else None)
    second = SideRequest(
        b,
        read_preprocess(b_preprocess) if b_preprocess else None,
        Bundle.open(b_bundle) if b_bundle else None,
        b_image,
    )
    answer = why(Bundle.open(bundle), image, first, second)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("stage")
    table.add_column(f"{a} against {b}", overflow="fold")
    for stage in answer.stages:
        table.add_row(stage.stage, stage.result, style="bold" if stage.differs else None)
    target = console()
    target.print(table)
    target.print(answer.cause, soft_wrap=True)
    return int(answer.differs)
