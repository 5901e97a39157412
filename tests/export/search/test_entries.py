"""Which raced recipe ships: the fastest that keeps the gates, and no int8 that its runtime does not need."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgerecall.bench.schema.rows import GateVerdict, Row
from edgerecall.bench.schema.statistics import Interval
from edgerecall.export.search.entries import FIGURES, Entry, choose, entry, front

pytestmark = pytest.mark.runtime
ALLOWED = dict.fromkeys(FIGURES, 0.005)
PLAIN = Entry(
    "float32", "onnxruntime", speed=Interval(1.0, 1.0, 1.0), changes=dict.fromkeys(FIGURES, Interval(0, 0, 0))
)


def int8(name: str, speed: float, loss: float, status: str = "ok", spread: float = 0.1) -> Entry:
    changes = {**dict.fromkeys(FIGURES, Interval(0.0, -0.001, 0.001)), "mixed_map": Interval(-loss, -loss - 0.01, 0.0)}
    return Entry(
        name,
        "onnxruntime",
        "onnx-int8",
        "folder",
        status,  # type: ignore[arg-type]
        None if status == "ok" else "why",
        quantisation="int8",
        speed=Interval(speed, speed - spread, speed + spread),
        changes=changes,
        verdicts=[GateVerdict("mAP", "undecided", 0.005, 9000)] if status == "undecided" else [],
    )


def chosen(*entries: Entry) -> tuple[str | None, str]:
    found = choose("onnx-int8", "onnxruntime", [PLAIN, *entries], ALLOWED)
    return found.entry and found.entry.name, found.sentence


def test_the_fastest_that_holds_ships() -> None:
    slow, fast, lossy = int8("slow", 1.5, 0.0), int8("fast", 2.0, 0.004), int8("lossy", 4.0, 0.3, "parity")
    assert chosen(slow, fast, lossy)[0] == "fast"
    assert chosen(slow, fast, int8("faster", 2.5, 0.004, "undecided"))[0] == "fast"
    # As fast, as far as is told, and it loses less.
    assert chosen(fast, int8("better", 1.95, 0.001))[0] == "better"
    assert chosen(fast, int8("better", 1.85, 0.001))[0] == "fast"


def test_undecided_ships_only_within_the_limits_and_says_so() -> None:
    name, sentence = chosen(int8("near", 2.0, 0.004, "undecided"), int8("far", 3.0, 0.02, "undecided"))
    assert name == "near" and "undecided: mAP undecided (about 9,000 queries would decide)" in sentence
    name, sentence = chosen(int8("far", 3.0, 0.02, "undecided"), int8("lost", 3.0, 0.4, "parity"))
    assert name is None and sentence.startswith("no recipe kept the gates") and "far: 3.00 times" in sentence


@pytest.mark.parametrize(("speed", "spread"), [(0.8, 0.01), (1.05, 0.1)])
def test_no_int8_that_is_not_surely_faster(speed: float, spread: float) -> None:
    name, sentence = chosen(int8("int8", speed, 0.0, spread=spread))
    assert name is None and sentence.startswith("not surely faster than float32 in onnxruntime (1.00 times)")
    assert f"int8: {speed:.2f} times as fast as float32; recall@1 +0.0000" in sentence


def test_lower_execution_precision_is_a_rival() -> None:
    bf16 = Entry(
        "float32, asked to compute in bf16", "onnxruntime", speed=Interval(1.9, 1.8, 2.0), changes=PLAIN.changes
    )
    assert chosen(int8("int8", 1.8, 0.0), bf16)[0] is None
    assert chosen(int8("int8", 1.8, 0.0), bf16)[1].startswith(
        "not surely faster than float32, asked to compute in bf16"
    )
    assert chosen(int8("int8", 2.1, 0.0), bf16)[0] == "int8"
    bf16.status = "undecided"
    assert chosen(int8("int8", 1.8, 0.0), bf16)[0] is None
    bf16.status = "parity"  # it lost recall itself
    assert chosen(int8("int8", 1.8, 0.0), bf16)[0] == "int8"
    bf16.status, bf16.runtime = "ok", "openvino"  # another runtime's
    assert chosen(int8("int8", 1.8, 0.0), bf16)[0] == "int8"


def test_one_that_holds_but_is_not_worth_it_gives_way_to_an_undecided_one_that_is() -> None:
    slow, doubted = int8("slow", 0.98, 0.0), int8("doubted", 1.5, 0.004, "undecided")
    name, sentence = chosen(slow, doubted)
    assert name == "doubted" and "undecided: mAP undecided" in sentence
    assert chosen(slow, int8("doubted", 1.5, 0.02, "undecided"))[0] is None
    assert chosen(int8("slow", 1.3, 0.0), doubted)[0] == "slow"
    name, sentence = chosen(slow, int8("doubted", 1.05, 0.004, "undecided"))
    assert name is None and "not surely faster than float32" in sentence


def test_float32_is_a_rival_whatever_its_gates_say() -> None:
    """Another runtime's float32 row is the baseline's, and differs from it by rounding."""
    for status in ("undecided", "parity"):
        doubted = replace(PLAIN, status=status, changes=dict.fromkeys(FIGURES, Interval(-0.006, -0.2, 0.0)))
        assert choose("onnx-int8", "onnxruntime", [doubted, int8("int8", 0.9, 0.0)], ALLOWED).entry is None


def test_one_that_never_ran() -> None:
    failed = Entry("int8", "onnxruntime", "onnx-int8", status="failed", reason="no such operator")
    assert chosen(failed) == (None, "no such operator") and failed.standing == "none"
    row = Row(
        "openvino", requested_precision="bf16", precision="fp32", status="parity", reason="asked for bf16, runs fp32"
    )
    row.set_change("recall1", Interval(0.0, 0.0, 0.0))
    refused = entry("bf16", row, Row("openvino"))
    assert refused.changes and refused.standing == "none" and refused not in front([refused])
    assert refused.line == "bf16: asked for bf16, runs fp32"


def test_without_a_float32_row_no_int8_ships() -> None:
    alone = int8("int8", 2.0, 0.0)
    alone.speed = None
    found = choose("onnx-int8", "onnxruntime", [alone], ALLOWED)
    assert found.entry is None and not found.ran and "no float32 row here" in found.sentence
    assert entry("float32", Row("x", status="missing"), Row("x")).speed is None
    missing = Row("x", status="missing", reason="no such package")
    assert entry("float32", missing, missing).speed is None


def test_the_front() -> None:
    a, b, c, d = int8("a", 1.0, 0.0), int8("b", 2.0, 0.01), int8("c", 1.5, 0.02), int8("d", 2.0, 0.01)
    assert front([a, b, c, d]) == [a, b, d]
    other = int8("e", 1.2, 0.05)
    other.runtime = "openvino"
    assert front([a, b, c, other]) == [a, b, other]


@pytest.mark.parametrize(("own", "times"), [(2.0, 0.5), (0.5, 2.0)])
def test_speed_is_of_the_runtimes_own_float32(own: float, times: float) -> None:
    plain, row = Row("onnxruntime"), Row("onnxruntime", quantisation="int8", recipe="QDQ")
    for one, ms in ((plain, 1.0), (row, own)):
        one.round_medians_ns, one.latency_p50_ms = [ms * 1e6 * (1 + 0.01 * i) for i in range(6)], ms
    found = entry("int8", row, plain, "onnx-int8", "folder")
    assert found.speed is not None and found.speed.value == pytest.approx(times)
    assert found.speed.low == pytest.approx(times) and found.recipe == "QDQ"
    assert entry("float32", plain, plain).times == 1.0
