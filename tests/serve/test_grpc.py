"""The gRPC half: statuses, typed tensors, deadlines, the token, TLS, health and ends."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from served import GOLDEN, Client, serving

import edgerecall as package
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.images import decode_rgb
from edgerecall.serve.formats.grpc_format import parse, read_request
from edgerecall.serve.formats.grpc_messages import HEALTH, SERVICE, messages

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]


def photographs(data: Path, count: int) -> list[Path]:
    return sorted(data.glob("*_final/*.JPG"))[:count]


class Caller:
    """A channel to a server."""

    def __init__(self, address: str, root: bytes | None = None) -> None:
        self.channel = (
            grpc.insecure_channel(address)
            if root is None
            else grpc.secure_channel(address, grpc.ssl_channel_credentials(root))
        )

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def raw(self, method: str, body: bytes, service: str = SERVICE, **options: Any) -> bytes:
        """A call of bytes."""
        return bytes(
            self.channel.unary_unary(f"/{service}/{method}")(body, timeout=options.pop("timeout", 60), **options)
        )

    def call(self, name: str, service: str = SERVICE, /, **fields: Any) -> Any:
        method = "Check" if name == "HealthCheck" else name
        body = messages()[f"{name}Request"](**fields).SerializeToString()
        return messages()[f"{name}Response"].FromString(self.raw(method, body, service))

    def infer(self, request: Any, **options: Any) -> np.ndarray:
        """The embedding."""
        answer = messages()["ModelInferResponse"].FromString(
            self.raw("ModelInfer", request.SerializeToString(), **options)
        )
        assert answer.outputs[0].name == "embedding" and answer.outputs[0].datatype == "FP32"
        return np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)


def request_of(*images: bytes, **fields: Any) -> Any:
    """Encoded images as typed contents."""
    contents = messages()["InferTensorContents"](bytes_contents=images)
    tensor = messages()["InferInputTensor"](name="image", datatype="BYTES", shape=[len(images)], contents=contents)
    return messages()["ModelInferRequest"](**{"model_name": "bundle", "inputs": [tensor], **fields})


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """The status and what was said."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code().name, error.value.details()


def test_typed_tensors(shared_server: Client, data: Path) -> None:
    paths = photographs(data, 3)
    bundle = Path(shared_server.log).parent / "bundle"
    with package.load(bundle, runtime="fake", batch_size=1) as model, Caller(shared_server.grpc) as caller:
        expected = model.embed_images(paths)
        images = [path.read_bytes() for path in paths]
        np.testing.assert_array_equal(caller.infer(request_of(*images)), expected)
        pixels = decode_rgb(images[0], "apply", "image")
        asked = request_of(images[0])
        del asked.inputs[:]
        tensor = asked.inputs.add(name="pixels", datatype="UINT8", shape=pixels.shape)
        tensor.contents.uint_contents.extend(pixels.ravel().tolist())
        np.testing.assert_array_equal(caller.infer(asked), expected[:1])
        tensor.contents.uint_contents[0] = 256
        assert refused(lambda: caller.infer(asked)) == (
            "INVALID_ARGUMENT",
            "pixels: data: expected numbers from 0 to 255",
        )


def changed(**inputs: Any) -> Callable[[Any], None]:
    """Sets fields of the first input."""

    def change(request: Any) -> None:
        for name, value in inputs.items():
            if name == "shape":
                del request.inputs[0].shape[:]
                request.inputs[0].shape.extend(value)
            else:
                setattr(request.inputs[0], name, value)

    return change


BAD: list[tuple[Callable[[Any], Any], str]] = [
    (lambda request: request.inputs.pop(), "inputs: expected 1 to 16, got 0"),
    (lambda request: request.inputs.add(name="x"), "x: shape: expected 1 to 4 whole numbers above 0, got []"),
    (changed(name=""), "inputs: name: expected a text"),
    (changed(datatype="INT64"), "datatype: expected FP32, UINT8, BYTES, got 'INT64'"),
    (changed(shape=[2]), "image: bytes_contents: expected 2 values for the shape, got 1"),
    (changed(shape=[65]), "a request has at most 64 images, got 65"),
    (changed(shape=[-1]), "whole numbers above 0, got [-1]"),
    (changed(shape=[1] * 99), "expected 1 to 4 whole numbers above 0"),
    (changed(datatype="FP32"), "image: fp32_contents: expected 1 values for the shape, got 0"),
    (lambda request: request.raw_input_contents.append(b"x"), "expected contents or raw_input_contents, got both"),
    (lambda request: request.raw_input_contents.extend([b"x"] * 2), "expected one for each of 1 inputs, got 2"),
    (lambda request: request.parameters["k"].__setattr__("string_param", "x"), "k: expected a whole number"),
    (lambda request: request.parameters["timeout"].__setattr__("int64_param", 0), "timeout: expected microseconds"),
    (lambda request: request.outputs.add(name="ids"), "outputs: there is embedding, and no 'ids'"),
    (lambda request: request.outputs.add(), "outputs: name: expected a text"),
    (
        lambda request: (
            request.outputs.add(name="embedding").parameters["classification"].__setattr__("int64_param", 3)
        ),
        "this model gives no classes",
    ),
    (lambda request: [request.parameters[str(n)] for n in range(65)], "parameters: expected at most 64, got 65"),
    (lambda request: request.__setattr__("id", "x" * 300), "id: expected a text of at most 256 characters"),
]


