"""The files in deploy/ start a server that there is: their commands are understood, their probes are routes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from edgerecall.cli.serving.serve import command


def documents(root: Path) -> list[Any]:
    return [
        one
        for name in ("compose.yaml", "kserve.yaml", "kubernetes.yaml")
        for one in yaml.safe_load_all((root / "deploy" / name).read_text())
    ]


def containers(value: Any) -> list[dict[str, Any]]:
    """What holds a command of ours, wherever it stands."""
    if isinstance(value, list):
        return [found for one in value for found in containers(one)]
    if not isinstance(value, dict):
        return []
    here = [value] if ("image" in value and "args" in value) or "command" in value else []
    return here + [found for one in value.values() for found in containers(one)]


def commands(root: Path) -> list[list[str]]:
    found = [list(one.get("args") or one["command"]) for one in containers(documents(root))]
    unit = (root / "deploy" / "edgerecall.service").read_text()
    (start,) = re.findall(r"^ExecStart=\S+/edgerecall serve (.+)$", unit, re.MULTILINE)
    docker = (root / "deploy" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["edgerecall", "serve"]' in docker
    (default,) = re.findall(r"^CMD (\[.+\])$", docker, re.MULTILINE)
    return [*found, start.split(), json.loads(default)]


def test_commands_are_understood(root: Path) -> None:
    found = commands(root)
    assert len(found) == 5
    for arguments in found:
        context = command.make_context("serve", list(arguments))
        assert context.params["bundle"] and context.params["port"] == 8080


def test_probes_are_routes(root: Path) -> None:
    routes = json.loads((root / "serve" / "openapi.json").read_text())["paths"]
    text = "".join(path.read_text() for path in (root / "deploy").iterdir())
    probes = set(re.findall(r"/v2/[a-z/]+", text))
    assert probes == {"/v2/health/live", "/v2/health/ready"} <= set(routes)
