"""TNN's two files, from the ONNX model, by the converter of a build of TNN that the user names.

Its converter (`tools/onnx2tnn` of TNN) is a Python module, built for one version of Python, 3.8 at most.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ...runtimes.sidecars.interpreters import candidates, runs
from ..context import Context, FormatFailed, fenced, own_step, run_step
from .onnx_format import any_onnx

VARIABLE = "EDGERECALL_TNN_DIR"
PLACES = ("", "lib", "bin", "tools/onnx2tnn/onnx-converter", "build/tools/onnx2tnn/onnx-converter")
MODULE = re.compile(r"onnx2tnn\.cpython-3(\d{1,2})m?-[\w-]+\.so")
# convert(model, folder, version, time, 0: float32, 0: keep what hangs on the batch size, shapes "name:1,3,H,W")
CONVERT = """
import sys
sys.path.insert(0, sys.argv[1])
import onnx2tnn
sys.exit(1 if onnx2tnn.convert(sys.argv[2], sys.argv[3], "v1.0", "", 0, 0, "") else 0)
"""


def converter() -> tuple[str, Path]:
    """The interpreter that its module is built for, and the module's folder. FormatFailed with the remedy."""
    named = os.environ.get(VARIABLE)
    if not named:
        raise FormatFailed(f"needs a build of TNN with its converter: name its folder in {VARIABLE} (docs/arm.md)")
    lacking = None
    for place in (Path(named) / part for part in PLACES):
        for file in sorted(place.glob("onnx2tnn.cpython-*.so")):
            if not (match := MODULE.fullmatch(file.name)):
                continue
            version = f"3.{match[1]}"
            for python in candidates([version]):
                if runs(python, "pass"):
                    return python, place
            lacking = (
                f"{file} is built for Python {version}, and there is none here: install it, or build it for another"
            )
    raise FormatFailed(
        lacking or f"{VARIABLE}: no onnx2tnn.cpython-*.so in {named}: build TNN with -DTNN_ONNX2TNN_ENABLE=ON"
    )


def tnn(context: Context) -> dict[str, Path]:
    """Weights in float32. The converter runs in a folder of its own, with nothing of the environment that leads out."""
    python, place = converter()
    work = context.scratch / "tnn"
    work.mkdir()
    source = work / "model.onnx"
    run_step(own_step("one_image", any_onnx(context), source), label="TNN's input")
    environment = fenced(work)
    libraries = [str(Path(os.environ[VARIABLE]).resolve() / part) for part in ("lib", "")]
    environment["LD_LIBRARY_PATH"] = ":".join([*libraries, environment.get("LD_LIBRARY_PATH", "")]).rstrip(":")
    command = [python, "-s", "-c", CONVERT, str(place.resolve()), str(source), str(work)]
    output = run_step(command, environment, "TNN's converter", work)
    made = {role: work / f"model.{suffix}" for role, suffix in (("model", "tnnproto"), ("weights", "tnnmodel"))}
    for file in made.values():
        if not file.is_file():
            lines = [line for line in output.splitlines() if line.strip()]
            raise FormatFailed(f"TNN's converter wrote no {file.name}: {lines[-1] if lines else 'no reason given'}")
    target = context.place("tnn")
    return {role: Path(shutil.copyfile(file, target / file.name)) for role, file in made.items()}
