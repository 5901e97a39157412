"""`edgerecall web`."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import console, share_bar

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("out", type=PATH)
@click.option("--gallery", required=True, type=PATH, help="Of BUNDLE's model, as 'gallery build' makes one.")
@click.option("--pictures", type=PATH, help="Folder in which the gallery's ids name images, to be shown.")
@click.option("--title", help="Of the page; by default BUNDLE's folder.")
@click.option(
    "--quantization",
    "--quantisation",
    "quantisation",
    help="Of the ONNX artifact to take: fp32, fp16 or int8; by default fp32.",
)
@click.option("--pages", type=PATH, help="Archive of 'edgerecall cross web'; by default dist/edgerecall-web.tar.gz.")
def command(
    bundle: Path,
    out: Path,
    gallery: Path,
    pictures: Path | None,
    title: str | None,
    quantisation: str | None,
    pages: Path | None,
) -> int:
    """Write a static page to OUT: a picture in, the nearest of the gallery out, all in the browser, offline too.

    Any server of files does, by https or on localhost: 'python -m http.server -d OUT'."""
    from ...runtimes.bundle.bundle import Bundle
    from ...runtimes.bundle.web_pages import find_pages
    from ...runtimes.core.errors import InputError
    from ...runtimes.gallery.disk_gallery import DiskGallery
    from ...serve.site.site import make_site

    if pictures is not None and not pictures.is_dir():
        raise InputError(f"--pictures {pictures}: expected a folder")
    opened = Bundle.open(bundle)
    archive = pages or find_pages([], "--pages")
    with DiskGallery(gallery) as rows, share_bar(20) as progress:
        name = title or opened.root.resolve().name
        made = make_site(
            opened, rows, out, archive, name, quantisation, pictures, lambda share: progress("pictures", share)
        )
    say = console()
    for identity in made.missing[:3]:
        say.print(f"warning: no picture of {identity!r}")
    if len(made.missing) > 3:
        say.print(f"warning: and none of {len(made.missing) - 3} more")
    size = f"{made.bytes / 1e6:.1f} MB, and pictures of {made.picture_bytes / 1e6:.1f} MB"
    say.print(f"{out}: {made.rows} rows, {size}; to try it: python -m http.server -d {out}", soft_wrap=True)
    return 0