@pytest.mark.parametrize(("change", "told"), BAD)
def test_bad_requests(shared_server: Client, data: Path, change: Callable[[Any], Any], told: str) -> None:
    request = request_of(photographs(data, 1)[0].read_bytes())
    change(request)
    with Caller(shared_server.grpc) as caller:
        code, details = refused(lambda: caller.infer(request))
    assert code == "INVALID_ARGUMENT" and told in details, details


def test_other_bad_calls(shared_server: Client) -> None:
    with Caller(shared_server.grpc) as caller:
        assert refused(lambda: caller.infer(request_of(b"no image")))[1].startswith("image 0: expected a JPEG")
        code, told = refused(lambda: caller.raw("ModelInfer", b"\xff\xff"))
        assert code == "INVALID_ARGUMENT" and told.startswith("the request is no ModelInferRequest"), told
        assert refused(lambda: caller.raw("ServerLive", b"\xff"))[0] == "INVALID_ARGUMENT"
        assert refused(lambda: caller.infer(request_of(b"x", model_name="other"))) == (
            "NOT_FOUND", "no model 'other' here: there is 'bundle'"
        )  # fmt: skip
        assert refused(lambda: caller.infer(request_of(b"x", model_version="2")))[0] == "NOT_FOUND"
        assert refused(lambda: caller.raw("Nothing", b""))[0] == "UNIMPLEMENTED"
        assert refused(lambda: caller.infer(request_of(bytes(33 << 20))))[0] == "RESOURCE_EXHAUSTED"
        assert (
            caller.call("HealthCheck", HEALTH).status == caller.call("HealthCheck", HEALTH, service=SERVICE).status == 1
        )
        assert refused(lambda: caller.call("HealthCheck", HEALTH, service="x"))[0] == "NOT_FOUND"
        about = caller.call("ServerMetadata")
        assert about.name == "edgerecall" and list(about.extensions) == ["binary_tensor_data"]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_comes_is_a_request_or_a_line(data: st.DataObject) -> None:
    """Bytes that are none, and messages with any of their fields changed."""
    body = bytearray(request_of(b"0123456789", id="a").SerializeToString())
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_request(parse("ModelInferRequest", bytes(body)), 64)
    except InputError as error:
        assert "\n" not in str(error)


def test_a_name_of_two_lines_is_told_in_one() -> None:
    request = request_of(b"0123456789")
    request.inputs[0].name = "a\nb"
    del request.inputs[0].shape[:]
    with pytest.raises(InputError, match=r"^a\\nb: shape: expected"):
        read_request(request, 64)


