"""Folders that several test processes of one run share: whichever comes first makes them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def shared_place(factory: pytest.TempPathFactory) -> Path:
    """A folder of this run, the same for all of its processes; or of several runs, where the environment names one."""
    if named := os.environ.get("EDGERECALL_TEST_FOLDER"):
        return Path(named)
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The shared folder of this name, once `make` has filled it. Nobody may change what is in it."""
    folder = shared_place(factory) / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    with folder.with_suffix(".lock").open("a+") as done:
        fcntl.flock(done, fcntl.LOCK_EX)
        done.seek(0)
        if not done.read():
            shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt left
            folder.mkdir()
            make(folder)
            done.write("made")
    return folder
