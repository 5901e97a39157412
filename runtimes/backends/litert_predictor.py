"""LiteRT (TensorFlow Lite), by its own Python package; XNNPACK computes."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.text import one_line
from ..core.versions import Package, needs
from ..predictor.backend import Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output
from ..predictor.precision import executed_name
from ..predictor.prints import silenced

PACKAGE = Package("ai_edge_litert", "ai-edge-litert", "litert")
BACKENDS = (
    Backend(
        name="litert",
        predictor=f"{__name__}:LiteRtPredictor",
        title="LiteRT",
        package=PACKAGE,
        imports="ai_edge_litert.interpreter",
        file_format="`.tflite`",
        quantisations=("fp32", "fp16", "int8"),
        order=48,
    ),
)


HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")


class LiteRtPredictor(Predictor):
    """files: `model` (`.tflite`), whose images are `(N, H, W, 3)` or `(N, 3, H, W)`. It tells nothing of what it
    computes, but how many groups of layers XNNPACK was given. A model of one image, as most are, gets a
    batch one by one.
    """

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'litert' {needs(PACKAGE, error=error)}") from error
        if options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'litert' runs the model's own types (fp32): ask for fp32")
        self.io, self._single = io, False
        self._fresh = partial(Interpreter, model_path=files["model"], num_threads=options.threads)
        if not options.graph_optimization:
            self._fresh = partial(self._fresh, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        try:
            with silenced(2):  # it tells of XNNPACK
                self._open(options.batch)
        except (ValueError, RuntimeError) as error:
            raise RuntimeFailed(f"litert cannot load the model: {one_line(error)}") from error
        operators = self._interpreter._get_ops_details()
        detail = {
            "xnnpack": sum(operator["op_name"] == "DELEGATE" for operator in operators),
            "images_at_once": 1 if self._single else "a batch",
            "weights": stored_as(self._interpreter.get_tensor_details()),
            "input_name": self._interpreter.get_input_details()[0]["name"],
        }
        # As the model's own types say: nothing records what ran.
        self.info = RuntimeInfo("litert", version("ai-edge-litert"), computed_in(operators), None, detail=detail)

    def _open(self, count: int) -> None:
        """Loads the model and makes it ready for a batch size, or for one image where it takes no such batch."""
        self._interpreter = self._fresh()
        given, self._output = self._ends()
        self._channels_last, self._input = given["shape"][-1] == 3, given["index"]
        self._single = self._single or given["shape_signature"][0] == 1
        try:
            self._prepare(1 if self._single else count)
        except RuntimeError:
            if self._single or count == 1:
                raise
            self._one_by_one()

    def _one_by_one(self) -> None:
        """What failed to take a batch cannot go on: the model is loaded again, for single images."""
        self._single = True
        self._open(1)

    def _ends(self) -> tuple[dict[str, Any], int]:
        """The input, and the output's index. ValueError for a model that takes no float32 images and gives vectors."""
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, 1):
            raise ValueError(f"expected one input and one output, it has {len(inputs)} and {len(outputs)}")
        channels, height, width = self.io.input_shape
        shape = tuple(map(int, inputs[0]["shape"][1:]))
        if inputs[0]["shape_signature"][0] not in (-1, 1):
            raise ValueError(f"expected one image or a free batch, it takes {inputs[0]['shape_signature'][0]} images")
        if inputs[0]["dtype"] != np.float32 or shape not in ((height, width, channels), (channels, height, width)):
            raise ValueError(
                f"expected float32 images {height} x {width}, it takes {inputs[0]['dtype'].__name__} {shape}"
            )
        return inputs[0], int(outputs[0]["index"])

    def _prepare(self, count: int) -> None:
        """Makes the interpreter ready for a batch size."""
        channels, height, width = self.io.input_shape
        sides = (height, width, channels) if self._channels_last else (channels, height, width)
        self._interpreter.resize_tensor_input(self._input, (count, *sides))
        self._interpreter.allocate_tensors()
        self._ready = count

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            output = self._run_all(batch)
        except (ValueError, RuntimeError) as error:
            raise RuntimeFailed(f"litert: the inference failed: {one_line(error)}") from error
        return checked_output("litert", output, len(batch), self.io)

    def _run_all(self, batch: NDArray[Any]) -> NDArray[Any]:
        if not self._single:
            try:
                return self._run(batch)
            except RuntimeError:  # shapes inside that name one image
                if len(batch) == 1:
                    raise
                with silenced(2):
                    self._one_by_one()
                self.info.detail["images_at_once"] = 1
        return np.concatenate([self._run(batch[index : index + 1]) for index in range(len(batch))])

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        if len(batch) != self._ready:
            self._prepare(len(batch))
        # Into its own memory; no view of it may live while it runs.
        np.copyto(
            self._interpreter.tensor(self._input)(), batch.transpose(0, 2, 3, 1) if self._channels_last else batch
        )
        self._interpreter.invoke()
        output: NDArray[Any] = self._interpreter.get_tensor(self._output)
        if len(output) != len(batch):
            raise RuntimeError(f"{len(output)} embeddings of {len(batch)} images")
        return output

    def runtime_object(self) -> Any:
        """The `Interpreter`."""
        return self._interpreter


def stored_as(tensors: list[dict[str, Any]]) -> str:
    """How a model's weights are quantised: "int8" or "fp16" where any tensor is, else "fp32"."""
    types = {tensor["dtype"] for tensor in tensors}
    return next((name for kind, name in ((np.int8, "int8"), (np.float16, "fp16")) if kind in types), "fp32")


def computed_in(operators: list[dict[str, Any]]) -> str:
    """The types that the heavy layers multiply in; float activations by int8 weights are made int8 on the way."""
    factors = [operator["operand_types"][:2] for operator in operators if operator["op_name"] in HEAVY]
    return executed_name({"int8" if np.int8 in pair else np.dtype(pair[0]).name for pair in factors})
