"""Commands as forks of a process that has imported already what they import, which is most of a short command's time.

A command is still a process of its own, with its own streams, folder and exit code. What a library reads of the
environment as it is loaded was read before: a command with an environment of its own is started anew instead.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Any

ANY_VALUE = ("COLUMNS", "PYTEST_CURRENT_TEST")  # of the environment, read as often as they are used
COMMON = ("edgerecall.cli.console", "edgerecall.runtimes.embed.verify", "edgerecall.bench.report.tables")
# By verb, what its commands import; a verb that is not here has a process started for it: `train`, for one, whose runs
# are compared, and forks have one and the same order of sets and unseeded generators.
IMPORTED = {
    "training": (*COMMON, "paddle", "edgerecall.train.trainer", "edgerecall.export.exporter"),
    "measuring": (
        *COMMON,
        "scipy.stats",
        "matplotlib.pyplot",
        "edgerecall.bench.measure.runner",
        "edgerecall.bench.report.html",
        "edgerecall.runtimes.gallery.disk_gallery",
        "edgerecall.export.quantize.quantizer",
    ),
}
VERBS = {
    **dict.fromkeys(("eval", "export"), "training"),
    **dict.fromkeys(("bench", "compare", "gallery", "predict", "quantize", "upgrade", "verify", "why"), "measuring"),
}


class Forks:
    """A process that has imported one line of IMPORTED, and its forks, one at a time.

    timeout: seconds of a command. After a command that did not end, or was interrupted, it is `closed`.
    """

    def __init__(self, imported: str, timeout: float) -> None:
        self.environment, self.closed = dict(os.environ), False
        self._timeout = timeout
        self._here, there = socket.socketpair()
        with there:
            command = [sys.executable, __file__, imported, str(there.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL)
        self._here.settimeout(timeout)
        self._answers = self._here.makefile("r")

    def fits(self, environment: dict[str, str]) -> bool:
        """Whether its libraries were loaded in such an environment."""
        names = {*environment, *self.environment}.difference(ANY_VALUE)
        return all(environment.get(name) == self.environment.get(name) for name in names)

    def run(self, arguments: list[str], folder: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """`edgerecall ARGUMENTS`, as subprocess.run does it with its output captured."""
        changed = {name: environment.get(name) for name in ANY_VALUE}
        message = json.dumps({"arguments": arguments, "folder": folder, "environment": changed}).encode()
        child = None
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                socket.send_fds(self._here, [b"%8d" % len(message)], [out.fileno(), err.fileno()])
                self._here.sendall(message)
                child = int(self._answers.readline())
                code = int(self._answers.readline())
            except BaseException as error:
                self.close()
                if child is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(arguments, self._timeout) from None
                raise
            texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (out, err)]
        lines = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
        return subprocess.CompletedProcess(arguments, code, *lines)

    def close(self) -> None:
        """Ends it at once."""
        self.closed = True
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._here.close()


def serve(imported: str, connection: socket.socket) -> dict[str, Any] | None:
    """Forks for each that is asked for: in the fork what was asked, in the first process None at the end."""
    for name in IMPORTED[imported]:
        with contextlib.suppress(ImportError):  # the core's tests run without PaddlePaddle
            importlib.import_module(name)
    while True:
        head, files, _, _ = socket.recv_fds(connection, 8, 2)
        if not head:
            return None
        message = b""
        while len(message) < int(head):
            part = connection.recv(int(head) - len(message))
            if not part:
                return None
            message += part
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            connection.close()
            os.dup2(files[0], 1)
            os.dup2(files[1], 2)
            return dict(json.loads(message))
        for file in files:
            os.close(file)
        connection.sendall(b"%d\n" % child)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests: they close it
    os.environ.setdefault("GLOG_minloglevel", "2")
    if asked := serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))):
        os.chdir(asked["folder"])
        for name, value in asked["environment"].items():  # the rest is the same, but for what Paddle's import adds
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        sys.argv[1:] = asked["arguments"]
        sys.path[0] = asked["folder"]  # as `python -m` has it
        runpy.run_module("edgerecall", run_name="__main__", alter_sys=True)
