"""`edgerecall cross`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .console import console


@click.command()
@click.argument("target")
@click.option("--runtime", default="all", show_default=True, help="Comma list, or all that the target can have.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Verify the program on this one too.")
@click.option("--mnn-dir", type=click.Path(path_type=Path), help="MNN's C++ library for the target, installed.")
@click.option("--tnn-dir", type=click.Path(path_type=Path), help="TNN's C++ library for the target, installed.")
@click.option(
    "--lite-dir", type=click.Path(path_type=Path), help="Paddle Lite's C++ library for the target (its cxx/)."
)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="A checkout; default: the one around this folder, else the package's own source.",
)
def command(
    target: str,
    runtime: str,
    bundle: Path | None,
    mnn_dir: Path | None,
    tnn_dir: Path | None,
    lite_dir: Path | None,
    source: Path | None,
) -> int:
    """Build the stand-alone program for TARGET, test it there or under QEMU, and pack it into dist/.

    TARGET: linux-aarch64 (Raspberry Pi OS 64-bit and other boards), linux-armv7 (32-bit), linux-aarch64-musl and
    linux-armv7-musl (static, for any Linux), linux-aarch64-glibc2.28 (older boards), linux-x86_64 (this kind of
    system), linux-x86_64-glibc2.28 (servers); web (what 'bench --device browser' serves)."""
    from ..cross.build import CrossBuild, program_size, source_root
    from ..cross.runtimes import chosen_runtimes
    from ..runtimes.core.targets import WEB, target_named

    if target == WEB.name:
        return build_web(source)
    chosen = target_named(target)
    names = chosen_runtimes(chosen, runtime)
    out = console()
    named = (("mnn", mnn_dir), ("tnn", tnn_dir), ("lite", lite_dir))
    given = {name: folder for name, folder in named if folder is not None}
    build = CrossBuild(source_root(source), chosen, names, out.print, given)
    archive = build.run()
    if bundle is not None:
        build.verify(bundle)
    size = f"program {program_size(build.package) / 1e6:.2f} MB, archive {archive.stat().st_size / 1e6:.1f} MB"
    out.print(f"{os.path.relpath(archive)}: {size}", soft_wrap=True)
    return 0


def build_web(source: Path | None) -> int:
    """The archive for browsers."""
    from ..cross.build import source_root
    from ..cross.web import CORE, WebBuild

    out = console()
    build = WebBuild(source_root(source), out.print)
    archive = build.run()
    core = sum((build.package / name).stat().st_size for name in CORE.values())
    size = f"core {core / 1e6:.2f} MB, archive {archive.stat().st_size / 1e6:.1f} MB"
    out.print(f"{os.path.relpath(archive)}: {size}", soft_wrap=True)
    return 0
