"""One runtime in a process of its own, called our way and its own way in turns; runs in the Lite sidecar too."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edgerecall.runtimes.predictor.backend import Backend
from edgerecall.runtimes.predictor.interface import ModelIO, Predictor, RunOptions, open_backend

WARM_UP = 20


def raw_call(runtime: str, predictor: Predictor, batch: Any) -> Callable[[], Any]:
    """One inference by the runtime's own API on the predictor's own loaded model, input and output included."""
    model = predictor.runtime_object()
    if runtime == "onnxruntime":
        name = model.get_inputs()[0].name
        return lambda: model.run(None, {name: batch})[0]
    if runtime == "openvino":
        return lambda: model.infer([batch], share_inputs=True)[0]
    if runtime == "lite":
        given, taken = model.get_input(0), model.get_output(0)

        def lite_way() -> Any:
            given.from_numpy(batch)
            model.run()
            return taken.numpy().copy()

        return lite_way
    given = model.get_input_handle(model.get_input_names()[0])
    taken = model.get_output_handle(model.get_output_names()[0])

    def paddle_way() -> Any:
        given.copy_from_cpu(batch)
        model.run()
        return taken.copy_to_cpu()

    return paddle_way


def medians(runtime: str, predictor: Predictor, batch: Any, pairs: int) -> tuple[float, float]:
    """Milliseconds of ours and of the raw call, in turns, each first in half of the turns."""
    ways: list[Callable[[], Any]] = [lambda: predictor.embed(batch), raw_call(runtime, predictor, batch)]
    assert np.array_equal(np.asarray(ways[0]()).ravel(), np.asarray(ways[1]()).ravel()), runtime
    samples: list[list[int]] = [[], []]
    for turn in range(pairs + WARM_UP):
        for index in (0, 1) if turn % 2 else (1, 0):
            begin = time.perf_counter_ns()
            ways[index]()
            if turn >= WARM_UP:
                samples[index].append(time.perf_counter_ns() - begin)
    ours, raw = (statistics.median(values) / 1e6 for values in samples)
    return ours, raw


def main() -> None:
    """Prints both medians as JSON. The request is the last argument, JSON too."""
    request = json.loads(sys.argv[-1])
    io = ModelIO(request["input_name"], tuple(request["input_shape"]), request["embedding_dim"])
    batch = np.load(request["batch"])
    with open_backend(
        Backend(request["runtime"], request["predictor"]), request["files"], io, RunOptions()
    ) as predictor:
        print(json.dumps(medians(request["runtime"], predictor, batch, request["pairs"])))
