"""Paddle's own two forms: PIR (`inference.json`) and the older program (`inference.pdmodel`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..context import Context


def _copy(context: Context, form: str, place: str) -> dict[str, Path]:
    model, params = context.model(form)
    folder = context.place(place)
    files = {"model": folder / model.name, "params": folder / params.name}
    shutil.copyfile(model, files["model"])
    shutil.copyfile(params, files["params"])
    return files


def pir(context: Context) -> dict[str, Path]:
    """The PIR form, as Paddle 3 reads and writes it."""
    return _copy(context, "pir", "paddle")


def pdmodel(context: Context) -> dict[str, Path]:
    """The older form, which Paddle Lite and OpenVINO read."""
    return _copy(context, "pdmodel", "paddle-pdmodel")
