"""`edgerecall embed`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from ..console import command_line, console, options_of, progress_bar, setup_logging
from .gallery import ARTIFACT, IMAGES, entries_given

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("out", type=PATH)
@options_of(*IMAGES, *ARTIFACT)
@click.option("--shard", default=2000, show_default=True, type=click.IntRange(1, 1_000_000), help="Images of a file.")
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Of a process; by default one for each CPU, or with --ray 1."
)
@click.option(
    "--ray", metavar="ADDRESS", help="By a Ray cluster: its address, 'auto', or 'local' for one on this machine."
)
@click.option("--actors", default=2, show_default=True, type=click.IntRange(1, 100_000), help="Processes, with --ray.")
def command(bundle: Path, out: Path, **given: Any) -> int:
    """Embed many images by BUNDLE into Parquet files in the folder OUT.

    Columns: id, label, embedding; what made them stands in each file's metadata. Repeat the command to go on after an
    interruption: what is there is not done again, but for files in which images could not be read. With --ray, actors
    on any machine of the cluster share the work; they must see the images, BUNDLE and OUT under the same names."""
    from ...runtimes.core.cpus import usable_cpus
    from ...runtimes.core.errors import ImageError, InputError
    from ...runtimes.embed.shards import Shard, Work, begun, here, planned, pyarrow

    pyarrow()
    if given["ray"] is not None:
        import_module("ray.data")  # before anything is written: it may not be there
    logger = setup_logging(console(stderr=True))
    bad: list[str] = []

    def skipped(text: str) -> None:
        bad.append(text)
        logger.warning("skipped: %s", text)

    def on_bad(path: Path, error: ImageError) -> None:
        if given["strict"]:
            raise error
        skipped(str(error))

    entries = entries_given(given)
    plan, shards = planned(
        bundle, entries, given["shard"], given["runtime"], given["quantisation"], command_line(), on_bad
    )
    there = begun(out, plan, shards)
    left = [shard for shard in shards if shard.file not in there]
    if there:
        console(stderr=True).print(f"{len(shards) - len(left)} of {len(shards)} files are there already")
    threads = given["threads"] or (1 if given["ray"] else len(usable_cpus()))
    work = Work(str(bundle.absolute()), str(out.absolute()), plan, threads, given["strict"])
    with progress_bar("embedding", sum(len(shard.ids) for shard in left)) as advance:

        def done(shard: Shard, texts: list[str]) -> None:
            for text in texts:
                skipped(text)
            advance(len(shard.ids))

        if left and given["ray"] is not None:
            from ...runtimes.embed.on_ray import on_ray

            on_ray(work, left, given["ray"], given["actors"], done)
        elif left:
            here(work, left, done)
    if len(bad) >= plan.images:
        raise InputError(f"none of the {plan.images} images could be read")
    console().print(f"{out}: {len(shards)} files of {plan.images} images, {len(bad)} skipped now")
    return 0
