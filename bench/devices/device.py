"""Machines that rows run on besides this one, and the one table of how they are reached."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from ...runtimes.core.errors import EdgeRecallError, InputError
from ...runtimes.core.targets import Target
from ..schema.rows import LOCAL

DEVICES = {
    "qemu": "qemu:QemuDevice",
    "ssh": "ssh:SshDevice",
    "adb": "adb:AdbDevice",
}
QUICK_S, TRANSFER_TIMEOUT_S = 60.0, 900.0
TAIL = 300
# What a reader should know of an error that the device's own programs print, by a part of it.
REASONS = (
    ("No space left on device", "the device's disk is full: free some space there, or name another folder"),
    ("Read-only file system", "the device's folder is on a read-only file system: name another folder"),
)


class DeviceLost(EdgeRecallError):
    """A device cannot be reached, went away, or did not do what it was told; the message is its rows' reason."""

    exit_code = 1


class Device(ABC):
    """A machine with a folder `root` for what is pushed there. emulated: its latency means nothing."""

    emulated = False
    target: Target | None = None  # what the program that runs there was built for

    def __init__(self, name: str, root: str) -> None:
        self.name, self.root = name, root

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """The command here that runs a shell script there, its standard input connected through."""

    @abstractmethod
    def push(self, folder: Path) -> None:
        """Copies what is in a folder here into `root`, over what is there."""

    @abstractmethod
    def pull(self, name: str, folder: Path) -> None:
        """Copies `root/name`, a folder, to a new folder here."""

    @property
    def runner(self) -> list[str]:
        """What goes before a program there; by default nothing."""
        return []

    @property
    def machine(self) -> str:
        """As `uname -m` says, but for programs: boards with a 64-bit kernel may have 32-bit programs only."""
        told = self.shell("uname -m; getconf LONG_BIT 2>/dev/null || true", QUICK_S).split()
        if not told:
            raise DeviceLost(f"{self.name}: 'uname -m' says nothing")
        narrow = told[0].startswith(("armv7", "armv8")) or (told[0] == "aarch64" and told[1:] == ["32"])
        return "armv7l" if narrow else told[0]

    def shell(self, script: str, timeout_s: float) -> str:
        """Runs a script there; its output. DeviceLost when it cannot, takes too long, or fails."""
        code, output, errors = self._run(self.command(script), timeout_s)
        if code != 0:
            raise DeviceLost(f"{self.name}: {failure(code, errors or output)}")
        return output

    def transfer(self, *command: str | Path) -> None:
        """Runs a copying command here. DeviceLost with its last words."""
        code, output, errors = self._run([str(part) for part in command], TRANSFER_TIMEOUT_S)
        if code != 0:
            raise DeviceLost(f"{self.name}: copying: {failure(code, errors or output)}")

    def _run(self, command: list[str], timeout_s: float) -> tuple[int, str, str]:
        try:
            # Standard input stays open while we wait: a program there ends when it is cut.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except FileNotFoundError as error:
            raise InputError(f"{self.name}: needs '{command[0]}', which is not installed here") from error
        try:
            output, errors = communicate(process, timeout_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceLost(f"{self.name}: no answer within {timeout_s:g} s") from error
        finally:
            end(process)
        return process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


def communicate(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[bytes, bytes]:
    """All that a process prints, its standard input open until it ends."""
    import threading

    parts: dict[str, bytes] = {}
    streams = {"out": process.stdout, "err": process.stderr}
    readers = [
        threading.Thread(target=lambda key=key, stream=stream: parts.__setitem__(key, stream.read()), daemon=True)
        for key, stream in streams.items()
    ]
    for reader in readers:
        reader.start()
    process.wait(timeout_s)
    for reader in readers:
        reader.join(timeout=10)
    return parts.get("out", b""), parts.get("err", b"")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and closes its pipes."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, 9)
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def failure(code: int, text: str) -> str:
    """One line of what a command there said."""
    for mark, reason in REASONS:
        if mark in text:
            return reason
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[-1][:TAIL] if lines else "nothing said"
    return f"ended by signal {-code}: {said}" if code < 0 else f"{said} (exit code {code})"


def quoted(*words: str) -> str:
    """Words as one line for a shell."""
    return shlex.join(words)


def open_device(name: str) -> Device:
    """By `qemu:MACHINE`, `ssh://[USER@]HOST[:PORT][/FOLDER]` or `adb[:SERIAL]`. InputError for anything else."""
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise InputError(
            f"--device: expected {LOCAL}, qemu:aarch64, qemu:armv7l, ssh://USER@HOST, adb[:SERIAL]"
            f" or browser[:chromium], got '{name}'"
        )
    module, _, cls = DEVICES[kind].partition(":")
    device: Any = getattr(importlib.import_module(f".{module}", __package__), cls)
    made: Device = device(name)
    return made
