"""`make setup` on machines that lack things: what is brought, what is named, what stops it."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Machine = Callable[..., list[list[str]]]
OPTIONS = ["-DA=1", "-DFLAGS=-isystem /somewhere"]


@pytest.fixture
def bootstrap(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "scripts"))
    return importlib.import_module("bootstrap")


@pytest.fixture
def machine(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with these things; the commands that are run on it. fails: what ends with an error."""

    def make(
        compiler: bool, libraries: bool, headers: bool, apt: bool = True, fails: str = "nothing"
    ) -> list[list[str]]:
        ran: list[list[str]] = []

        def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            ran.append(command)
            text = "\n".join(OPTIONS) if "edgerecall.cross.host" in command else ""
            return subprocess.CompletedProcess(command, int(fails in " ".join(command)), text, "")

        def compiles(name: str, code: str, *flags: str) -> bool:
            return libraries or "#include" not in code

        tools = {"apt-get": apt, "c++": compiler}
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}" if tools.get(name) else None)
        monkeypatch.setattr(bootstrap, "compiles", compiles)
        monkeypatch.setattr(bootstrap, "works", lambda command: headers)
        monkeypatch.setattr(bootstrap.subprocess, "run", run)
        return ran

    return make


def options_of(bootstrap: ModuleType) -> list[str]:
    found: list[str] = bootstrap.core_options(Path("python"), ["pip"])
    return found


def test_a_machine_that_has_all(bootstrap: ModuleType, machine: Machine) -> None:
    ran = machine(compiler=True, libraries=True, headers=True)
    assert options_of(bootstrap) == [] and ran == []


@pytest.mark.parametrize(
    ("has", "zig"),
    [
        ({"compiler": False, "libraries": False, "headers": False}, True),
        ({"compiler": True, "libraries": False, "headers": True}, False),
        ({"compiler": True, "libraries": True, "headers": False}, False),
    ],
)
def test_what_is_missing_is_brought(bootstrap: ModuleType, machine: Machine, has: dict[str, bool], zig: bool) -> None:
    ran = machine(**has)
    assert options_of(bootstrap) == OPTIONS
    install, host = ran
    assert ("ziglang" in install) == zig and ("--zig" in host) == zig


def test_without_apt_the_packages_are_named(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(compiler=True, libraries=False, headers=False, apt=False)
    with pytest.raises(SystemExit) as stopped:
        options_of(bootstrap)
    text = capsys.readouterr().err
    assert stopped.value.code == 2 and text.count("\n") == 1
    assert "'apt-get install libjpeg62-turbo-dev libpng-dev" in text and "python3-devel'" in text


def test_without_apt_and_compiler_the_compiler_is_named_too(
    bootstrap: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(compiler=False, libraries=False, headers=True, apt=False)
    with pytest.raises(SystemExit):
        options_of(bootstrap)
    text = capsys.readouterr().err
    assert "'apt-get install g++ libjpeg" in text and "'dnf install gcc-c++ libjpeg" in text


def test_a_compiler_that_was_named_must_work(
    bootstrap: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(compiler=True, libraries=True, headers=True)
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(SystemExit):
        options_of(bootstrap)
    assert "CXX=/bin/false compiles no C++17" in capsys.readouterr().err


@pytest.mark.parametrize(("fails", "code"), [("doctor --fix lite", None), ("--editable", 2)])
def test_a_sidecar_that_cannot_be_had_stops_nothing(
    bootstrap: ModuleType,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fails: str,
    code: int | None,
) -> None:
    ran = machine(compiler=True, libraries=True, headers=True, fails=fails)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "fingerprint", lambda: "mark")
    monkeypatch.setattr(bootstrap.flatten, "main", lambda: None)
    monkeypatch.setattr(bootstrap.sys, "argv", ["bootstrap.py", "venv"])
    (tmp_path / "venv").mkdir()
    stamp = tmp_path / "venv" / "edgerecall-setup"
    if code is not None:
        with pytest.raises(SystemExit) as stopped:
            bootstrap.main()
        assert stopped.value.code == code and not stamp.exists()
        return
    bootstrap.main()
    assert [command[-1] for command in ran[-3:]] == ["mnn", "lite", "paddle2onnx"] and stamp.read_text() == "mark"
    assert "setup: without Paddle Lite, for the reason above" in capsys.readouterr().out
