"""Faults of one parameter at any operator, mild to total: the operator is named, and no sound one ever is.

EDGERECALL_FAULTS: how many of each network and runtime; EDGERECALL_SEED: which.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_networks
from planted import onnx_parameters, plant, seal_again

from edgerecall.bench.diagnose.fault_search import Search, search
from edgerecall.bench.diagnose.graphs import probes
from edgerecall.bench.diagnose.sides import ALLOWED, SideRequest, embed
from edgerecall.bench.diagnose.why import why
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor

COUNT = int(os.environ.get("EDGERECALL_FAULTS", "2"))
SEED = int(os.environ.get("EDGERECALL_SEED", "0"))
ASK_ALL = "EDGERECALL_FAULTS" in os.environ  # `why` about every fault, not about each case's first alone
RUNTIMES = ("onnxruntime", "openvino", "ncnn")
CASES = [(name, runtime) for name in small_networks.NAMES for runtime in RUNTIMES]


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize(("name", "runtime"), CASES)
def test_the_operator_at_fault(name: str, runtime: str, network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    source = network_bundle(name)
    bundle = Bundle.open(source)
    _, tensors, sealed = bundle.golden()
    named = 0
    with open_predictor(bundle, "paddle", worker=True) as paddle:
        with open_predictor(bundle, runtime, worker=True) as predictor:
            for found in searched(bundle, paddle, predictor, 0):
                assert not found.faults and found.repaired, [fault.made.operator for fault in found.faults]
        for seed in range(SEED, SEED + COUNT):
            planted = plant(source, tmp_path / "bundle", runtime, seed)
            with open_predictor(planted.bundle, runtime, worker=True) as predictor:
                off = np.abs(embed(predictor, *tensors) - sealed).max(axis=1)
                # Of the image that `why` asks about too.
                found = None
                for one in searched(bundle, paddle, predictor, int(off.argmax())):
                    assert one.repaired and not any(fault.others for fault in one.faults), f"seed {seed}: {planted}"
                    if one.faults:
                        found = one
                        break
            moved = float(off.max() / np.abs(sealed).max())
            blamed = [fault.made.operator for fault in found.faults] if found else []
            assert blamed in ([planted.operator], []), f"seed {seed}: {planted}: blamed {blamed}"
            assert blamed or moved <= ALLOWED, f"seed {seed}: {planted}: moved by {moved:.1e} and not named"
            named += bool(blamed)
            if seed == SEED or ASK_ALL:
                answer = why(planted.bundle, None, SideRequest("sealed"), SideRequest(runtime))
                assert answer.differs or moved <= ALLOWED, f"seed {seed}: {planted}: moved by {moved:.1e}, exit code 0"
                assert not blamed or f"'{planted.operator}'" in answer.cause, f"seed {seed}: {answer.cause}"
    assert named >= COUNT // 2  # the others do not show in any embedding: dead channels, bounds that nothing reaches


def searched(bundle: Bundle, paddle: Any, predictor: Any, index: int) -> Iterator[Search]:
    """The searches for one of the golden images, one after the other, as `why` has them."""
    for batch in probes(bundle, bundle.golden()[1][index]):
        sound, own = paddle.inner_tensors(batch), predictor.inner_tensors(batch)
        assert sound is not None and own is not None
        yield search(sound, own, lambda given, batch=batch: predictor.inner_tensors(batch, given))


@pytest.mark.runtime
def test_the_parameter_is_named(network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    """Of whichever side: the sealed outputs say which."""
    bundle, operator, index, value = zeroed_scale(network_bundle("mobilenet_v3"), tmp_path / "bundle")
    for a, b in (("sealed", "onnxruntime"), ("paddle", "onnxruntime"), ("onnxruntime", "openvino")):
        answer = why(bundle, None, SideRequest(a), SideRequest(b))
        assert answer.differs and answer.cause.count("confirmed") == 1, answer.cause
        assert f"confirmed: '{operator}' (BatchNormalization) in onnxruntime" in answer.cause
        assert f"in channel {index} of" in answer.cause and f"[{index}] is 0, in paddle {value:.6g}" in answer.cause
        assert "onnxruntime left the sealed output" in answer.cause and "\n" not in answer.cause
    assert not why(bundle, None, SideRequest("paddle"), SideRequest("openvino")).differs


@pytest.mark.runtime
@pytest.mark.parametrize(("runtime", "value"), [("onnxruntime", np.nan), ("openvino", np.nan), ("onnxruntime", np.inf)])
def test_an_operator_that_gives_nan(
    network_bundle: Callable[[str], Path], tmp_path: Path, runtime: str, value: float
) -> None:
    """What no bench takes is looked into all the same, by the golden image that shows it."""
    bundle, operator = poisoned(network_bundle("mobilenet_v3"), tmp_path / "bundle", runtime, value)
    answer = why(bundle, None, SideRequest("sealed"), SideRequest(runtime))
    assert answer.differs and f"graph differs (confirmed: '{operator}'" in answer.cause
    assert "suspected" not in answer.cause and ("is NaN or infinite" in answer.cause or np.isinf(value))
    graph, end = answer.stages[-2:]
    assert graph.differs and end.differs and "nan off" not in graph.result + end.result


def poisoned(source: Path, folder: Path, runtime: str, value: float) -> tuple[Bundle, str]:
    """One number of the last but one parameter NaN or infinite; the operator."""
    import shutil

    import onnx
    import openvino
    from planted import onnx_parameters, openvino_parameters, seal_again

    shutil.copytree(source, folder)
    path = folder / ("onnx/model.onnx" if runtime == "onnxruntime" else "openvino/model.xml")
    ir = openvino.Core().read_model(source / "openvino" / "model.xml")
    model = onnx.load(path) if path.suffix == ".onnx" else ir
    chosen = [*(onnx_parameters(model) if path.suffix == ".onnx" else openvino_parameters(model))][-2]
    values = chosen.values.copy()
    values.reshape(-1)[0] = value
    chosen.put(values)
    if path.suffix == ".onnx":
        onnx.save(model, path)
    else:
        openvino.save_model(model, path, compress_to_fp16=False)
    return seal_again(folder), chosen.operator


def zeroed_scale(source: Path, folder: Path) -> tuple[Bundle, str, int, float]:
    """A channel of the fifth batch norm dead; the operator, the channel and what its scale was."""
    import shutil

    import onnx
    from planted import onnx_parameters, seal_again

    shutil.copytree(source, folder)
    model = onnx.load(folder / "onnx" / "model.onnx")
    scales = [one for one in onnx_parameters(model) if one.role == "scale"]
    chosen, index = scales[4], 3
    values = chosen.values.copy()
    values[index] = 0
    chosen.put(values)
    onnx.save(model, folder / "onnx" / "model.onnx")
    return seal_again(folder), chosen.operator, index, float(chosen.values[index])


@pytest.mark.runtime
def test_two_faults_and_a_fault_in_paddle(network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    """Several are named in the graph's order; a runtime that takes no inner tensors is tried by the other's."""
    import onnx
    from planted import changed, onnx_parameters, seal_again

    source = network_bundle("mobilenet_v2")
    bundle, first, *_ = zeroed_scale(source, tmp_path / "bundle")
    path = bundle.root / "onnx" / "model.onnx"
    model = onnx.load(path)
    second = [one for one in onnx_parameters(model) if one.role == "W"][12]
    second.put(changed(second.values, 0, "scale", 0.5, np.random.default_rng(0)))
    onnx.save(model, path)
    cause = why(seal_again(bundle.root), None, SideRequest("sealed"), SideRequest("onnxruntime")).cause
    assert cause.index(f"confirmed: '{first}'") < cause.index(f"; then confirmed: '{second.operator}'"), cause
    assert "suspected" not in cause and "with paddle's output there the outputs agree" in cause
    swapped = Bundle.open(swap_paddle(source, tmp_path / "swapped"))
    cause = why(swapped, None, SideRequest("onnxruntime"), SideRequest("paddle")).cause
    assert "confirmed: 'conv2d:" in cause and "in paddle" in cause, cause
    assert "paddle left the sealed output" in cause
    assert ".w_0[2, " in cause and "without effect" not in cause, cause  # the parameter is the fault's own


def swap_paddle(source: Path, folder: Path) -> Path:
    """Some weights of Paddle's first convolution scaled."""
    import shutil

    from planted import seal_again

    shutil.copytree(source, folder)
    with open_predictor(Bundle.open(folder), "paddle", worker=True) as predictor:
        parameters: Any = predictor.parameters()
    names = [name for name in parameters if name.startswith("conv2d_") and name.endswith(".w_0")]
    weights = parameters[min(names, key=lambda name: int(name[len("conv2d_") : -len(".w_0")]))]
    path = folder / "paddle" / "inference.pdiparams"
    data, old = path.read_bytes(), weights.tobytes()
    assert data.count(old) == 1
    scaled = weights.copy()
    scaled[2] *= 1.5
    path.write_bytes(data.replace(old, scaled.tobytes()))
    seal_again(folder)
    return folder


