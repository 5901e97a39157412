"""The search on graphs made by hand: what a fault is, and what only passes it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edgerecall.bench.diagnose.fault_search import Search, search
from edgerecall.bench.diagnose.graphs import different_parameters
from edgerecall.bench.diagnose.matching import match, plain
from edgerecall.runtimes.predictor.interface import InnerTensor, activations

Values = np.ndarray
Step = tuple[str, str, tuple[str, ...], Callable[..., Values], tuple[tuple[str, str], ...]]


class Graph:
    """Operators in order: name, kind, inputs, function, constants. "x" is the input."""

    def __init__(self, x: Values, *steps: Step) -> None:
        self.x, self.steps = x.astype(np.float32), steps

    def run(self, given: Mapping[str, Values]) -> list[InnerTensor]:
        fed: dict[str, Any] = {"x": self.x}
        described, made = [], []
        for name, kind, inputs, function, constants in self.steps:
            value = function(*(fed[one] for one in inputs))
            value = value.astype(np.float32) if value.dtype.kind == "f" else value
            described.append(InnerTensor(name, kind, np.empty(0), name, inputs, constants))
            made.append(value)
            fed[name] = given.get(name, value)
        return activations(described, made)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6, 5, 5))
WEIGHTS = RNG.standard_normal((6, 6)).astype(np.float32)
BIAS = RNG.standard_normal(6).astype(np.float32)
W, B = (("1", "w"),), (("1", "b"),)


def mixed(weights: Values) -> Callable[[Values], Values]:
    return lambda x: np.einsum("oc,nchw->nohw", weights, x)


def biased(bias: Values) -> Callable[[Values], Values]:
    return lambda x: x + bias[:, None, None]


def looked(sound: Graph, suspect: Graph) -> Search:
    return search(sound.run({}), suspect.run({}), suspect.run)


def chain(weights: Values = WEIGHTS, bias: Values = BIAS, power: float = 1.0) -> Graph:
    return Graph(
        X,
        ("conv", "Conv", ("x",), mixed(weights), W),
        ("add", "Add", ("conv",), biased(bias), B),
        ("relu", "Relu", ("add",), lambda x: np.maximum(x, 0) ** power, ()),
        ("conv2", "Conv", ("relu",), mixed(WEIGHTS.T), W),
        ("out", "ReduceMean", ("conv2",), lambda x: x.mean((2, 3)), ()),
    )


def fused() -> Graph:
    """The same with convolution and bias in one."""
    return Graph(
        X,
        ("c", "conv", ("x",), lambda x: biased(BIAS)(mixed(WEIGHTS)(x)), ()),
        ("r", "relu", ("c",), lambda x: np.maximum(x, 0), ()),
        ("c2", "conv", ("r",), mixed(WEIGHTS.T), ()),
        ("o", "pool", ("c2",), lambda x: x.mean((2, 3)), ()),
    )


def changed(values: Values, index: int, factor: float) -> Values:
    found = values.copy()
    found[index] *= factor
    return found


@pytest.mark.parametrize("factor", [1.001, 0.0, -3.0, 1e6, np.nan])
def test_faint_and_total_faults(factor: float) -> None:
    suspects = {"conv": chain(changed(WEIGHTS, 2, factor)), "add": chain(bias=changed(BIAS, 2, factor))}
    for sound in (chain(), fused()):
        assert looked(sound, chain()).faults == ()
        for name, suspect in suspects.items():
            found = looked(sound, suspect)
            (fault,) = found.faults
            assert found.repaired and fault.match.wrong == (2,)
            assert fault.made.name == name and not fault.others, (factor, name)


def test_an_operator_that_is_wrong_everywhere() -> None:
    found = looked(chain(), chain(power=1.1))
    assert [fault.made.name for fault in found.faults] == ["relu"] and found.repaired
    found = looked(chain(), chain(weights=WEIGHTS * np.float32(1.3)))
    assert [fault.made.name for fault in found.faults] == ["conv"] and found.repaired


def test_tokens_have_their_channels_last() -> None:
    tokens = RNG.standard_normal((4, 7, 6))

    def graph(bias: Values, weights: Values = WEIGHTS) -> Graph:
        return Graph(
            tokens,
            ("mm", "MatMul", ("x",), lambda x: x @ weights, W),
            ("add", "Add", ("mm",), lambda x: x + bias, B),
            ("out", "ReduceMean", ("add",), lambda x: x.mean(1), ()),
        )

    whole = Graph(
        tokens,
        ("l", "linear", ("x",), lambda x: x @ WEIGHTS + BIAS, ()),
        ("o", "mean", ("l",), lambda x: x.mean(1), ()),
    )
    for suspect, name in ((graph(changed(BIAS, 4, 1.5)), "add"), (graph(BIAS, changed(WEIGHTS.T, 4, 1.5).T), "mm")):
        (fault,) = looked(whole, suspect).faults
        assert fault.made.name == name and fault.match.wrong == (4,) and fault.match.axis == 2 and not fault.others


def test_what_passes_a_fault_on_as_a_condition_is_sound() -> None:
    def graph(bias: Values) -> Graph:
        return Graph(
            X,
            ("a", "Add", ("x",), biased(bias), B),
            ("g", "Greater", ("a",), lambda x: x > 0.3, ()),
            ("w", "Where", ("g", "x"), lambda g, x: np.where(g, x, -x), ()),
            ("out", "ReduceMean", ("w",), lambda x: x.mean((2, 3)), ()),
        )

    found = looked(graph(BIAS), graph(changed(BIAS, 1, 5.0)))
    assert [fault.made.name for fault in found.faults] == ["a"] and found.repaired


def test_errors_that_cancel_in_the_whole_graph_blame_nobody_when_one_of_them_is_fed() -> None:
    """ "sum" agrees by itself; while "far" is fed its sound value and "near" is not, it would not."""

    def graph(bias: Values) -> Graph:
        return Graph(
            X,
            ("a", "Add", ("x",), biased(bias), B),
            ("near", "Mul", ("a",), lambda a: a * 1.0, ()),
            ("far", "Sub", ("x", "a"), lambda x, a: 100 * x - a, ()),
            ("sum", "Add", ("x", "near", "far"), lambda x, near, far: near + far - 99 * x, ()),
            ("out", "ReduceMean", ("sum",), lambda x: x.mean((2, 3)), ()),
        )

    found = looked(graph(BIAS), graph(BIAS + np.float32(1e-3) * (np.arange(6) == 2)))
    assert [fault.made.name for fault in found.faults] == ["a"] and found.repaired


def test_an_operator_of_unknown_kind_at_the_end_of_a_region_is_only_suspected() -> None:
    def graph(weights: Values) -> Graph:
        return Graph(
            X,
            ("conv", "Conv", ("x",), mixed(weights), W),
            ("norm", "BatchNormalization", ("conv",), lambda x: biased(BIAS)(2 * x), B),
            ("out", "ReduceMean", ("norm",), lambda x: x.mean((2, 3)), ()),
        )

    sound = Graph(
        X,
        ("c", "conv", ("x",), lambda x: biased(BIAS)(2 * mixed(WEIGHTS)(x)), ()),
        ("o", "mean", ("c",), lambda x: x.mean((2, 3)), ()),
    )
    (fault,) = looked(sound, graph(changed(WEIGHTS, 2, 1.5))).faults
    assert {fault.made.name, *fault.others} == {"conv", "norm"}


def test_matching_numbers_that_are_none() -> None:
    values = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    broken = values.copy()
    broken[1, 2, 3] = np.nan
    for a, b in ((values, broken), (broken, values), (values * 5, broken)):
        assert not match(plain(a), plain(b)).agrees
    assert plain(np.float32(3)).shape == (1,)
    assert match(plain(np.float32(3)), plain(np.float32(3))).agrees
    known = {"a": values, "b": values, "t": np.ones((2, 3), np.float32)}
    assert list(different_parameters({"a": broken, "b": values, "t": np.ones((3, 2), np.float32)}, known)) == ["a"]
    assert list(different_parameters({"a": values}, {"a": broken})) == ["a"]
