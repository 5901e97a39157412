"""The server is as its OpenAPI document says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

from served import Client
from starlette.routing import Route

from edgerecall.serve.app import App

UNDESCRIBED = {"/", "/page/{file}", "/openapi.json"}


def test_every_route_is_described(shared_server: Client) -> None:
    document = json.loads(shared_server.get("/openapi.json")[1])
    told = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert document["components"]["parameters"]["name"]["schema"] == {"const": "bundle"}
    routes = {
        (route.path.replace(":path", ""), method)
        for route in App(SimpleNamespace(settings=SimpleNamespace(name="bundle"))).routed.routes  # type: ignore[arg-type]
        if isinstance(route, Route) and route.path not in UNDESCRIBED
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert told == routes


MORE = os.environ.get("EDGERECALL_EXAMPLES")  # so many of each route, and every bound of the schema: minutes


def test_schemathesis(shared_server: Client, clients: Path, tmp_path: Path) -> None:
    """Requests of all kinds, right and wrong: no crash, no status or answer that is not described."""
    command = [clients / "st", "run", f"{shared_server.url}/openapi.json", "--max-examples", MORE or "8", "--seed", "7"]
    options = [
        "--checks",
        "all",
        "--exclude-checks",
        "positive_data_acceptance",
        "--phases",
        "coverage,fuzzing" if MORE else "fuzzing",
    ]
    options += ["--exclude-path-regex", "/load$"]
    run = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stdout[-6000:]
    assert "Tested: 12" in run.stdout
    assert shared_server.get("/v2/health/ready")[0] == 200
    assert "Traceback" not in shared_server.log.read_text()
