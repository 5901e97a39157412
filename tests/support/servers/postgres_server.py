"""A PostgreSQL with pgvector, of a wheel, for tests: in a folder and on a socket of its own; of the user nobody where
root asks, under whom it does not run.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class NoServer(Exception):
    """There is none for this Python or machine."""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database."""
    import psycopg

    found = find_spec("pgserver")
    if found is None or found.origin is None:
        raise NoServer("no pgserver: it has wheels for x86-64 and Python below 3.13")
    packages = Path(found.origin).parent.parent
    folder = Path(tempfile.mkdtemp(prefix="edgerecall-postgres-"))
    folder.chmod(0o755)
    try:
        # Others may not read where the package is.
        shutil.copytree(packages / "pgserver" / "pginstall", folder / "pgserver" / "pginstall", symlinks=True)
        shutil.copytree(packages / "pgserver.libs", folder / "pgserver.libs")
        programs, data = folder / "pgserver" / "pginstall" / "bin", folder / "data"
        data.mkdir()
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(data, nobody.pw_uid, nobody.pw_gid)
            user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        made = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(made, cwd=folder, capture_output=True, check=True, **user)
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", data, "-h", "", "-F"], cwd=folder, stderr=log, **user
            )
        try:
            url = f"postgresql://postgres@/postgres?host={data}"
            end = time.monotonic() + 60
            while True:
                try:
                    psycopg.connect(url).close()
                    break
                except psycopg.OperationalError:
                    if server.poll() is not None or time.monotonic() > end:
                        raise RuntimeError((folder / "log").read_text()) from None
                    time.sleep(0.05)
            yield url
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(folder)
