"""Python code in a process that opens no socket of any kind: the system kills it, or says no."""

from __future__ import annotations

import os
import subprocess
import sys

# A filter of system calls: sockets of any kind fail. (BPF: load the architecture and the number, compare, return.)
SECCOMP = """
import ctypes, os, sys
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]
numbers = {numbers}
rules = [(0x20, 0, 0, 0)] + [(0x15, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
rules += [(0x06, 0, 0, 0x7fff0000), (0x06, 0, 0, {verdict})]  # allow; or the verdict
code = (Filter * len(rules))(*(Filter(*rule) for rule in rules))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, ctypes.byref(Program(len(rules), code)), 0, 0) == 0, ctypes.get_errno()
"""
SOCKETS = {"x86_64": (41, 42, 49, 53), "aarch64": (198, 199, 200, 203)}  # socket, connect, bind, socketpair


KILLED, REFUSED = 0x80000000, 0x00050000 | 13  # the whole process; or EACCES


def without_sockets(
    code: str, verdict: int = KILLED, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs Python code that gets no socket."""
    begin = SECCOMP.format(numbers=SOCKETS[os.uname().machine], verdict=verdict)
    command = [sys.executable, "-c", begin + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
