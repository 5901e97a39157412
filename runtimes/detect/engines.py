"""Detection networks as Paddle and ONNX have them: inputs by name, all outputs in order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends.paddle_model import GRAPHS, PARAMS, model_files
from ..core.errors import InputError, RuntimeFailed, RuntimeUnavailable
from ..core.text import one_line
from ..core.versions import ONNXRUNTIME, PADDLE, needs


def network_files(model: Path) -> list[Path]:
    """The files of a network: an `.onnx`, or a folder's Paddle inference model. InputError for anything else."""
    if model.is_file() and model.suffix == ".onnx":
        return [model]
    if (found := model_files(model)) is None:
        raise InputError(f"{model}: expected an .onnx, or a folder with {' or '.join(GRAPHS)} and {PARAMS}")
    return list(found)


class Engine(ABC):
    """names: of its inputs."""

    names: list[str]

    @abstractmethod
    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        """All outputs. RuntimeFailed."""


class PaddleEngine(Engine):
    """By Paddle Inference."""

    def __init__(self, files: list[Path], threads: int) -> None:
        try:
            from paddle import inference
        except ImportError as error:
            raise RuntimeUnavailable(f"the detector {needs(PADDLE, error=error)}") from error
        config = inference.Config(*map(str, files))
        config.disable_glog_info()
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(threads)
        try:
            self._predictor = inference.create_predictor(config)
        except Exception as error:
            raise InputError(f"{files[0]}: Paddle does not open it: {one_line(error)}") from error
        self.names = list(self._predictor.get_input_names())

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        try:
            for name in self.names:
                self._predictor.get_input_handle(name).copy_from_cpu(inputs[name])
            self._predictor.run()
            names = self._predictor.get_output_names()
            return [self._predictor.get_output_handle(name).copy_to_cpu() for name in names]
        except Exception as error:
            raise RuntimeFailed(f"detector: the inference failed: {one_line(error)}") from error


class OnnxEngine(Engine):
    """By ONNX Runtime."""

    def __init__(self, file: Path, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailable(f"the detector {needs(ONNXRUNTIME, error=error)}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise InputError(f"{file}: ONNX Runtime does not open it: {one_line(error)}") from error
        self.names = [one.name for one in self._session.get_inputs()]

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(None, {name: inputs[name] for name in self.names}))
        except Exception as error:
            raise RuntimeFailed(f"detector: the inference failed: {one_line(error)}") from error


def open_engine(files: list[Path], threads: int = 1) -> Engine:
    """The network of `network_files`. InputError where it cannot be opened, RuntimeUnavailable with the remedy."""
    return OnnxEngine(files[0], threads) if len(files) == 1 else PaddleEngine(files, threads)
