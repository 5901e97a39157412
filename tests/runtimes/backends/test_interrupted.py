"""Ctrl-C after models were opened and closed is a KeyboardInterrupt, whatever their runtimes did to signals."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, gc, os, signal, sys, threading, time
import edgerecall

class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

models = [edgerecall.load(sys.argv[1], sys.argv[2]) for _ in range(2)]
while models:  # the first first
    models.pop(0).close()
    gc.collect()
stack = Stack()
assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
mapped = [line.split()[0].split("-") for line in open("/proc/self/maps")]
there = any(int(low, 16) <= (stack.at or 0) < int(high, 16) for low, high in mapped)
assert stack.flags & 2 or there, "the signal stack is in freed memory"  # 2: SS_DISABLE
threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.runtime
def test_one_core_a_process() -> None:
    """Also where no CPU has AMX, and for threads that come at the same time."""
    from edgerecall.runtimes.backends.openvino_predictor import shared_core

    with ThreadPoolExecutor(8) as pool:
        assert len({id(core) for core in pool.map(lambda _: shared_core(), range(8))}) == 1


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "cpp-openvino"])
def test_after_models_are_closed(real_bundle: Path, runtime: str) -> None:
    """On a CPU with AMX, OpenVINO's plugin sets a signal stack, and restores the one before when it is freed."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, real_bundle, runtime], capture_output=True, text=True, timeout=120
    )
    assert (found.returncode, found.stdout.splitlines()[-1:]) == (0, ["interrupted"]), found.stderr[-2000:]
