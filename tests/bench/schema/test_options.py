"""Ranges, rows, CPUs and gates from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgerecall.bench.measure import machine
from edgerecall.bench.schema.gates import Gates
from edgerecall.bench.schema.options import BenchOptions, parse_names, parse_range
from edgerecall.bench.schema.rows import BenchResult, Row
from edgerecall.runtimes.core.errors import InputError


@pytest.mark.parametrize(
    ("text", "values"),
    [("1", (1,)), ("1,2,8", (1, 2, 8)), ("2-4", (2, 3, 4)), ("1-16*2", (1, 2, 4, 8, 16)), ("0-10+5,3", (0, 5, 10, 3))],
)
def test_ranges(text: str, values: tuple[int, ...]) -> None:
    assert parse_range(text, "threads") == values


@pytest.mark.parametrize("text", ["", "a", "4-2", "0-8*2", "1-4*1", "1-4+0", "-1", "1..4", "1-99999"])
def test_bad_ranges(text: str) -> None:
    with pytest.raises(InputError, match="threads: "):
        parse_range(text, "threads")


def plain(runtime: str) -> tuple[str, ...]:
    """A bundle with artifacts in fp32 alone."""
    return ("fp32",)


def test_each_quantisation_that_a_bundle_has_is_a_row() -> None:
    have = {"onnxruntime": ("fp32", "int8"), "paddle": ("fp32",)}
    options = BenchOptions(runtimes=("paddle", "onnxruntime", "lite"))
    (rows,) = options.groups(lambda runtime: have.get(runtime, ()))
    assert [row.name for row in rows] == ["paddle", "onnxruntime", "onnxruntime int8", "lite"]
    assert [row.quantisation for row in rows] == ["fp32", "fp32", "int8", "fp32"]
    (rows,) = BenchOptions(runtimes=("paddle", "onnxruntime"), quantisation=("int8",)).groups(have.__getitem__)
    assert [row.name for row in rows] == ["paddle int8", "onnxruntime int8"]  # the first will say that it is not there
    with pytest.raises(InputError, match="quantisation: expected one of fp32, fp16, int8, got 'bf16'"):
        BenchOptions(quantisation=("bf16",))


def test_runtimes_of_one_setting_stay_together() -> None:
    options = BenchOptions(runtimes=("paddle", "lite", "openvino"), threads=(1, 2), batch=(1, 4), together=6)
    groups = options.groups(plain)
    assert [[row.name for row in group] for group in groups] == [
        ["paddle 1t b1", "lite 1t b1", "openvino 1t b1", "paddle 1t b4", "lite 1t b4", "openvino 1t b4"],
        ["paddle 2t b1", "lite 2t b1", "openvino 2t b1", "paddle 2t b4", "lite 2t b4", "openvino 2t b4"],
    ]
    assert len(BenchOptions(runtimes=("paddle", "lite"), together=1).groups(plain)) == 1


def test_cpu_lists() -> None:
    own = sorted(os.sched_getaffinity(0))
    assert machine.parse_cpus(machine.shown_cpus(own)) == tuple(own)
    assert machine.shown_cpus([3, 1, 2, 7]) == "1-3,7"
    for text in ("a", "1-", "", "99999"):
        with pytest.raises(InputError, match="cpus: "):
            machine.parse_cpus(text)


def test_whole_cores_before_their_second_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(("0,4", "1,5", "2,6", "3,7") * 2):
        folder = tmp_path / f"devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(machine, "SYSTEM", tmp_path)
    assert machine.pinned_to(4, tuple(range(8))) == (4, 5, 6, 7)
    assert machine.pinned_to(5, tuple(range(8))) == (3, 4, 5, 6, 7)
    assert machine.pinned_to(2, (0, 4, 1)) == (1, 4)
    assert machine.pinned_to(9, (0, 1)) == (0, 1)


def test_limits_of_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "fs/cgroup/outer/inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    (inner / "memory.max").write_text("2000000\n")
    (inner / "cpu.stat").write_text("usage_usec 5\nnr_throttled 7\n")
    monkeypatch.setattr(machine, "SYSTEM", tmp_path)
    monkeypatch.setattr(machine, "cgroup_folder", lambda: inner)
    assert machine.cpu_quota() == 1.5
    assert machine.memory_limit_mb() == 2.0
    assert machine.throttle_count() == 7


def test_energy_counters_wrap() -> None:
    before = {"intel-rapl:0": (900, 1000), "intel-rapl:1": (10, 1000)}
    after = {"intel-rapl:0": (100, 1000), "intel-rapl:1": (60, 1000)}
    assert machine.joules_between(before, after) == pytest.approx(250e-6)
    assert machine.joules_between({}, {}) is None


def test_what_others_do_is_judged_by_its_size() -> None:
    assert machine.Disturbance(1.0, 0.05, 0).warnings(2) == []
    assert "1.00 cores" in machine.Disturbance(1.0, 1.0, 0).warnings(2)[0]
    assert machine.Disturbance(1.0, 1.0, 0).warnings(64) == []
    assert machine.Disturbance(0.1, None, 3).warnings(2) == [
        "throttled: the machine was slowed down 3 times while timing"
    ]


def test_gates_from_yaml_and_command_line(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text("max_recall_drop: 0.01\nmax_p50_ms: 5\n")
    gates = Gates.read(path, min_cosine=0.9, max_recall_drop=None)
    assert (gates.max_recall_drop, gates.max_p50_ms, gates.min_cosine) == (0.01, 5.0, 0.9)
    path.write_text("max_p50: 5\n")
    with pytest.raises(InputError, match=r"unknown key 'max_p50'; did you mean 'max_p50_ms'\?"):
        Gates.read(path)
    with pytest.raises(InputError, match="max_recall_drop"):
        Gates.read(None, max_recall_drop=2.0)


@pytest.mark.parametrize(
    ("gate", "value", "fields", "reason"),
    [
        ("max_p50_ms", 1.0, {"latency_p50_ms": 2.0}, "p50 is 2.000 ms, allowed 1"),
        ("max_p99_ms", 1.0, {"latency_p99_ms": 2.0}, "p99 is 2.000 ms, allowed 1"),
        ("max_peak_rss_mb", 10.0, {"peak_rss_mb": 20.0}, "peak memory is 20.0 MB, allowed 10"),
        ("max_size_mb", 1.0, {"size_mb": 2.0}, "the artifact has 2.00 MB, allowed 1"),
        (
            "max_map_drop",
            0.01,
            {"delta_map": -0.02, "delta_map_low": -0.03, "delta_map_high": -0.015},
            "mAP fell by 0.0200 (-0.0300 to -0.0150), allowed 0.01",
        ),
        ("max_neighbour_flips", 0.1, {"neighbour_flips": 0.2}, "changed for 0.2000 of the images, allowed 0.1"),
    ],
)
def test_each_gate(gate: str, value: float, fields: dict[str, float], reason: str) -> None:
    row = Row("x", **fields)  # type: ignore[arg-type]
    Gates().check(row)
    assert row.status == "ok"
    Gates.read(None, **{gate: value}).check(row)
    assert row.status == "parity" and reason in str(row.reason)


def test_all_with_others() -> None:
    assert parse_names("all", ("a", "b")) == ("a", "b") and parse_names("c, d", ("a", "b")) == ("c", "d")
    assert parse_names("all, c", ("a", "b")) == ("a", "b", "c") and parse_names("b,all", ("a", "b")) == ("a", "b")


def test_what_was_named_beside_all_is_missed() -> None:
    def exit_code(*rows: Row) -> int:
        given = {"every": True, "named": ("tensorrt",)}
        return BenchResult("", "", {}, {}, given, 1, "", True, "a", list(rows)).exit_code

    there, missing = Row("onnxruntime"), Row("tensorrt", status="missing", reason="needs tensorrt")
    assert exit_code(there, Row("lite", status="missing", reason="no")) == 0 and exit_code(there, missing) == 1
