"""ncnn's files as data: read as ncnn itself reads them, and written back to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import RuntimeFailed
from edgerecall.runtimes.graphs.ncnn_model import NcnnModel, Weights
from edgerecall.runtimes.graphs.ncnn_network import NcnnNetwork

pytestmark = pytest.mark.runtime
# A layer of each kind that has weights, and what it reads: numbers, and whether they are tagged.
LAYERS = {
    "Convolution convolution 1 1 a b 0=4 1=3 4=1 5=1 6=108": [(108, True), (4, False)],
    "ConvolutionDepthWise depthwise 1 1 b c 0=4 1=3 4=1 6=36 7=4": [(36, True)],
    "BatchNorm norm 1 1 c d 0=4": [(4, False)] * 4,
    "Scale scale 1 1 d e 0=4 1=1": [(4, False)] * 2,
    "PReLU prelu 1 1 e f 0=4": [(4, False)],
    "MemoryData constant 0 1 g 0=8 1=8 2=4": [(256, False)],
    "BinaryOp sum 2 1 f g h 0=0": [],
    "Deconvolution deconvolution 1 1 h i 0=2 1=2 3=2 5=1 6=32": [(32, True), (2, False)],
    "InnerProduct product 1 1 i j 0=5 1=1 2=2560": [(2560, True), (5, False)],
}


@pytest.fixture
def every_kind(tmp_path: Path) -> Path:
    """A model that ncnn takes."""
    lines = ["7767517", f"{len(LAYERS) + 1} 10", "Input in 0 1 a 0=8 1=8 2=3", *LAYERS]
    rng = np.random.default_rng(0)
    data = b""
    for reads in LAYERS.values():
        for count, tagged in reads:
            data += (bytes(4) if tagged else b"") + rng.uniform(0.1, 1, count).astype(np.float32).tobytes()
    (tmp_path / "every.param").write_text("\n".join(lines) + "\n")
    (tmp_path / "every.bin").write_bytes(data)
    return tmp_path / "every.param"


def test_kinds_with_weights(every_kind: Path, tmp_path: Path) -> None:
    model = NcnnModel.read(every_kind)
    assert [[(len(one.values), one.tagged) for one in own] for own in model.weights[1:]] == list(LAYERS.values())
    model.save(tmp_path / "again.param")
    assert (tmp_path / "again.param").read_text() == every_kind.read_text()
    assert (tmp_path / "again.bin").read_bytes() == every_kind.with_suffix(".bin").read_bytes()
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)
    before = NcnnNetwork(every_kind).embed(image)
    assert before.shape == (1, 5)
    # What ncnn reads last is what we read last: had any kind before it another size, this would change more.
    *_, (weights, bias) = model.weights
    model.weights[-1] = [weights, Weights(bias.values + np.float32(1), False)]
    model.save(tmp_path / "again.param")
    np.testing.assert_allclose(NcnnNetwork(tmp_path / "again.param").embed(image), before + 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data[:-4], "ends inside the weights of layer product"),
        (lambda data: data + bytes(8), "8 bytes more than its layers are known to read"),
        (lambda data: b"\x01" + data[1:], "layer convolution: weights of an unknown type, 0x1"),
        (lambda data: b"", "ends inside the weights of layer convolution"),
    ],
)
def test_weights_that_do_not_fit(every_kind: Path, edit: Callable[[bytes], bytes], message: str) -> None:
    path = every_kind.with_suffix(".bin")
    path.write_bytes(edit(path.read_bytes()))
    with pytest.raises(RuntimeFailed, match=message):
        NcnnModel.read(every_kind)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("6=108", "6=1e2", "layer convolution: expected a whole number for 6, got '1e2'"),
        ("6=108", "6", "expected ncnn's layers"),
        ("Convolution convolution 1 1", "Convolution convolution 1", "expected ncnn's layers"),
        ("6=108", "6=-108", "ends inside the weights of layer convolution"),
    ],
)
def test_layers_that_are_none(every_kind: Path, before: str, after: str, message: str) -> None:
    every_kind.write_text(every_kind.read_text().replace(before, after))
    with pytest.raises(RuntimeFailed, match=message):
        NcnnModel.read(every_kind)