def test_bounds_and_deadlines(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(sleep_ms=1500, awake=GOLDEN)
    request = request_of(photographs(data, GOLDEN + 1)[GOLDEN].read_bytes())
    with (
        serving(tmp_path, "--queue", "2", "--replicas", "1", "--seconds", "60", "--request-log", "log") as server,
        Caller(server.grpc) as caller,
        ThreadPoolExecutor(2) as pool,
    ):
        first = [pool.submit(caller.infer, request) for _ in range(2)]
        server.wait_for("edgerecall_images_waiting 2.0")
        with pytest.raises(grpc.RpcError) as error:
            caller.infer(request)
        assert error.value.code().name == "RESOURCE_EXHAUSTED" and "2 images wait already" in error.value.details()
        assert ("grpc-retry-pushback-ms", "1000") in [tuple(one) for one in error.value.trailing_metadata()]
        assert all(one.result().shape == (1, 16) for one in first)
        server.wait_for("edgerecall_images_waiting 0.0")
        assert refused(lambda: caller.infer(request, timeout=0.3))[0] == "DEADLINE_EXCEEDED"
        assert server.metric("edgerecall_images_waiting 1.0")  # until the inference has ended
        server.wait_for("edgerecall_images_waiting 0.0")
        gone = caller.channel.unary_unary(f"/{SERVICE}/ModelInfer").future(request.SerializeToString())
        server.wait_for("edgerecall_images_waiting 1.0")
        gone.cancel()
        end = time.monotonic() + 30
        while len((tmp_path / "log").read_text().splitlines()) < 5:
            assert time.monotonic() < end
            time.sleep(0.05)
        server.wait_for("edgerecall_images_waiting 0.0")
        request.parameters["timeout"].int64_param = 50_000
        assert refused(lambda: caller.infer(request)) == ("DEADLINE_EXCEEDED", "not done within 0.05 s")
        for code, count in (("OK", 2), ("RESOURCE_EXHAUSTED", 1)):
            assert server.metric(f'edgerecall_requests_total{{code="{code}",protocol="grpc"}} {count}.0')
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    codes = [one["code"] for one in lines]
    assert sorted(codes[:3]) == ["OK", "OK", "RESOURCE_EXHAUSTED"] and codes[4:] == ["CANCELLED", "DEADLINE_EXCEEDED"]
    assert codes[3] in ("CANCELLED", "DEADLINE_EXCEEDED")  # whichever side sees it first
    answered = next(one for one in lines if one["code"] == "OK")
    assert answered["protocol"] == "grpc" and answered["images"] == 1 and answered["bytes"] > 1000
    assert answered["seconds"] > 1.4 and answered["client"].startswith("ipv4:127.0.0.1:") and "error" not in answered
    assert next(one for one in lines if one["code"] == "RESOURCE_EXHAUSTED")["error"].startswith(
        "2 images wait already"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_taken_is_answered_before_it_ends(tmp_path: Path, data: Path, fake_bundle: Make, number: int) -> None:
    fake_bundle(sleep_ms=2000, awake=GOLDEN)
    request = request_of(photographs(data, GOLDEN + 1)[GOLDEN].read_bytes())
    with (
        serving(tmp_path, "--replicas", "1") as server,
        Caller(server.grpc) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(caller.infer, request)
        server.wait_for("edgerecall_images_waiting 1.0")
        assert server.stop(number) == 0 and answer.result().shape == (1, 16)
        assert refused(lambda: caller.infer(request))[0] == "UNAVAILABLE"


def test_token_and_tls(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle()
    (tmp_path / "token").write_text("secret-token\n")
    authority = trustme.CA()
    pair = authority.issue_cert("127.0.0.1")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    request = request_of(photographs(data, 1)[0].read_bytes())
    tls = ("--certificate", "cert.pem", "--key", "key.pem")
    with (
        serving(tmp_path, "--token-file", "token", *tls) as server,
        Caller(server.grpc, authority.cert_pem.bytes()) as caller,
        Caller(server.grpc) as plain,
    ):
        assert caller.call("ServerReady").ready and caller.call("ModelReady", name="bundle").ready
        told = ("UNAUTHENTICATED", "expected the header 'Authorization: Bearer TOKEN'")
        assert refused(lambda: caller.infer(request)) == told
        assert refused(lambda: caller.infer(request, metadata=[("authorization", "Bearer other")])) == told
        assert refused(lambda: caller.call("ModelMetadata", name="bundle")) == told
        assert caller.infer(request, metadata=[("authorization", "Bearer secret-token")]).shape == (1, 16)
        assert refused(lambda: plain.call("ServerLive"))[0] == "UNAVAILABLE"


def test_the_port(tmp_path: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine) -> None:
    fake_bundle()
    serve = ("serve", "bundle", "--runtime", "fake", "--port", "0")
    with serving(tmp_path) as server:
        port = server.grpc.split(":")[1]
        taken = edgerecall(*serve, "--grpc-port", port, cwd=tmp_path)
        one_line(taken, 2, f"cannot listen on 127.0.0.1:{port} for gRPC (--grpc-port)")
    one_line(edgerecall(*serve, "--no-grpc", "--grpc-port", "1", cwd=tmp_path), 2, "leave out one")
    last = edgerecall("serve", "bundle", "--port", "65535", cwd=tmp_path)
    one_line(last, 2, "--port 65535 leaves none for gRPC")


def test_many_at_once_and_some_that_go(tmp_path: Path, data: Path, fake_bundle: Make) -> None:
    fake_bundle(sleep_ms=5)
    request = request_of(photographs(data, 1)[0].read_bytes())
    failed: list[BaseException] = []

    def ask(turn: int) -> None:
        with Caller(server.grpc) as caller:
            for number in range(20):
                try:
                    if (number + turn) % 4 == 0:
                        caller.channel.unary_unary(f"/{SERVICE}/ModelInfer").future(
                            request.SerializeToString()
                        ).cancel()
                    else:
                        assert caller.infer(request).shape == (1, 16)
                except BaseException as error:
                    failed.append(error)

    with serving(tmp_path) as server:
        threads = [threading.Thread(target=ask, args=[turn]) for turn in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, failed
        server.wait_for("edgerecall_images_waiting 0.0")
        time.sleep(0.2)
        assert "Traceback" not in server.log.read_text() and server.stop() == 0
