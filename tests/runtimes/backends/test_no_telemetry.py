"""What runtimes and converters tell their makers where nobody says no: here somebody does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from no_sockets import REFUSED, without_sockets
from small_onnx import network, write

EMBED = """
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor
bundle = Bundle.open({bundle!r})
with open_predictor(bundle, {runtime!r}) as predictor:
    predictor.embed(bundle.golden()[1])
"""


def traces(folder: Path, code: str, **variables: str) -> list[str]:
    """What code leaves in its home, its cache and its folder for temporary files. Not as in CI, where none tells; and
    nothing gets out: it has no socket.
    """
    for name in ("home", "cache", "temporary"):
        (folder / name).mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    places = {"HOME": "home", "XDG_CACHE_HOME": "cache", "TMPDIR": "temporary"}
    kept.update({name: str(folder / place) for name, place in places.items()}, **variables)
    result = without_sockets(code, REFUSED, kept)
    assert result.returncode == 0, result.stderr
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("runtime", ["onnxruntime", "cpp-onnxruntime"])
def test_onnxruntime_leaves_no_mark_of_its_uploads(runtime: str, real_bundle: Path, tmp_path: Path) -> None:
    code = EMBED.format(bundle=str(real_bundle), runtime=runtime)
    assert traces(tmp_path / "as it is", code) == []
    told = traces(tmp_path / "asked for", code, ORT_DISABLE_TELEMETRY="0")
    assert any(".onnxruntime" in name or name.endswith(".ses") for name in told), told


def test_openvino_s_converter_gets_no_identifier(tmp_path: Path) -> None:
    source = write(network(), tmp_path / "source.onnx")
    step = f"""
import sys
sys.argv[1:] = ["openvino", {str(source)!r}, {str(tmp_path / "made.xml")!r}]
from edgerecall.export import steps
steps.main()
"""
    assert traces(tmp_path / "as it is", step) == []
    alone = f"import openvino; openvino.convert_model({str(source)!r})"
    assert traces(tmp_path / "alone", alone) != [], "it would have told"
