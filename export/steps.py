"""Export steps that run in processes of their own (`context.own_step`): arguments NAME ARGS...

Paddle chooses between its two program formats by an environment variable read at import, and converters may crash.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..runtimes.core.errors import EdgeRecallError, InputError, ParityError
from ..runtimes.core.text import one_line
from ..runtimes.core.versions import missing_package

OPSET = 17


def trace(config_file: str, checkpoint: str, prefix: str) -> None:
    """Checkpoint -> Paddle inference model; the format depends on FLAGS_enable_pir_api."""
    import paddle

    from ..train.config.training import TrainConfig
    from ..train.encoder import save_inference
    from ..train.network import EmbeddingNetwork
    from ..train.state.checkpoint import load_network

    config = TrainConfig.model_validate_json(Path(config_file).read_text(encoding="utf-8"))
    paddle.set_device("cpu")
    network = EmbeddingNetwork(config.Arch)
    load_network(network, Path(checkpoint))
    network.eval()
    network.join_branches()
    save_inference(network, config.Global.image_shape, prefix)


def lite_ready(source: str, target: str) -> None:
    """`.pdmodel` -> `.pdmodel` that Paddle Lite takes; prints what was changed as JSON."""
    from .passes import make_lite_ready

    changes = make_lite_ready(Path(source), Path(target))
    sys.stdout.write(json.dumps(changes) + "\n")


def onnx(model: str, params: str, target: str) -> None:
    """Paddle inference model -> ONNX."""
    import paddle2onnx

    paddle2onnx.export(
        model,
        params,
        target,
        opset_version=OPSET,
        auto_upgrade_opset=True,
        verbose=False,
        enable_onnx_checker=True,
        optimize_tool=None,
    )
    if not Path(target).is_file():
        raise EdgeRecallError("paddle2onnx wrote no file")


def onnx_source(answer: str, model: str, target: str, height: str, width: str, output: str) -> None:
    """ONNX from outside -> ONNX made plain."""
    from .sources.normal_onnx import prepare
    from .sources.onnx_source import OnnxAnswer, tell_source

    try:
        ends, changes = prepare(Path(model), Path(target), (3, int(height), int(width)), output or None)
    except (InputError, ParityError) as error:
        tell_source(Path(answer), OnnxAnswer(refused=f"{model}: {error}"))
        return
    tell_source(Path(answer), OnnxAnswer(None, ends.input_name, ends.output_name, changes))


def onnx_reference(answer: str, model: str, tensors: str, target: str, output: str) -> None:
    """What ONNX from outside gives as it came."""
    from .sources.normal_onnx import reference
    from .sources.onnx_source import OnnxAnswer, tell_source

    try:
        np.save(target, reference(Path(model), np.load(tensors), output or None))
    except InputError as error:
        tell_source(Path(answer), OnnxAnswer(refused=f"{model}: {error}"))
        return
    tell_source(Path(answer), OnnxAnswer())


def openvino(source: str, target: str) -> None:
    """`.pdmodel` or ONNX -> OpenVINO IR, weights kept in float32."""
    import openvino as ov

    model = ov.convert_model(source)
    ov.save_model(model, target, compress_to_fp16=False)


def mnn(source: str, target: str, *options: str) -> None:
    """ONNX -> MNN, in the current folder."""
    import _tools  # of MNN's package, whose console scripts are never run: they may install packages
    import onnx

    from .formats.mnn_format import without_norms

    onnx.save_model(without_norms(onnx.load(source)), "model.onnx")
    arguments = ["-f", "ONNX", "--modelFile", "model.onnx", "--MNNModel", target, "--bizCode", "edgerecall", *options]
    _tools.mnnconvert(["mnnconvert", *arguments])
    if not Path(target).is_file():
        raise EdgeRecallError("it wrote no file")


def mnn_fp16(answer: str, source: str, target: str) -> None:
    """ONNX -> MNN with its weights as float16."""
    from .formats.mnn_format import convert
    from .quantize.onnx_half import round_onnx

    with tempfile.TemporaryDirectory() as work:
        rounded = Path(work) / "rounded.onnx"
        round_onnx(Path(source), rounded)
        convert(rounded, Path(target), Path(work), "--fp16")
    tell(answer, "MNN", [])


def litert(source: str, target: str) -> None:
    """ONNX -> TFLite of one image, in the current folder: of a free batch the converter makes each padding five layers,
    and the whole half as slow again.
    """
    import onnx2tf

    one_image(source, "model.onnx")
    onnx2tf.convert(input_onnx_file_path="model.onnx", output_folder_path="made", non_verbose=True, verbosity="error")
    shutil.copyfile(Path("made") / "model_float32.tflite", target)


def one_image(source: str, target: str) -> None:
    """ONNX -> ONNX whose batch is one image."""
    import onnx

    model = onnx.load(source)
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save_model(model, target)


def onnx_fp16(answer: str, source: str, target: str) -> None:
    """ONNX -> ONNX with its weights as float16."""
    from .quantize.onnx_half import halve_onnx

    halve_onnx(Path(source), Path(target))
    tell(answer, "onnx", [])


def openvino_fp16(answer: str, source: str, target: str) -> None:
    """IR -> IR with its weights as float16."""
    from .quantize.openvino_ir import halve_ir

    halve_ir(Path(source), Path(target))
    tell(answer, "openvino", [])


def qdq(answer: str, source: str, target: str, recipe: str, tensors: str, known: str = "") -> None:
    """ONNX -> ONNX in int8."""
    from .quantize.onnx_int8 import quantize_onnx
    from .quantize.recipes import Int8Recipe

    read = Int8Recipe.model_validate_json(Path(recipe).read_text(encoding="utf-8"))
    ranges = Path(known) if known else None
    kept = quantize_onnx(Path(source), np.load(tensors, mmap_mode="r"), read, Path(target), ranges)
    tell(answer, "onnxruntime", kept)


def nncf(answer: str, source: str, target: str, recipe: str, tensors: str) -> None:
    """IR -> IR in int8."""
    from .quantize.openvino_ir import quantize_ir
    from .quantize.recipes import Int8Recipe

    read = Int8Recipe.model_validate_json(Path(recipe).read_text(encoding="utf-8"))
    tell(answer, "nncf", quantize_ir(Path(source), np.load(tensors, mmap_mode="r"), read.keep, Path(target)))


def ncnn_fp16(answer: str, source: str, target: str) -> None:
    """ncnn -> ncnn with its weights as float16."""
    from .quantize.ncnn_int8 import halve_ncnn

    halve_ncnn(Path(source), Path(target))
    tell(answer, "ncnn", [])


def ncnn(answer: str, source: str, target: str, recipe: str, tensors: str) -> None:
    """ncnn -> ncnn in int8."""
    from .quantize.ncnn_int8 import quantize_ncnn
    from .quantize.recipes import Int8Recipe

    read = Int8Recipe.model_validate_json(Path(recipe).read_text(encoding="utf-8"))
    tell(answer, "ncnn", quantize_ncnn(Path(source), np.load(tensors, mmap_mode="r"), read, Path(target)))


def tell(answer: str, tool: str, kept: list[str]) -> None:
    """Writes what did it and what it left in float into the file `answer`."""
    Path(answer).write_text(json.dumps({"tool": tool, "version": version(tool), "kept": kept}), encoding="utf-8")


STEPS: dict[str, Callable[..., None]] = {
    "trace": trace,
    "lite_ready": lite_ready,
    "onnx": onnx,
    "onnx_source": onnx_source,
    "onnx_reference": onnx_reference,
    "openvino": openvino,
    "onnx_fp16": onnx_fp16,
    "openvino_fp16": openvino_fp16,
    "qdq": qdq,
    "nncf": nncf,
    "one_image": one_image,
    "mnn": mnn,
    "mnn_fp16": mnn_fp16,
    "litert": litert,
    "ncnn": ncnn,
    "ncnn_fp16": ncnn_fp16,
}


def main() -> None:
    """Runs the named step; its reason goes to standard error as one line."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # OpenVINO's converter and NNCF do without it
    try:
        STEPS[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # everything a converter raises becomes a reason
        missing = missing_package(error) if isinstance(error, ImportError) else None
        reason = missing or (
            one_line(error) if isinstance(error, EdgeRecallError) else f"{type(error).__name__}: {error}"
        )
        sys.stderr.write(f"StepError: {one_line(reason)}\n")
        sys.stderr.flush()
        raise SystemExit(1) from None