@pytest.mark.runtime
def test_a_fault_that_the_embedding_does_not_show(
    network_bundle: Callable[[str], Path], tmp_path: Path, edgerecall: Callable[..., Any]
) -> None:
    import shutil

    import onnx
    from planted import onnx_parameters, seal_again

    folder = tmp_path / "bundle"
    shutil.copytree(network_bundle("mobilenet_v3"), folder)
    model = onnx.load(folder / "onnx" / "model.onnx")
    mean = [one for one in onnx_parameters(model) if one.role == "input_mean"][20]
    values = mean.values.copy()
    values[1] += np.float32(2e-6) * np.abs(values).max()
    mean.put(values)
    onnx.save(model, folder / "onnx" / "model.onnx")
    seal_again(folder)
    result = edgerecall("why", folder, "--b", "onnxruntime")
    assert result.returncode == 0, result.stdout
    last = " ".join(result.stdout.split("no difference")[-1].split())
    assert last.startswith("beyond the tolerance") and f"[1] of '{mean.operator}' is" in last, result.stdout


@pytest.mark.runtime
def test_a_bound_that_no_image_reaches(network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(network_bundle("mobilenet_v2"), tmp_path / "bundle")
    path = tmp_path / "bundle" / "onnx" / "model.onnx"
    model = onnx.load(path)
    chosen = next(one for one in onnx_parameters(model) if (one.operator, one.role) == ("Clip.16", "max"))
    chosen.put(np.full_like(chosen.values, 6.5))
    onnx.save(model, path)
    bundle = seal_again(tmp_path / "bundle")
    with (
        open_predictor(bundle, "paddle", worker=True) as paddle,
        open_predictor(bundle, "onnxruntime", worker=True) as predictor,
    ):
        weak, strong = searched(bundle, paddle, predictor, 0)
        assert not weak.faults and [fault.made.operator for fault in strong.faults] == ["Clip.16"]
    answer = why(bundle, None, SideRequest("sealed"), SideRequest("onnxruntime"))
    assert not answer.differs and "although confirmed: 'Clip.16' (Clip) in onnxruntime" in answer.cause, answer.cause


@pytest.mark.runtime
def test_an_operator_that_does_nothing(network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    """A bound of NaN: ONNX Runtime's Clip then gives what it is fed, and the operator after it seems wrong."""
    shutil.copytree(network_bundle("mobilenet_v2"), tmp_path / "bundle")
    path = tmp_path / "bundle" / Bundle.open(tmp_path / "bundle").artifact("onnxruntime").files[0].path
    model = onnx.load(path)
    bounds = [one for one in onnx_parameters(model) if one.operator.startswith("Clip") and one.role == "min"]
    chosen = bounds[len(bounds) // 2]
    chosen.put(np.full_like(chosen.values, np.nan))
    onnx.save(model, path)
    answer = why(seal_again(tmp_path / "bundle"), None, SideRequest("paddle"), SideRequest("onnxruntime"))
    assert f"confirmed: '{chosen.operator}' (Clip) in onnxruntime" in answer.cause
    assert answer.cause.count("confirmed") == 1, answer.cause


@pytest.mark.runtime
def test_factors_of_one(network_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    """A slope of NaN: OpenVINO's HardSigmoid then gives 1 everywhere, the product after it what it is fed, and the
    convolution after that seems wrong.
    """
    import openvino
    from planted import openvino_parameters

    source = network_bundle("mobilenet_v3")
    names = [
        one.operator for one in slopes(openvino_parameters(openvino.Core().read_model(source / "openvino/model.xml")))
    ]
    for place in (1, len(names) // 2):
        folder = tmp_path / names[place]
        shutil.copytree(source, folder)
        model = openvino.Core().read_model(source / "openvino" / "model.xml")
        chosen = slopes(openvino_parameters(model))[place]
        chosen.put(np.full_like(chosen.values, np.nan))
        openvino.save_model(model, folder / "openvino" / "model.xml", compress_to_fp16=False)
        answer = why(seal_again(folder), None, SideRequest("paddle"), SideRequest("openvino"))
        assert f"confirmed: '{chosen.operator}' (HardSigmoid) in openvino" in answer.cause
        assert answer.cause.count("confirmed") == 1, answer.cause


def slopes(parameters: Any) -> list[Any]:
    """Those of HardSigmoids."""
    return [one for one in parameters if "hardsigmoid" in one.operator and one.role == "1"]
