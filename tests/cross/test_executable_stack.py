"""MNN's libraries, as newer systems want them."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgerecall.cli import doctor
from edgerecall.cross import executable_stack
from edgerecall.cross.executable_stack import asks, clear, is_refused, stack_flags
from edgerecall.runtimes.backends.mnn_predictor import PACKAGE
from edgerecall.runtimes.core.versions import needs

pytestmark = pytest.mark.runtime


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """MNN's, with the request that its wheel comes with."""
    copy = tmp_path / "_mnncengine.so"
    found = find_spec("_mnncengine")  # not imported: a new system refuses it as it comes
    assert found is not None and found.origin is not None
    shutil.copyfile(found.origin, copy)
    binary = bytearray(copy.read_bytes())
    said = stack_flags(binary)
    assert said is not None
    binary[said[0]] |= 1
    copy.write_bytes(binary)
    return copy


def test_one_bit_is_cleared(library: Path) -> None:
    before = library.read_bytes()
    assert asks(library)
    clear(library)
    assert not asks(library)
    after = library.read_bytes()
    assert sum(a != b for a, b in zip(before[:4096], after[:4096], strict=True)) == 1 and before[4096:] == after[4096:]
    clear(library)
    assert library.read_bytes() == after


def test_no_library(tmp_path: Path) -> None:
    assert stack_flags(b"#!/bin/sh") is None and stack_flags(b"") is None


@pytest.mark.parametrize(("version", "refused"), [("glibc 2.36", False), ("glibc 2.41", True), ("", False)])
def test_by_version(version: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executable_stack.os, "confstr", lambda name: version)
    assert is_refused() == refused


def test_doctor_says_so(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_refused", lambda: True)
    monkeypatch.setattr(doctor, "libraries_with", lambda name: [library])
    found = doctor.package_finding("run", PACKAGE)
    assert "asks for an executable stack" in found.state and found.fix == "edgerecall doctor --fix mnn"
    error = ImportError(f"{library}: cannot enable executable stack as shared object requires: Invalid argument")
    assert needs(PACKAGE, error=error).endswith("from 2.41 on: run 'edgerecall doctor --fix mnn'")
