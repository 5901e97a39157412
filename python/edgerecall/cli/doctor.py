"""`edgerecall doctor`."""

from __future__ import annotations

import click

from .console import console


@click.command()
@click.option(
    "--fix",
    type=click.Choice(["lite", "paddle2onnx"]),
    help="Make a sidecar, an environment of an older Python, for Paddle Lite or for paddle2onnx.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(fix: str | None, as_json: bool) -> int:
    """What this machine can train, convert and run, and the exact fix for the rest."""
    from ..doctor import examine

    if fix is not None:
        from ..cross.interpreters import debian_python
        from ..runtimes.sidecar import SIDECARS

        sidecar = SIDECARS[fix]
        if sidecar.runs_here():
            console().print(f"{sidecar.package}: installed in this environment, no sidecar needed")
            return 0
        with console(stderr=True).status(f"making the {sidecar.package} sidecar"):
            python = sidecar.make(lambda versions: debian_python(versions, console(stderr=True).print))
        console().print(f"{sidecar.package} sidecar: {python}", soft_wrap=True)
        return 0
    findings = examine()
    if as_json:
        import json

        click.echo(json.dumps([vars(finding) for finding in findings], indent=1))
        return 0
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for title in ("for", "what", "here", "fix"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        table.add_row(finding.purpose, finding.what, finding.state, finding.fix or "")
    console().print(table)
    return 0
