"""A model that comes as ONNX, from PyTorch or elsewhere. Its reference is ONNX Runtime on the file as it came, none of
its graph optimised. All of it runs in processes of its own, and needs no Paddle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import sha256
from ...runtimes.preprocess.ops import Preprocess
from ..context import FormatFailed, own_step, run_step
from ..exporter import Source

NEEDS_PADDLE = "the model comes as ONNX, and this format is made from a Paddle model"


@dataclass(frozen=True)
class OnnxAnswer:
    """What a step tells in a file. refused: why the model cannot be taken, if so. changes: what was done to it."""

    refused: str | None = None
    input_name: str = ""
    output_name: str = ""
    changes: dict[str, object] | None = None


def ask(step: str, answer: Path, *arguments: Path | str) -> OnnxAnswer:
    """Runs a step that writes an answer. InputError with its reason, or when the process dies."""
    try:
        run_step(own_step(step, answer, *arguments), label="reading the ONNX model")
    except FormatFailed as error:
        raise InputError(f"{arguments[0]}: {error}") from error
    found = OnnxAnswer(**json.loads(answer.read_text(encoding="utf-8")))
    if found.refused is not None:
        raise InputError(found.refused)
    return found


def tell_source(answer: Path, found: OnnxAnswer) -> None:
    """What `ask` reads."""
    answer.write_text(json.dumps(asdict(found)), encoding="utf-8")


def from_onnx(model: Path, preprocess: Preprocess, scratch: Path, output: str | None = None) -> Source:
    """The model, made plain in `scratch` (see `normal_onnx`).

    output: the tensor that is the embedding, any that an operator makes; by default the model's only output.
    InputError when it cannot be taken, with what to do.
    """
    plain = scratch / "plain.onnx"
    height, width = (str(side) for side in preprocess.output_shape[1:])
    found = ask("onnx_source", scratch / "source.json", model, plain, height, width, output or "")

    def reference(tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        given, made = scratch / "given.npy", scratch / "reference.npy"
        np.save(given, tensors)
        ask("onnx_reference", scratch / "reference.json", model, given, made, output or "")
        return np.asarray(np.load(made), dtype=np.float32)

    about = {
        "kind": "onnx model",
        "form": "onnx",
        "file": model.name,
        "sha256": sha256(model),
        "prepared_sha256": sha256(plain),
        "output": found.output_name,
        "onnx_passes": found.changes,
    }
    reasons = dict.fromkeys(("pir", "pdmodel"), NEEDS_PADDLE)
    return Source(preprocess, True, {"onnx": (plain,)}, reasons, reference, about, found.input_name)
