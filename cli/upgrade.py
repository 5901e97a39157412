"""`edgerecall upgrade`."""

from __future__ import annotations

from pathlib import Path

import click

from .console import console


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
def command(bundle: Path) -> int:
    """Bring BUNDLE to the present format, in place; its artifacts stay as they are."""
    from ..runtimes.bundle.bundle import Bundle
    from ..runtimes.bundle.manifest import FORMAT_VERSION
    from ..runtimes.bundle.upgrade import upgrade

    opened = Bundle.open(bundle)
    before = opened.manifest.format_version
    told = f"format {before} -> {FORMAT_VERSION}" if upgrade(opened) else f"format {before} already"
    console().print(f"{bundle}: {told}", soft_wrap=True)
    return 0
