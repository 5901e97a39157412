"""`edgerecall doctor`."""

from __future__ import annotations

import click

from .console import console


@click.command()
@click.option("--fix", type=click.Choice(["lite"]), help="Make what is missing: lite, the Paddle Lite sidecar.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(fix: str | None, as_json: bool) -> int:
    """What this machine can train, convert and run, and the exact fix for the rest."""
    from ..doctor import examine

    if fix == "lite":
        from ..runtimes.sidecar import make

        with console(stderr=True).status("making the Paddle Lite sidecar"):
            python = make()
        console().print(f"Paddle Lite sidecar: {python}", soft_wrap=True)
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
