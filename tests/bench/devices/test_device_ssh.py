"""Rows on another machine over ssh: a real sshd on loopback, an unprivileged user, a key made for the test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgerecall.bench.devices.device import DeviceLost, open_device
from edgerecall.bench.devices.device_bench import DeviceBench
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import random_inputs, run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.runtimes.bundle.bundle import Bundle

pytestmark = pytest.mark.device
ACCOUNT = "edgerecall-test"
SSHD = Path("/usr/sbin/sshd")


def hashes(images: Sequence[Path]) -> list[str]:
    """The SHA-256 of each, hexadecimal."""
    return [digest.hex() for digest in ImageSet(tuple(images), None).digests]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def sshd() -> Iterator[str]:
    """`ssh://user@127.0.0.1:port/folder`, reached with EDGERECALL_SSH_CONFIG."""
    if not SSHD.is_file():
        pytest.fail("these tests need sshd: on Debian 'apt-get install openssh-server'")
    folder = Path(tempfile.mkdtemp(prefix="edgerecall-sshd-"))  # pytest's own are closed to other users
    folder.chmod(0o755)
    is_root = os.geteuid() == 0
    user = ACCOUNT if is_root else getpass.getuser()
    if is_root:
        Path("/run/sshd").mkdir(exist_ok=True)
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", ACCOUNT], check=False)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    keys = folder / "keys"
    shutil.copyfile(folder / "user.pub", keys)
    keys.chmod(0o644)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {keys}\nPasswordAuthentication no\nUsePAM no\n"
        "Subsystem sftp internal-sftp\n"
    )
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
        f"  UserKnownHostsFile {folder / 'known'}\n"
    )
    server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    before = os.environ.get("EDGERECALL_SSH_CONFIG")
    os.environ["EDGERECALL_SSH_CONFIG"] = str(folder / "config")
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"ssh://{user}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)
        if before is None:
            del os.environ["EDGERECALL_SSH_CONFIG"]
        if is_root:
            subprocess.run(["pkill", "-KILL", "-u", ACCOUNT], check=False)
            subprocess.run(["userdel", "--remove", ACCOUNT], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def options(device_archive: Path, sshd: str) -> BenchOptions:
    return BenchOptions(
        runtimes=("onnxruntime",),
        samples=6,
        rounds=3,
        devices=(sshd,),
        device_programs=(str(device_archive),),
    )


def test_rows_of_both_machines_in_one_result(device_bundle: Path, options: BenchOptions, sshd: str) -> None:
    images = ImageSet.find(device_bundle / "golden")
    result = run_bench(Bundle.open(device_bundle), images, options, "tests", lambda what, share: None)
    here, there = result.rows
    assert (there.status, there.reason, result.exit_code) == ("ok", None, 0)
    assert there.name == f"cpp-onnxruntime @ {sshd}" and there.device == sshd and not there.emulated
    assert there.cosine_min is not None and there.cosine_min > 0.9999999
    assert len(there.samples_ns) == 6 and len(there.round_medians_ns) == 3 and there.group != here.group
    assert there.random_cosine_min is not None and there.random_cosine_min > 0.9999999
    assert there.stages_ms.keys() == {"decode", "preprocess", "inference", "normalise", "search"}


def test_only_what_changed_is_pushed(
    device_bundle: Path, options: BenchOptions, sshd: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed: list[list[str]] = []
    device = open_device(sshd)
    push = device.push

    def watched(folder: Path) -> None:
        pushed.append([path.name for path in folder.rglob("*") if path.is_file()])
        push(folder)

    monkeypatch.setattr(device, "push", watched)
    bundle = Bundle.open(device_bundle)
    images = [tmp_path / path.name for path in ImageSet.find(device_bundle / "golden").paths]
    for path in images:
        shutil.copyfile(device_bundle / "golden" / path.name, path)
    archives = [Path(name) for name in options.device_programs]
    bench = DeviceBench(device, bundle, options, random_inputs(bundle), archives)
    bench.measure(images, hashes(images), lambda what, share: None)
    first = len(pushed)
    bench.measure(images, hashes(images), lambda what, share: None)
    assert len(pushed) == first  # nothing
    shutil.copyfile(images[0], images[2])
    images[0].write_bytes(images[0].read_bytes() + b"\0")  # another file
    rows = bench.measure(images, hashes(images), lambda what, share: None).rows
    assert rows[0].status == "ok" and len(pushed) == first + 1
    assert sorted(name.partition("-")[0] for name in pushed[-1] if name.startswith("list")) == ["list"]
    assert len(pushed[-1]) == 2  # the image and the list
    assert "run-" not in device.shell(f"ls {device.root}", 30)  # results do not stay there


def test_a_connection_cut_in_mid_run(device_bundle: Path, options: BenchOptions, sshd: str) -> None:
    """One row with its reason, the host's own rows untouched, and nothing left running there."""
    slow = BenchOptions(**{**vars(options), "samples": 10**6, "batch": (64,), "rounds": 2, "seconds": 200.0})
    bundle = Bundle.open(device_bundle)
    archives = [Path(name) for name in options.device_programs]
    bench = DeviceBench(open_device(sshd), bundle, slow, random_inputs(bundle), archives)

    def cut() -> None:
        for _ in range(200):
            time.sleep(0.1)
            if programs():
                time.sleep(1.0)
                subprocess.run(["pkill", "-KILL", "-f", f"^ssh .*{sshd.rpartition(':')[2]}"], check=False)
                return

    cutter = threading.Thread(target=cut)
    cutter.start()
    images = ImageSet.find(device_bundle / "golden").paths
    rows = bench.measure(images, hashes(images), lambda what, share: None).rows
    cutter.join()
    assert [row.status for row in rows] == ["failed"]
    assert str(rows[0].reason).startswith(f"{sshd}: ended by signal 9: ") and "\n" not in str(rows[0].reason)
    for _ in range(100):
        if not programs():
            return
        time.sleep(0.1)
    pytest.fail("the program still runs there")


def programs() -> list[int]:
    """Running programs of ours."""
    found = subprocess.run(["pgrep", "-f", "program-.*/edgerecall-device bench"], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split() if int(line) != os.getpid()]


def test_a_host_that_is_not_there(device_bundle: Path, options: BenchOptions) -> None:
    gone = BenchOptions(**{**vars(options), "devices": (f"ssh://nobody@127.0.0.1:{free_port()}",)})
    images = ImageSet.find(device_bundle / "golden")
    result = run_bench(Bundle.open(device_bundle), images, gone, "tests", lambda what, share: None)
    here, there = result.rows
    assert here.status == "ok" and result.exit_code == 1
    assert there.status == "failed" and "Connection refused" in str(there.reason)


def test_a_full_disk_there(device_bundle: Path, options: BenchOptions, sshd: str) -> None:
    """/dev/full is one: what cannot be written is said in a line."""
    device = open_device(sshd)
    with pytest.raises(DeviceLost, match="the device's disk is full: free some space"):
        device.shell("cat /proc/self/maps > /dev/full", 30)


def test_a_command_that_never_ends(sshd: str) -> None:
    start = time.monotonic()
    with pytest.raises(DeviceLost, match="no answer within 1 s"):
        open_device(sshd).shell("sleep 60", 1)
    assert time.monotonic() - start < 10
