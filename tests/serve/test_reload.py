"""A new bundle takes the place of the old one under load, and replicas that die come back: no request is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from served import Client, image_input, serving

import edgerecall as package
from edgerecall.runtimes.bundle.bundle import Bundle, write_vectors
from edgerecall.runtimes.bundle.manifest import describe_file

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]


def reseal(bundle: Bundle) -> None:
    """Makes what its model gives now its golden embeddings."""
    _, tensors, _ = bundle.golden()
    with package.load(bundle.root, runtime="fake") as model, model.pool.borrow() as predictor:
        embeddings = np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
    written = {path.relative_to(bundle.root).as_posix() for path in write_vectors(bundle.root, tensors, embeddings)}
    golden = tuple(
        describe_file(bundle.root, bundle.root / file.path, file.role) if file.path in written else file
        for file in bundle.manifest.golden
    )
    bundle.manifest = bundle.manifest.model_copy(update={"golden": golden})
    bundle.save()


def exchange(folder: Path, new: str) -> None:
    """The served bundle for another, as `export --force` does."""
    (folder / "bundle").rename(folder / f"before-{time.monotonic_ns()}")
    shutil.copytree(folder / new, folder / "bundle")


class Load:
    """Requests without a pause, by four clients, and what came of them."""

    def __init__(self, server: Client, image: bytes) -> None:
        self._server, self._image = server, image
        self.codes: list[int] = []
        self.embeddings: list[np.ndarray] = []
        self._over = threading.Event()

    def _ask(self) -> None:
        while not self._over.is_set():
            given, tail = image_input(self._image)
            code, answer, _ = self._server.infer({"inputs": [given]}, tail)
            self.codes.append(code)
            if code == 200:
                self.embeddings.append(np.asarray(answer["outputs"][0]["data"], np.float32))

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()


def embedding_by(bundle: Path, image: Path) -> np.ndarray:
    with package.load(bundle, runtime="fake") as model:
        return model.embed_images(image)[0]


def test_a_new_bundle_without_a_lost_request(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    image = next(iter(sorted(data.glob("*_final/*.JPG"))))
    fake_bundle(sleep_ms=20)
    reseal(fake_bundle("other", sleep_ms=20, noise=1.0))
    fake_bundle("wrong", noise=0.5)
    old, new = (embedding_by(tmp_path / name, image) for name in ("bundle", "other"))
    assert np.abs(old - new).max() > 0.01
    with serving(tmp_path) as server:
        load = Load(server, image.read_bytes())
        with load.running():
            exchange(tmp_path, "wrong")
            code, answer, _ = server.get("/v2/repository/models/bundle/load", b"{}")
            assert (
                code == 400
                and "served as before: bundle: not served, its golden images: emb" in json.loads(answer)["error"]
            )
            server.wait_for('edgerecall_reloads_total{result="refused"} 1.0')
            (tmp_path / "bundle" / "bundle.json").write_text("{")
            code, answer, _ = server.get("/v2/repository/models/bundle/load", b"{}")
            assert code == 400 and "bundle.json" in json.loads(answer)["error"], answer
            assert all(np.array_equal(one, old) for one in load.embeddings)
            exchange(tmp_path, "other")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for('edgerecall_reloads_total{result="ok"} 1.0')
            time.sleep(0.5)
        given, tail = image_input(image.read_bytes())
        after = server.infer({"inputs": [given]}, tail)[1]["outputs"][0]["data"]
        assert server.get("/v2/health/ready")[0] == 200
        assert server.get("/v2/repository/index", b"")[1:2] == (
            b'[{"name": "bundle", "version": "1", "state": "READY", "reason": ""}]',
        )
        assert server.get("/v2/repository/models/other/load", b"{}")[0] == 404
        assert "Traceback" not in server.log.read_text() and server.stop() == 0
    np.testing.assert_array_equal(np.asarray(after, np.float32), new)
    assert set(load.codes) == {200} and len(load.codes) > 20
    kinds = {next((name for name, one in (("old", old), ("new", new)) if np.array_equal(one, row)), "neither")
             for row in load.embeddings}  # fmt: skip
    assert kinds == {"old", "new"}


def children(process: int) -> list[int]:
    """The worker processes of a server."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == process:
                found.append(int(folder.name))
    return found


def test_replicas_come_back_without_the_gallerys_files(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run
) -> None:
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    given, tail = image_input(next(iter(sorted(data.glob("*_final/*.JPG")))).read_bytes())
    with serving(tmp_path, "--worker", "--replicas", "1", "--gallery", "g") as server:
        before = server.infer({"inputs": [given]}, tail)
        (tmp_path / "g").rename(tmp_path / "away")
        for process in children(server.process.pid):
            os.kill(process, signal.SIGKILL)
        server.wait_for('edgerecall_reloads_total{result="ok"} 1.0')
        assert before[0] == 200 and server.infer({"inputs": [given]}, tail) == before
        (tmp_path / "away").rename(tmp_path / "g")
        server.wait_for("edgerecall_gallery_readable 1.0")
        assert server.infer({"inputs": [given]}, tail) == before


def test_replicas_that_are_killed_come_back(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    image = next(iter(sorted(data.glob("*_final/*.JPG"))))
    fake_bundle(sleep_ms=20)
    expected = embedding_by(tmp_path / "bundle", image)
    with serving(tmp_path, "--worker", "--replicas", "2", "--canary-seconds", "1000") as server:
        load = Load(server, image.read_bytes())
        with load.running():
            time.sleep(0.3)
            before = children(server.process.pid)
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            server.wait_for('edgerecall_reloads_total{result="ok"} 1.0')
            server.wait_for("edgerecall_replicas 2.0")
            time.sleep(0.3)
        assert set(load.codes) == {200} and all(np.array_equal(row, expected) for row in load.embeddings)
        for process in children(server.process.pid):
            os.kill(process, signal.SIGKILL)
        given, tail = image_input(image.read_bytes())
        code, answer, headers, _ = server.infer_with_headers({"inputs": [given]}, tail)
        assert code == 503, (code, answer, server.log.read_text())
        assert headers["retry-after"] == "1" and "have died and start again" in answer["error"]
        assert server.get("/v2/health/ready")[0] == 503
        server.wait_for('edgerecall_reloads_total{result="ok"} 2.0')
        assert server.infer({"inputs": [given]}, tail)[0] == 200 and server.get("/v2/health/ready")[0] == 200
        for process in children(server.process.pid):  # another bundle is not what was asked for
            os.kill(process, signal.SIGKILL)
        reseal(fake_bundle("other", noise=1.0))
        exchange(tmp_path, "other")
        server.wait_for('edgerecall_reloads_total{result="refused"} 1.0')
        assert "is another bundle by now; to serve it, ask for it (SIGHUP)" in server.log.read_text()
        assert server.stop() == 0
    assert children(server.process.pid) == []
