"""Rows from other machines, none needed: what is pushed, what comes back, and all that may be wrong with it."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgerecall.bench.devices import device_report, remote
from edgerecall.bench.devices.device import open_device
from edgerecall.bench.devices.program import find_program
from edgerecall.bench.devices.qemu import QemuDevice
from edgerecall.bench.measure import runner
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.report import tables
from edgerecall.bench.report.html import html_report
from edgerecall.bench.schema.gates import Gates
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.recommendation import verdict
from edgerecall.bench.schema.rows import SCHEMA, BenchResult
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError

Make = Callable[..., Bundle]
# A program of the same words: `info`, and `bench`, which takes its results from a folder.
PROGRAM = """#!/bin/sh
if [ "$1" = info ]; then echo '{{"runtimes": ["fake"]}}'; exit 0; fi
{before}
while [ $# -gt 0 ]; do [ "$1" = --out ] && out="$2"; shift; done
mkdir -p "$out" && cp "{results}"/* "$out" && exit {code}
"""


class FolderDevice(QemuDevice):
    """This machine in the part of a board: scripts run here, programs too, `root` is a folder."""

    runner = ()

    def __init__(self, root: Path, emulated: bool = False) -> None:
        super().__init__("qemu:aarch64")
        self.name, self.root, self.emulated = "ssh://board", str(root), emulated


def archive(folder: Path, results: Path, code: int = 0, before: str = "") -> Path:
    """An archive like those of `edgerecall cross`."""
    path = folder / "edgerecall-device-linux-aarch64.tar.gz"
    data = PROGRAM.format(results=results, code=code, before=before).encode()
    with tarfile.open(path, "w:gz") as packed:
        member = tarfile.TarInfo("edgerecall-device-linux-aarch64/edgerecall-device")
        member.size, member.mode = len(data), 0o755
        packed.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def board(fake_bundle: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BenchResult]:
    """Runs the bench with a board whose program gives what the host's fake runtime gives, changed by `change`."""
    bundle = fake_bundle()
    images = ImageSet.find(data)
    host = run_bench(
        bundle, images, BenchOptions(runtimes=("fake",), samples=4, rounds=2), "tests", lambda what, share: None
    )
    sets: dict[str, Any] = {}
    take = runner.judge_all

    def run(
        change: Callable[[dict[str, Any], Path], None] | None = None,
        code: int = 0,
        before: str = "",
        emulated: bool = False,
        **options: Any,
    ) -> BenchResult:
        def keep(result: Any, groups: Any, *rest: Any) -> None:
            sets.update(groups[0].embeddings)
            take(result, groups, *rest)

        monkeypatch.setattr(runner, "judge_all", keep)
        run_bench(bundle, images, BenchOptions(runtimes=("fake",), samples=2, rounds=1), "t", lambda *given: None)
        monkeypatch.setattr(runner, "judge_all", take)
        results = tmp_path / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        row = json.loads(host.to_json())["rows"][0]
        wanted = (
            "runtime",
            "name",
            "quantisation",
            "requested_precision",
            "precision",
            "samples_ns",
            "round_medians_ns",
            "latency_p50_ms",
        )
        told: dict[str, Any] = {
            "schema": SCHEMA,
            "program": "1",
            "machine": {"model": "Board"},
            "pixel_error": 0.0,
            "bad_images": [],
            "thermal_log": [],
            "rows": [{name: row[name] for name in wanted}],
        }
        np.save(results / "row-0.npy", sets["fake"])
        np.save(results / "row-0-inputs.npy", np.asarray(random_embeddings(bundle)))
        if change:
            change(told, results)
        (results / "bench.json").write_text(told if isinstance(told, str) else json.dumps(told))
        device = FolderDevice(tmp_path / "board", emulated=emulated)
        monkeypatch.setattr(remote, "open_device", lambda name: device)
        program = archive(tmp_path, results, code, before)
        settings: dict[str, Any] = {"runtimes": ("fake",), "samples": 2, "rounds": 1, **options}
        chosen = BenchOptions(devices=("ssh://board",), device_programs=(str(program),), **settings)
        return run_bench(bundle, images, chosen, "tests", lambda what, share: None)

    return run


def random_embeddings(bundle: Bundle) -> Any:
    from edgerecall.runtimes.backends.fake_predictor import pooled_projection

    return pooled_projection(bundle.spec.embedding_dim)(runner.random_inputs(bundle)).astype(np.float32)


@pytest.mark.cpu_sensitive
def test_a_board_beside_the_host(board: Callable[..., BenchResult]) -> None:
    result = board()
    here, there = result.rows
    assert result.exit_code == 0 and there.status == "ok", there.reason
    assert there.name == "cpp-fake @ ssh://board" and there.device == "ssh://board" and there.group != here.group
    assert there.delta_recall1 == 0.0 and there.cosine_min == pytest.approx(1.0)
    assert result.cross_recall is not None and result.cross_recall.names == ["fake", there.name]
    assert result.speeds == []  # machines are not compared in speed
    assert "ship fake: " in verdict(result) and "ship cpp-fake @ ssh://board: the fastest on ssh" in verdict(result)
    assert there.detail["model"] == "Board"


def test_emulated_rows_are_marked_and_not_shipped(board: Callable[..., BenchResult], tmp_path: Path) -> None:
    result = board(emulated=True)
    there = result.rows[1]
    stream = io.StringIO()
    tables.terminal(result, Console(file=stream, width=250))
    text = stream.getvalue()
    assert f"({there.latency_p50_ms:.2f})" in text and "is emulated: believe its embeddings" in text
    assert there.name not in verdict(result) and there.delta_recall1 == 0.0
    page = html_report(result)
    assert there.name in page and "is emulated" in page
    drawn = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert drawn and not any("qemu" in plot or "ssh://" in plot for plot in drawn)


def test_times_of_an_emulated_machine_decide_nothing(board: Callable[..., BenchResult]) -> None:
    def two_rows(told: dict[str, Any], results: Path) -> None:
        told["rows"].append({**told["rows"][0], "name": "fake 2t", "peak_rss_mb": 1e6})
        for name in ("", "-inputs"):
            shutil.copyfile(results / f"row-0{name}.npy", results / f"row-1{name}.npy")

    limits = Gates(max_p50_ms=1e-6, max_peak_rss_mb=1e5)
    result = board(two_rows, emulated=True, threads=(1, 2), gates=limits)
    there = [row for row in result.rows if row.emulated]
    assert [row.status for row in there] == ["ok", "ok"]
    assert not any("ssh://" in speed.slow + speed.fast for speed in result.speeds)
    result = board(two_rows, threads=(1, 2), gates=limits)  # a real one's do
    there = [row for row in result.rows if row.device == "ssh://board"]
    assert [row.status for row in there] == ["parity", "parity"]
    assert any("ssh://" in speed.slow for speed in result.speeds)


def test_a_board_that_embeds_otherwise_fails_its_row(board: Callable[..., BenchResult]) -> None:
    def noisy(told: dict[str, Any], results: Path) -> None:
        rows = np.load(results / "row-0.npy")
        rows += np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32) * 0.3
        np.save(results / "row-0.npy", rows)

    result = board(noisy)
    assert result.rows[1].status == "parity" and result.rows[0].status == "ok" and result.exit_code == 1


def change_rows(path: str, make: Callable[[np.ndarray], Any]) -> Callable[[dict[str, Any], Path], None]:
    return lambda told, results: np.save(results / path, make(np.load(results / path)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda told, results: told.update(schema=1),
            "expected schema 3 in bench.json, got 1: build the program again",
        ),
        (lambda told, results: told.pop("rows"), "bench.json: Field required"),
        (lambda told, results: told["rows"].clear(), "expected 1 rows, got 0"),
        (lambda told, results: told["rows"][0].update(samples_ns="many"), "row 0 of bench.json is not valid"),
        (lambda told, results: told.update(pixel_error=0.5), "preprocessing differs there from the golden tensors"),
        (lambda told, results: told.update(bad_images=[[1, "odd"]]), "1 images cannot be read there .*: odd"),
        (lambda told, results: (results / "row-0.npy").unlink(), "its embeddings cannot be read"),
        (lambda told, results: np.savez((results / "row-0.npy").open("wb"), a=1), "its embeddings cannot be read"),
        (lambda told, results: (results / "row-0.npy").write_bytes(b"torn"), "its embeddings cannot be read"),
        (change_rows("row-0.npy", lambda rows: rows[1:]), r"expected embeddings float32 \(36, "),
        (change_rows("row-0.npy", lambda rows: rows.astype(np.float64)), "got float64"),
        (change_rows("row-0.npy", lambda rows: rows * np.nan), "NaN or infinity"),
        (change_rows("row-0-inputs.npy", lambda rows: rows[:1]), "expected embeddings float32"),
    ],
)
def test_results_that_are_none(board: Callable[..., BenchResult], change: Any, reason: str) -> None:
    result = board(change)
    here, there = result.rows
    assert here.status == "ok" and result.exit_code == 1
    assert there.status in ("failed", "parity") and there.reason is not None and "\n" not in there.reason
    assert re.search(reason, there.reason), there.reason


@pytest.mark.parametrize(
    ("before", "code", "reason"),
    [
        ("echo 'cp: write error: No space left on device' >&2; exit 1", 0, "the device's disk is full"),
        ("echo 'edgerecall-device: golden/00.png: changed since export' >&2; exit 2", 0, "changed since export"),
        ("kill -9 $$", 0, "exit code"),
        ("", 3, "exit code 3"),
    ],
)
def test_programs_that_fail(board: Callable[..., BenchResult], before: str, code: int, reason: str) -> None:
    there = board(code=code, before=before).rows[1]
    assert there.status == "failed" and reason in str(there.reason) and there.name == "@ ssh://board"


def test_a_program_that_never_ends(board: Callable[..., BenchResult]) -> None:
    there = board(before="sleep 100", timeout_s=0.1).rows[1]
    assert there.status == "failed" and "no answer within" in str(there.reason)


def test_a_board_that_goes_away_is_a_row(
    fake_bundle: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FolderDevice(tmp_path / "board")
    monkeypatch.setattr(device, "command", lambda script: ["sh", "-c", "echo 'Connection closed' >&2; exit 255"])
    monkeypatch.setattr(remote, "open_device", lambda name: device)
    program = archive(tmp_path, tmp_path)
    options = BenchOptions(runtimes=("fake",), samples=2, rounds=1, devices=("x",), device_programs=(str(program),))
    result = run_bench(fake_bundle(), ImageSet.find(data), options, "tests", lambda what, share: None)
    assert [row.status for row in result.rows] == ["ok", "failed"]
    assert "Connection closed" in str(result.rows[1].reason)


@pytest.mark.parametrize(
    ("told", "machine"),
    [("aarch64\n64", "aarch64"), ("aarch64\n32", "armv7l"), ("armv7l\n32", "armv7l"), ("armv8l", "armv7l"),
     ("aarch64", "aarch64"), ("armv6l\n32", "armv6l"), ("x86_64\n64", "x86_64")],
)  # fmt: skip
def test_what_programs_a_board_runs(monkeypatch: pytest.MonkeyPatch, told: str, machine: str) -> None:
    device = open_device("ssh://board")
    monkeypatch.setattr(device, "shell", lambda script, timeout_s: told + "\n")
    assert device.machine == machine


@pytest.mark.parametrize(
    "name",
    [
        "qemu",
        "qemu:z80",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://-4",
        "ssh://a:b",
        "adb:",
        "adb:-x",
        "phone",
        "adbx",
        "ssh://u:secret@host",
        "ssh://host?x",
        "ssh://host#x",
        "ssh://ho st",
    ],
)
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        open_device(name)


def test_ssh_addresses() -> None:
    device = open_device("ssh://pi@MyBoard:2222/home/pi/project/")
    command = device.command("true")
    assert command[0] == "ssh" and "pi@MyBoard" in command and command[command.index("-p") + 1] == "2222"
    assert device.root == "/home/pi/project/edgerecall-bench" and device.name == "ssh://pi@MyBoard:2222/home/pi/project"
    assert open_device("ssh://[::1]").command("true")[-2] == "::1"
    assert open_device("ssh://board").root == ".cache/edgerecall/bench"


def test_each_device_once(fake_bundle: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "open_device", lambda name: FolderDevice(tmp_path / "board"))
    program = archive(tmp_path, tmp_path)
    options = BenchOptions(runtimes=("fake",), devices=("a", "a"), device_programs=(str(program),))
    with pytest.raises(InputError, match="expected each device once"):
        run_bench(fake_bundle(), ImageSet.find(data), options, "tests", lambda what, share: None)


def test_a_torn_archive_is_refused_before_anything_is_measured(
    fake_bundle: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "open_device", lambda name: FolderDevice(tmp_path / "board"))
    program = archive(tmp_path, tmp_path)
    program.write_bytes(program.read_bytes()[:-40])
    options = BenchOptions(runtimes=("fake",), devices=("a",), device_programs=(str(program),))
    with pytest.raises(InputError, match="expected an archive of 'edgerecall cross'"):
        run_bench(fake_bundle(), ImageSet.find(data), options, "tests", lambda what, share: None)


def test_what_devices_cannot_do(fake_bundle: Make, data: Path) -> None:
    with pytest.raises(InputError, match="use them with --stage model"):
        BenchOptions(devices=("adb",), stage="e2e")


def test_programs_are_found_by_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run 'edgerecall cross linux-aarch64' here"):
        find_program("aarch64", False, ())
    (tmp_path / "dist").mkdir()
    musl = tmp_path / "dist" / "edgerecall-device-linux-aarch64-musl.tar.gz"
    musl.write_bytes(b"")
    assert find_program("aarch64", False, ()).archive.name == musl.name
    better = tmp_path / "edgerecall-device-linux-aarch64.tar.gz"
    better.write_bytes(b"")
    assert find_program("aarch64", False, [better]).archive == better
    (tmp_path / "dist" / better.name).write_bytes(b"")
    given = tmp_path / musl.name
    given.write_bytes(b"")
    assert find_program("aarch64", False, [given]).archive == given  # what is named goes before what is found
    with pytest.raises(InputError, match="expected an archive of 'edgerecall cross'"):
        find_program("aarch64", False, [better]).unpack(tmp_path / "new" / "program")
    assert find_program("aarch64", True, ()).archive.name == musl.name  # Android has no glibc
    own = tmp_path / "own.tar.gz"
    assert find_program("aarch64", False, [own]).archive == own
    with pytest.raises(InputError, match="no edgerecall-device for armv7l"):
        find_program("armv7l", False, [better])
    with pytest.raises(InputError, match=r"see docs/arm\.md"):
        find_program("riscv64", False, ())


FAKE_ADB = """#!/bin/sh
[ "$1" = -s ] && shift 2
verb=$1; shift
case $verb in
  shell) exec sh -c "$1" ;;
  push) cp -r "$1" "$2" ;;
  pull) cp -r "$1" "$2" ;;
esac
"""


def test_adb_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for adb that works on this machine: there is no phone here."""
    program = tmp_path / "adb"
    program.write_text(FAKE_ADB)
    program.chmod(0o755)
    monkeypatch.setenv("EDGERECALL_ADB", str(program))
    device = open_device("adb:SERIAL7")
    monkeypatch.setattr(device, "root", str(tmp_path / "phone"))
    assert device.command("true")[:3] == [str(program), "-s", "SERIAL7"]
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "deep" / "file").write_text("x")
    device.push(tmp_path / "here")
    assert (tmp_path / "phone" / "deep" / "file").read_text() == "x"
    device.pull("deep", tmp_path / "back")
    assert (tmp_path / "back" / "file").read_text() == "x"
    assert device.machine == subprocess.run(["uname", "-m"], capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("EDGERECALL_ADB", str(tmp_path / "none"))
    with pytest.raises(InputError, match="which is not installed here"):
        open_device("adb").shell("true", 1)


def test_a_runtime_that_python_has_no_package_of_keeps_its_name() -> None:
    """TNN is the core's here too; others are `cpp-` beside the Python ones."""
    found = {name: device_report.prefix_of(name, "cpp-") for name in ("tnn", "onnxruntime", "mnn", "ncnn", "lite")}
    assert found == {"tnn": "", "onnxruntime": "cpp-", "mnn": "cpp-", "ncnn": "cpp-", "lite": "cpp-"}
