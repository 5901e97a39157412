"""`edgerecall serve` over the wire: the protocol's routes, the same embeddings as a loaded model, limits and ends."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import GOLDEN, Client, image_input, serving

import edgerecall as package
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.identity import identity_of
from edgerecall.runtimes.preprocess.images import decode_rgb
from edgerecall.runtimes.preprocess.pipeline import preprocess_file
from edgerecall.serve.formats.rest_format import read_request

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]


def photographs(data: Path, count: int) -> list[Path]:
    return sorted(data.glob("*_final/*.JPG"))[:count]


def embedding_of(answer: dict[str, Any], tail: bytes) -> np.ndarray:
    """The output `embedding`, float32, however it came."""
    at = 0
    for one in answer["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size", 0)
        if one["name"] == "embedding":
            values = np.frombuffer(tail[at : at + size], "<f4") if size else np.asarray(one["data"], np.float32)
            return values.reshape(one["shape"])
        at += size
    raise AssertionError(answer)


def test_what_it_says_of_itself(server: Client) -> None:
    assert server.get("/v2")[0] == 200 and b"binary_tensor_data" in server.get("/v2")[1]
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/bundle/ready",
        "/v2/models/bundle/versions/1/ready",
    ):
        assert server.get(path)[0] == 200, path
    told = json.loads(server.get("/v2/models/bundle")[1])
    assert [one["name"] for one in told["inputs"]] == ["image", "pixels", "tensor"]
    assert told["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 16]}]
    assert told["inputs"][2]["shape"] == [-1, 3, 64, 64]
    for path, code in (("/v2/models/other", 404), ("/v2/models/bundle/versions/2", 404), ("/nothing", 404)):
        assert server.get(path)[0] == code and list(json.loads(server.get(path)[1])) == ["error"]
    code, answer, _ = server.get("/v2/models/bundle/infer")
    assert code == 405 and "not allowed" in json.loads(answer)["error"]
    code, answer, _ = server.get("/v2/models/bundle/infer%0A", b"{}")
    assert code == 404 and "no such route" in json.loads(answer)["error"]


def test_every_route_gives_the_loaded_models_embedding(server: Client, data: Path, tmp_path: Path) -> None:
    paths = photographs(data, 4)
    with package.load(tmp_path / "bundle", runtime="fake", batch_size=1) as model:
        expected = model.embed_images(paths)
        preprocess = model.spec.preprocess
    encoded = [path.read_bytes() for path in paths]
    given, tail = image_input(*encoded)
    code, answer, behind = server.infer({"id": "a", "inputs": [given]}, tail)
    assert code == 200 and answer["id"] == "a" and answer["model_name"] == "bundle" and behind == b""
    np.testing.assert_array_equal(embedding_of(answer, behind), expected)

    binary = {"inputs": [given], "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]}
    code, answer, behind = server.infer(binary, tail)
    np.testing.assert_array_equal(embedding_of(answer, behind), expected)
    assert len(behind) == 4 * 16 * 4
    assert server.infer({"inputs": [given], "parameters": {"timeout": None, "k": 1}}, tail)[0] == 200
    own = [{"name": "embedding", "parameters": {"binary_data": False}}]
    asked = {"inputs": [given], "parameters": {"binary_data_output": True}}
    assert server.infer({**asked, "outputs": own}, tail)[2] == b""
    code, answer, behind = server.infer(asked, tail)
    np.testing.assert_array_equal(embedding_of(answer, behind), expected)

    texts = [base64.b64encode(one).decode() for one in encoded]
    code, answer, behind = server.infer(
        {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2, 2], "data": [texts[:2], texts[2:]]}]}
    )
    np.testing.assert_array_equal(embedding_of(answer, behind), expected)

    pixels = decode_rgb(encoded[0], preprocess.decode.exif, "image")
    shape = list(pixels.shape)
    given = {"name": "pixels", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": pixels.nbytes}}
    code, answer, behind = server.infer({"inputs": [given]}, pixels.tobytes())
    np.testing.assert_array_equal(embedding_of(answer, behind), expected[:1])

    tensor = np.stack([preprocess_file(path, preprocess) for path in paths])
    size = {"binary_data_size": tensor.nbytes}
    given = {"name": "tensor", "datatype": "FP32", "shape": list(tensor.shape), "parameters": size}
    code, answer, behind = server.infer({"inputs": [given]}, tensor.tobytes())
    np.testing.assert_array_equal(embedding_of(answer, behind), expected)
    given = {"name": "tensor", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": tensor[0].ravel().tolist()}
    code, answer, behind = server.infer({"inputs": [given]})
    np.testing.assert_array_equal(embedding_of(answer, behind), expected[:1])


def test_sixteen_clients(server: Client, data: Path, tmp_path: Path) -> None:
    paths = photographs(data, 36)
    with package.load(tmp_path / "bundle", runtime="fake", batch_size=1) as model:
        expected = model.embed_images(paths)

    def ask(index: int) -> np.ndarray:
        given, tail = image_input(paths[index].read_bytes())
        code, answer, behind = server.infer({"inputs": [given]}, tail)
        assert code == 200
        return embedding_of(answer, behind)[0]

    order = [index % 36 for index in range(200)]
    with ThreadPoolExecutor(16) as pool:
        found = np.stack(list(pool.map(ask, order)))
    np.testing.assert_array_equal(found, expected[order])
    told = server.get("/metrics")[1].decode()
    assert (
        'edgerecall_requests_total{code="200",protocol="rest"} 200.0' in told
        and "edgerecall_images_total 200.0" in told
    )
    assert "edgerecall_golden_holds 1.0" in told and "edgerecall_images_waiting 0.0" in told


def test_neighbours(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    name, label = (data / "test_list.txt").read_text().splitlines()[5].rsplit(" ", 1)
    given, tail = image_input((data / name).read_bytes())
    with serving(tmp_path, "--gallery", "g", "--top", "3") as server:
        code, answer, _ = server.infer({"inputs": [given]}, tail)
        told = {one["name"]: one for one in answer["outputs"]}
        assert code == 200 and list(told) == ["embedding", "ids", "labels", "scores"]
        assert told["ids"]["data"][0] == name and told["labels"]["data"][0] == label and told["ids"]["shape"] == [1, 3]
        assert told["scores"]["data"][0] == pytest.approx(1, abs=1e-5)
        asked = {"inputs": [given], "outputs": [{"name": "ids", "parameters": {"binary_data": True}}]}
        code, answer, behind = server.infer({**asked, "parameters": {"k": 2}}, tail)
        assert [one["name"] for one in answer["outputs"]] == ["ids"] and answer["outputs"][0]["shape"] == [1, 2]
        (length,) = struct.unpack("<I", behind[:4])
        assert behind[4 : 4 + length].decode() == name
        edgerecall("gallery", "remove", "g", name, cwd=tmp_path)
        for _ in range(50):  # the server sees it by itself
            code, answer, _ = server.infer({"inputs": [given]}, tail)
            if answer["outputs"][1]["data"][0] != name:
                break
            time.sleep(0.1)
        assert answer["outputs"][1]["data"][0] != name
        assert "edgerecall_gallery_rows 35.0" in server.get("/metrics")[1].decode()


def test_neighbours_by_an_index(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine
) -> None:
    """As exact search tells them, also when rows go; and an index that is damaged is not served."""
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    built = edgerecall("gallery", "build", "g", "bundle", *lists, "--index", "faiss:HNSW16", cwd=tmp_path)
    assert built.returncode == 0 and "recall@10" in built.stdout, built.stderr
    name, _ = (data / "test_list.txt").read_text().splitlines()[5].rsplit(" ", 1)
    options = ("--runtime", "fake", "--exact", "--format", "jsonl", "--top", "4")
    exact = edgerecall("gallery", "search", "g", "bundle", data / name, *options, cwd=tmp_path)
    expected = [one["id"] for one in json.loads(exact.stdout)["matches"]]
    given, tail = image_input((data / name).read_bytes())

    def nearest(server: Client) -> list[str]:
        code, answer, _ = server.infer({"inputs": [given], "parameters": {"k": 3}}, tail)
        assert code == 200
        return list(next(one["data"] for one in answer["outputs"] if one["name"] == "ids"))

    with serving(tmp_path, "--gallery", "g") as server:
        assert nearest(server) == expected[:3] and expected[0] == name
        edgerecall("gallery", "remove", "g", name, cwd=tmp_path)
        server.wait_for("edgerecall_gallery_rows 35.0")
        assert nearest(server) == expected[1:]
    (index,) = (tmp_path / "g").glob("*.faiss")
    index.write_bytes(index.read_bytes()[:-8] + b"nonsense")
    refused = edgerecall("serve", "bundle", "--runtime", "fake", "--port", "0", "--gallery", "g", cwd=tmp_path)
    one_line(refused, 2, index.name)


IMAGE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"inputs": [IMAGE]}, "expected a JPEG, PNG, BMP, WebP or TIFF image"),
        ({}, "inputs: expected 1 to 16, got 0"),
        ({"inputs": [IMAGE, IMAGE]}, "expected one of image, pixels and tensor, got 2"),
        ({"inputs": [{**IMAGE, "datatype": "INT64"}]}, "datatype: expected FP32, UINT8, BYTES, got 'INT64'"),
        ({"inputs": [{**IMAGE, "shape": [2]}]}, "expected 2 values for the shape, got 1"),
        ({"inputs": [{**IMAGE, "shape": [0]}]}, "whole numbers above 0"),
        ({"inputs": [{**IMAGE, "shape": [True]}]}, "whole numbers above 0"),
        ({"inputs": [{**IMAGE, "data": ["*"]}]}, "expected images in base64"),
        ({"inputs": [{**IMAGE, "data": [[1], 2]}]}, "some of its values are lists and some are not"),
        ({"inputs": [{**IMAGE, "name": "picture"}]}, "expected one of image BYTES [-1]"),
        ({"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 4], "data": [1, 2, 3, 4]}]}, "got pixels"),
        ({"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1], "data": [256]}]}, "numbers from 0 to 255"),
        ({"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1], "data": ["x"]}]}, "expected numbers"),
        ({"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1], "data": [1]}]}, "got tensor FP32 [1]"),
        ({"inputs": [{**IMAGE, "parameters": {"binary_data_size": 9}}]}, "binary_data_size: expected 0 to 0, got 9"),
        ({"inputs": [IMAGE], "parameters": {"timeout": 0}}, "timeout: expected microseconds"),
        ({"inputs": [IMAGE], "parameters": {"k": 0}}, "k: expected a whole number from 1 to 10000"),
        ({"inputs": [IMAGE], "parameters": 3}, "parameters: expected an object"),
        ({"inputs": [IMAGE], "id": 7}, "id: expected a text"),
        ({"inputs": "x"}, "inputs: expected a list of objects"),
        ({"inputs": [{**IMAGE, "shape": [65]}]}, "at most 64 images, got 65"),
        ({"inputs": [{**IMAGE, "shape": [64]}]}, "expected 64 values for the shape"),
        ({"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1], "data": [1e300]}]}, "a value is not finite"),
        ({"inputs": [IMAGE], "outputs": [{"name": "x", "parameters": {"classification": 3}}]}, "gives no classes"),
    ],
)
def test_bad_requests(shared_server: Client, request_: dict[str, Any], told: str) -> None:
    code, answer, _ = shared_server.infer(request_)
    assert code == 400 and told in answer["error"] and list(answer) == ["error"], answer


def test_bad_bodies(shared_server: Client, data: Path) -> None:
    path = "/v2/models/bundle/infer"
    for body, header, told in (
        (b"no json", {}, "the request is no JSON"),
        (b"[]", {}, "the request is no JSON object"),
        (b"[" * 9999, {}, "the request is no JSON"),
        (b"\xff", {}, "not UTF-8"),
        (b"{}", {"inference-header-content-length": "9"}, "expected 0 to 2, the body's bytes, got '9'"),
        (b"{}", {"inference-header-content-length": "-1"}, "got '-1'"),
        (b"{}", {"inference-header-content-length": "9" * 5000}, "expected 0 to 2, the body's bytes"),
    ):
        code, answer, _ = shared_server.get(path, body, **header)
        assert code == 400 and told in json.loads(answer)["error"], answer
    host, port = shared_server.url.removeprefix("http://").split(":")
    for size in (b"Content-Length: 33600000", b"Transfer-Encoding: chunked"):
        with socket.create_connection((host, int(port)), 30) as stream:
            stream.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\n" + size + b"\r\n\r\n")
            if b"chunked" in size:
                with contextlib.suppress(OSError):  # it stops to listen
                    for _ in range(33):
                        stream.sendall(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
            assert stream.recv(1000).startswith(b"HTTP/1.1 413")
    assert shared_server.get(path, b"x", content_encoding="gzip")[0] == 415
    image = photographs(data, 1)[0].read_bytes()
    given, tail = image_input(image)
    code, answer, _ = shared_server.infer({"inputs": [given]}, tail + b"more")
    assert code == 400 and "4 bytes behind the last tensor belong to none" in answer["error"]
    given, tail = image_input(*[image] * 65)
    code, answer, _ = shared_server.infer({"inputs": [given]}, tail)
    assert code == 400 and "at most 64 images, got 65" in answer["error"]
    given, tail = image_input(image, b"broken")
    code, answer, _ = shared_server.infer({"inputs": [given]}, tail)
    assert code == 400 and answer["error"].startswith("image 1: expected a JPEG")
    asked = {"inputs": [image_input(image)[0]], "outputs": [{"name": "ids"}]}
    code, answer, _ = shared_server.infer(asked, image_input(image)[1])
    assert code == 400 and "outputs: there is embedding, and no 'ids'" in answer["error"]


def test_a_client_that_goes(shared_server: Client) -> None:
    host, port = shared_server.url.removeprefix("http://").split(":")
    for text in (
        b"POST /v2/models/bundle/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v2/models/bundle/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"nonsense\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n",
    ):
        with socket.create_connection((host, int(port)), 30) as stream:
            stream.sendall(text)
    shared_server.wait_for('edgerecall_requests_total{code="499",protocol="rest"} 2.0')
    assert shared_server.get("/v2/health/ready")[0] == 200
    assert shared_server.metric("edgerecall_images_waiting 0.0")


def test_queue_and_time_are_bounded(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(sleep_ms=1500, awake=GOLDEN)
    given, tail = image_input(photographs(data, GOLDEN + 1)[GOLDEN].read_bytes())
    with (
        serving(tmp_path, "--queue", "2", "--replicas", "1", "--seconds", "60") as server,
        ThreadPoolExecutor(2) as pool,
    ):
        first = [pool.submit(server.infer, {"inputs": [given]}, tail) for _ in range(2)]
        server.wait_for("edgerecall_images_waiting 2.0")
        code, answer, _ = server.infer({"inputs": [given]}, tail)
        assert code == 503 and "2 images wait already, at most 2 may" in answer["error"]
        assert [one.result()[0] for one in first] == [200, 200]
        server.wait_for("edgerecall_images_waiting 0.0")
        code, answer, _ = server.infer({"inputs": [given], "parameters": {"timeout": 50_000}}, tail)
        assert code == 504 and "not done within 0.05 s" in answer["error"]
        assert server.metric("edgerecall_images_waiting 1.0")  # until the inference has ended
        server.wait_for("edgerecall_images_waiting 0.0")
        assert server.infer({"inputs": [given]}, tail)[0] == 200


def test_one_bad_tensor_ends_the_others(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(sleep_ms=100)
    tensor = np.zeros((32, 3, 64, 64), np.float32)
    size = {"binary_data_size": tensor.nbytes}
    given = {"name": "tensor", "datatype": "FP32", "shape": list(tensor.shape), "parameters": size}
    with serving(tmp_path, "--replicas", "1") as server:
        asked = {"inputs": [given], "parameters": {"timeout": 300_000}}
        assert server.infer(asked, tensor.tobytes())[0] == 504
        server.wait_for("edgerecall_images_waiting 0.0", 2)  # those that had not begun are not computed
        tensor[5, 0, 0, 0] = np.nan
        code, answer, _ = server.infer({"inputs": [given]}, tensor.tobytes())
        assert code == 400 and "a value is not finite" in answer["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_taken_is_answered_before_it_ends(tmp_path: Path, data: Path, fake_bundle: Make, number: int) -> None:
    fake_bundle(sleep_ms=2000, awake=GOLDEN)
    given, tail = image_input(photographs(data, GOLDEN + 1)[GOLDEN].read_bytes())
    with serving(tmp_path, "--replicas", "1") as server, ThreadPoolExecutor(1) as pool:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 30) as half:  # whose body never comes
            half.sendall(b"POST /v2/models/bundle/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            answer = pool.submit(server.infer, {"inputs": [given]}, tail)
            server.wait_for("edgerecall_images_waiting 1.0")
            began = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - began < 25  # and not the time that a body has
            assert answer.result()[0] == 200 and half.recv(100).startswith(b"HTTP/1.1 503")


def test_another_models_gallery_is_not_served(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    bundle = fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    given, tail = image_input(photographs(data, 1)[0].read_bytes())
    other = identity_of(bundle)
    other = other.model_copy(update={"golden": tuple(tuple(-x for x in row) for row in other.golden)})
    with serving(tmp_path, "--gallery", "g", "--top", "1") as server:
        before = server.infer({"inputs": [given]}, tail)[1]
        with (
            DiskGallery(tmp_path / "g", writable=True) as gallery,
            DiskGallery.create(tmp_path / "new", 16, model=other) as new,
        ):
            new.add(["wrong"], np.ones((1, 16), np.float32))
            gallery.take_over(new)
        server.wait_for("edgerecall_gallery_readable 0.0")
        time.sleep(2.5)  # and it stays so
        assert server.metric("edgerecall_gallery_readable 0.0")
        assert server.infer({"inputs": [given]}, tail)[1] == before
        assert "another model: cosine of the golden embeddings down to -1" in server.log.read_text()


def test_what_another_sites_page_asks(shared_server: Client) -> None:
    here = shared_server.url.removeprefix("http://")
    for headers, code in (
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://{here}"}, 200),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 200),
    ):
        assert shared_server.get("/v2/repository/index", b"", **headers)[0] == code, headers
    assert shared_server.get("/v2/", host="evil.example")[0] == 404  # and no redirection there


def test_bytes_are_bounded_in_all(tmp_path: Path, fake_bundle: Make) -> None:
    fake_bundle()
    with serving(tmp_path, "--max-body", "1") as server, contextlib.ExitStack() as stack:
        host, port = server.url.removeprefix("http://").split(":")
        head = b"POST /v2/models/bundle/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n"
        for _ in range(16):
            stack.enter_context(socket.create_connection((host, int(port)), 30)).sendall(head)
        time.sleep(0.3)
        code, answer, headers = server.get("/v2/models/bundle/infer", b"{}" + b" " * 1000)
        assert code == 503 and b"are here already" in answer and headers["retry-after"] == "1"
        stack.close()
        server.wait_for('edgerecall_requests_total{code="499",protocol="rest"} 16.0')
        assert server.get("/v2/models/bundle/infer", b"{}" + b" " * 1000)[0] == 400  # no request, but room for it


def test_values_in_json_are_bounded() -> None:
    for values in (b"[]," * 500_001, b"1," * 1_000_001):
        with pytest.raises(InputError, match="tensors in JSON have at most 1000000 values"):
            read_request(b'{"inputs": [' + values + b"1]}", None, 64)


def test_a_log_that_cannot_be_written(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle()
    given, tail = image_input(photographs(data, 1)[0].read_bytes())
    with serving(tmp_path, "--request-log", "/dev/full") as server:
        assert [server.infer({"inputs": [given]}, tail)[0] for _ in range(2)] == [200, 200]
        assert server.log.read_text().count("requests are no longer logged") == 1
        assert server.stop() == 0


def test_a_replica_that_hangs(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(hang_after=4)
    given, tail = image_input(photographs(data, 1)[0].read_bytes())
    options = ("--worker", "--replicas", "1", "--seconds", "1", "--canary-seconds", "1000")
    with serving(tmp_path, *options) as server:
        server.wait_for("edgerecall_golden_holds 1.0")
        assert server.infer({"inputs": [given]}, tail)[0] == 504
        server.wait_for('edgerecall_reloads_total{result="ok"} 1.0')  # it is ended, and another one comes
        assert server.infer({"inputs": [given]}, tail)[0] == 504
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 25


def test_a_signal_before_it_listens(tmp_path: Path, fake_bundle: Make) -> None:
    fake_bundle()
    command = [sys.executable, "-m", "edgerecall", "serve", "bundle", "--runtime", "fake", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        for _ in range(20):
            time.sleep(0.05)
            status = Path(f"/proc/{server.pid}/status").read_text()
            ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
            if ignored & 1:  # SIGHUP is number 1
                server.send_signal(signal.SIGHUP)
        assert server.stdout is not None and " at http" in server.stdout.readline()
        server.terminate()


def test_a_token(tmp_path: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine) -> None:
    fake_bundle()
    (tmp_path / "token").write_text("a secret\n")
    serve = ("serve", "bundle", "--runtime", "fake", "--port", "0")
    one_line(edgerecall(*serve, "--token-file", "token", cwd=tmp_path), 2, "8 characters or more, without spaces")
    (tmp_path / "token").write_text("secret-token\n")
    with serving(tmp_path, "--token-file", "token") as server:
        assert server.get("/v2/health/ready")[0] == 200  # for probes
        for path in ("/v2", "/metrics", "/v2/health/live", "/v2/models/bundle/ready"):  # probes have none
            assert server.get(path)[0] == 200
        for header in ({}, {"authorization": "Bearer other"}, {"authorization": "secret-token"}):
            code, _, told = server.get("/v2/models/bundle", **header)
            assert code == 401 and told["www-authenticate"] == "Bearer"
            assert server.get("/v2/models/bundle/infer", b"{}", **header)[0] == 401
        for scheme in ("Bearer", "bearer"):
            assert server.get("/v2/models/bundle", authorization=f"{scheme} secret-token")[0] == 200
        host, port = server.url.removeprefix("http://").split(":")
        for first, second, code in (("secret-token", "other", 400), ("other", "secret-token", 401)):
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.putrequest("POST", "/v2/models/bundle/infer")
            for token in (first, second):
                connection.putheader("Authorization", f"Bearer {token}")
            connection.putheader("Content-Length", "2")
            connection.endheaders(b"{}")
            assert connection.getresponse().status == code  # the first counts
            connection.close()


def test_a_model_that_is_no_longer_right_is_not_ready(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(forget_after=8)  # the golden images at the start, and once more
    given, tail = image_input(photographs(data, 1)[0].read_bytes())
    with serving(tmp_path, "--replicas", "1", "--canary-seconds", "0.2") as server:
        server.infer({"inputs": [given]}, tail)
        server.wait_for("edgerecall_golden_holds 0.0")
        assert "not ready: the golden images: embeddings differ" in server.log.read_text()
        assert server.get("/v2/health/ready")[0] == 503
        assert server.get("/v2/models/bundle/ready")[0] == 503 and server.get("/v2/health/live")[0] == 200


def test_what_is_logged_and_counted(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    given, tail = image_input(*(path.read_bytes() for path in photographs(data, 3)))
    with serving(tmp_path, "--request-log", "-", "--gallery", "g", "--max-batch", "4", "--replicas", "1") as server:
        assert server.infer({"inputs": [given], "id": "a\nb"}, tail)[0] == 200
        assert server.infer({"inputs": []})[0] == 400
        server.get("/v2")
        told = server.get("/metrics")[1].decode()
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [(one["code"], one["images"], one["id"]) for one in lines] == [("200", 3, "a\nb"), ("400", 0, None)]
    assert lines[0]["bytes"] > len(tail) and lines[0]["client"] == "127.0.0.1" and lines[0]["protocol"] == "rest"
    assert lines[1]["error"] == "inputs: expected 1 to 16, got 0"
    counts = {
        line.split()[0]: float(line.split()[1])
        for line in told.splitlines()
        if line.startswith(("edgerecall_stage_seconds_count", "edgerecall_batch_images_sum"))
    }
    batches = counts['edgerecall_stage_seconds_count{stage="inference"}']
    assert 1 <= batches <= 3 and counts["edgerecall_batch_images_sum"] == 3
    assert counts['edgerecall_stage_seconds_count{stage="preprocess"}'] == batches
    assert counts['edgerecall_stage_seconds_count{stage="queue"}'] == 3
    assert counts['edgerecall_stage_seconds_count{stage="search"}'] == 1


def test_what_is_not_served(tmp_path: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine) -> None:
    fake_bundle(noise=0.5)
    serve = ("serve", "bundle", "--runtime", "fake")
    one_line(
        edgerecall(*serve, "--port", "0", cwd=tmp_path), 1, "bundle: not served, its golden images: embeddings differ"
    )
    fake_bundle("good")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        used = edgerecall("serve", "good", "--runtime", "fake", "--port", str(port), cwd=tmp_path)
        one_line(used, 2, f"cannot listen on 127.0.0.1:{port}: Address already in use")
    one_line(edgerecall("serve", "good", "--runtime", "fake", "--key", "x", cwd=tmp_path), 2, "TLS needs both")
    one_line(
        edgerecall("serve", "good", "--runtime", "fake", "--host", "", cwd=tmp_path), 2, "--host: expected an address"
    )
    nowhere = edgerecall("serve", "good", "--runtime", "fake", "--host", "é..x", cwd=tmp_path)
    one_line(nowhere, 2, "cannot listen on é..x:8080: no address")
    tls = edgerecall("serve", "good", "--runtime", "fake", "--certificate", "x", "--key", "x", cwd=tmp_path)
    one_line(tls, 2, "--certificate x, --key x: ")
    one_line(
        edgerecall("serve", "good", "--runtime", "fake", "--gallery", "good", cwd=tmp_path), 2, "expected a gallery"
    )
    one_line(edgerecall("serve", "good", "--port", "18577", "--grpc-port", "18577", cwd=tmp_path), 2, "is REST's port")
    one_line(edgerecall("serve", "good", "--pictures", ".", cwd=tmp_path), 2, "--pictures: of a gallery")


def test_many_requests_on_one_connection(shared_server: Client) -> None:
    host, port = shared_server.url.removeprefix("http://").split(":")
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            with socket.create_connection((host, int(port)), 30) as stream, stream.makefile("rb") as answers:
                for _ in range(50):
                    stream.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert answers.readline().startswith(b"HTTP/1.1 200")
                    length = 0
                    while (line := answers.readline()) != b"\r\n":
                        if line.lower().startswith(b"content-length:"):
                            length = int(line.split(b":")[1])
                    assert json.loads(answers.read(length)) == {"live": True}
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
