"""Rows from a browser, none needed: a page's part is played here, honestly and otherwise."""

from __future__ import annotations

import io
import json
import queue
import socket
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgerecall.bench.devices import browser_bench
from edgerecall.bench.devices.browser import command_line, find_browser, own_address, parse_browser
from edgerecall.bench.devices.browser_bench import BrowserBench, tell
from edgerecall.bench.devices.device import open_device
from edgerecall.bench.devices.page_server import PageJob, PageServer
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import random_inputs
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import SCHEMA, Row
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeUnavailable
from edgerecall.runtimes.core.files import sha256
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.predictor.registry import open_files

Answer = tuple[int, bytes, Any]


def ask(url: str, token: str = "", body: bytes | None = None, **headers: str) -> Answer:
    """Status, body and headers; an error's too."""
    request = urllib.request.Request(url, body, headers=headers)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


def archive(folder: Path) -> Path:
    """Pages like those of `edgerecall cross web`."""
    path = folder / "edgerecall-web.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name in ("index.html", "row_worker.js", "edgerecall.wasm", "version.txt"):
            content = version("edgerecall").encode() if name == "version.txt" else b"ok"
            member = tarfile.TarInfo(f"edgerecall-web/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[PageServer, PageJob]]:
    """A server with a job of nothing."""
    pages, results = tmp_path / "pages", tmp_path / "results"
    pages.mkdir()
    results.mkdir()
    (pages / "index.html").write_text("page")
    (tmp_path / "secret").write_text("secret")
    work = PageJob(pages, {"schema": SCHEMA}, {"images/0": pages / "index.html"}, {"row-0.npy": 10}, results)
    with PageServer(work, "127.0.0.1", 0, "127.0.0.1") as server:
        yield server, work


def test_only_who_has_the_link(served: tuple[PageServer, PageJob]) -> None:
    server, work = served
    for path in ("job/job.json", "job/images/0"):
        assert ask(f"{server.origin}/{path}")[0] == 401
        assert ask(f"{server.origin}/{path}", "wrong")[0] == 401
        for origin in ("http://evil.example", "null", "http://[", server.origin.replace("127.0.0.1", "127.0.0.2")):
            assert ask(f"{server.origin}/{path}", server.token, Origin=origin)[0] == 403
    for path in ("job/result", "job/progress", "job/gone", "job/arrays/row-0.npy"):
        assert ask(f"{server.origin}/{path}", "wrong", b"{}")[0] == 401
    assert not work.state.opened
    assert not list(work.results.iterdir())
    assert (
        ask(f"{server.origin}/job/job.json", server.token)[1]
        == json.dumps({"schema": SCHEMA}).replace(" ", "").encode()
    )
    status, why, _ = ask(f"{server.origin}/job/job.json", server.token)
    assert status == 409
    assert b"opened before" in why


def test_the_page_however_its_address_was_typed(served: tuple[PageServer, PageJob]) -> None:
    server, _ = served
    port = server.origin.rpartition(":")[2]
    for host, origin in (
        (f"Laptop.local:{port}", f"http://laptop.local:{port}"),
        ("a.example", "https://a.example:80"),
    ):
        answer = ask(f"{server.origin}/job/progress", server.token, b"{}", Origin=origin, Host=host)
        assert answer[0] == 400  # let in, and its message refused


def test_other_origins_reach_nothing(served: tuple[PageServer, PageJob]) -> None:
    server, _ = served
    for path in ("", "job/job.json", "job/images/0", "nowhere"):
        headers = ask(f"{server.origin}/{path}", server.token)[2]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path", ["../secret", "..%2fsecret", "%2e%2e/secret", "job/../../secret", "job/images/..%2f..%2fsecret"]
)
def test_no_way_out_of_the_folder(served: tuple[PageServer, PageJob], path: str) -> None:
    server, _ = served
    host, port = server.origin.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:  # urllib would tidy the path
        raw.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


def test_bodies_are_bounded_and_named(served: tuple[PageServer, PageJob]) -> None:
    server, work = served
    assert ask(f"{server.origin}/job/arrays/row-0.npy", server.token, bytes(11))[0] == 413
    assert ask(f"{server.origin}/job/arrays/row-1.npy", server.token, b"x")[0] == 404
    assert ask(f"{server.origin}/job/arrays/..%2fx.npy", server.token, b"x")[0] in (404, 405)
    assert ask(f"{server.origin}/job/progress", server.token, b"x" * 5000)[0] == 400
    assert not list(work.results.iterdir())
    assert ask(f"{server.origin}/job/arrays/row-0.npy", server.token, bytes(10))[0] == 204
    assert (work.results / "row-0.npy").read_bytes() == bytes(10)


MESSAGES = st.fixed_dictionaries(
    {
        "what": st.text() | st.none() | st.sampled_from(["[/x]", "\x1b[2J"]),
        "share": st.floats() | st.sampled_from([10**400, "1", None, -1, float("nan")]),
        "hidden": st.booleans() | st.none(),
    }
)
WORDS = st.sampled_from(["what", "share", "hidden", "x"])
VALUES = st.recursive(
    st.none() | st.floats() | st.text(), lambda one: st.lists(one) | st.dictionaries(WORDS, one), max_leaves=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | (MESSAGES | VALUES).map(lambda value: json.dumps(value).encode()))
@example(b"[" * 4000)
@example(b'{"what": "[/x] \\u001b[2J", "share": 0.5, "hidden": false}')
def test_progress_is_never_believed(served: tuple[PageServer, PageJob], body: bytes) -> None:
    server, work = served
    assert ask(f"{server.origin}/job/progress", server.token, body)[0] in (204, 400)
    assert 0 <= work.state.share <= 1
    assert len(work.state.what) <= 200
    assert work.state.what.isprintable() or work.state.what == ""


@pytest.mark.parametrize(
    ("name", "program", "host", "port"),
    [
        ("browser", "", "127.0.0.1", 0),
        ("browser:chromium", "chromium", "127.0.0.1", 0),
        ("browser:firefox@0.0.0.0:8100", "firefox", "0.0.0.0", 8100),
        ("browser@[::1]:80", "", "::1", 80),
        ("browser@my-laptop.local", "", "my-laptop.local", 0),
    ],
)
def test_names(name: str, program: str, host: str, port: int) -> None:
    found = parse_browser(name)
    assert (found.program, found.host, found.port) == (program, host, port)


@pytest.mark.parametrize(
    "name", ["browser:opera", "browser:", "browser@", "browser@a:99999", "browser:chromium@a b", "browsers"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InputError, match=r"expected browser\[:chromium\|:firefox\]\[@HOST\[:PORT\]\]"):
        parse_browser(name)


def test_all_addresses_are_this_machines_own() -> None:
    assert parse_browser("browser@0.0.0.0").address == own_address()
    assert parse_browser("browser@10.0.0.9").address == "10.0.0.9"


def test_a_browser_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGERECALL_FIREFOX", "no-such-browser")
    with pytest.raises(InputError, match="found no no-such-browser: on Debian 'apt-get install firefox-esr'"):
        find_browser("firefox")


def test_nothing_of_the_users_own_browser(tmp_path: Path) -> None:
    assert f"--user-data-dir={tmp_path}" in command_line("chromium", "/usr/bin/chromium", tmp_path, "http://x")
    firefox = command_line("firefox", "/usr/bin/firefox", tmp_path, "http://x")
    assert firefox[firefox.index("--profile") + 1] == str(tmp_path)


def test_devices_that_are_none_name_browsers_too() -> None:
    with pytest.raises(InputError, match=r"browser\[:chromium\]"):
        open_device("phone")


def test_it_does_not_run_here(root: Path) -> None:
    bundle = Bundle.open(root / "tests/golden/bundle")
    with pytest.raises(RuntimeUnavailable, match="--device browser"):
        open_files("web-onnxruntime", {}, bundle.spec.io, RunOptions())


Play = Callable[[str, str], None]


@pytest.fixture
def measure(root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Row]]:
    """The rows of the golden bundle, after a page's part was played by `play(origin, token)`."""
    bundle = Bundle.open(root / "tests/golden/bundle")
    images = ImageSet.find(data, data / "test_list.txt").paths
    links: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(browser_bench, "tell", lambda link, host: links.put(link))

    def run(play: Play, silent_s: float = 20.0, **options: Any) -> list[Row]:
        chosen = BenchOptions(runtimes=("onnxruntime",), samples=4, rounds=2, timeout_s=5, **options)
        bench = BrowserBench("browser", bundle, chosen, random_inputs(bundle), [archive(tmp_path)], 0, silent_s)
        bench.prepare()
        rows: list[Row] = []
        working = threading.Thread(
            target=lambda: rows.extend(bench.measure(images, list(map(sha256, images)), lambda what, share: None).rows),
            daemon=True,
        )
        working.start()
        origin, _, token = links.get(timeout=30).partition("/#")
        play(origin, token)
        working.join(30)
        assert not working.is_alive()
        return rows

    return run


def test_the_link_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    tell("http://127.0.0.1:80/#token", "127.0.0.1")
    assert "http://127.0.0.1:80/#token" in (told := capsys.readouterr().err)
    assert "--device browser@ADDRESS" in told
    tell("http://10.0.0.9:80/#token", "10.0.0.9")
    told = capsys.readouterr().err
    assert len(told.splitlines()) > 12 and "\u2588" in told


def honest(origin: str, token: str, **changes: Any) -> None:
    """What a sound page posts, but for the changes: of the report, of `row`, or an array's bytes by its name."""
    job = json.loads(ask(f"{origin}/job/job.json", token)[1])
    row = {
        "status": "ok",
        "precision": "fp32",
        "samples_ns": [5, 5, 5, 5],
        "round_medians_ns": [5.0, 5.0],
        "latency_p50_ms": 5e-6,
    }
    row |= changes.pop("row", {})
    inputs = np.load(io.BytesIO(ask(f"{origin}/job/inputs.npy", token)[1]))
    arrays = {"row-0.npy": len(job["images"]), "row-0-inputs.npy": len(inputs)}
    if (tensor := changes.pop("tensor", None)) is not None:
        stream = io.BytesIO()
        np.save(stream, tensor)
        assert ask(f"{origin}/job/arrays/row-0-tensor.npy", token, stream.getvalue())[0] == 204
    for name, count in arrays.items():
        stream = io.BytesIO()
        np.save(stream, np.ones((count, 8), np.float32) / np.sqrt(np.float32(8)))
        body = changes.pop(name, stream.getvalue())
        if body is not None:
            assert ask(f"{origin}/job/arrays/{name}", token, body)[0] == 204
    report = {
        "schema": SCHEMA,
        "program": "0.1.0",
        "machine": {"cores": 8},
        "pixel_error": 0.0,
        "bad_images": [],
        "thermal_log": [],
    }
    body = changes.pop("body", None)
    body = body or json.dumps({**report, "rows": [row] * len(job["rows"]), **changes}).encode()
    assert ask(f"{origin}/job/result", token, body)[0] == 204


def test_a_sound_page(measure: Callable[..., list[Row]]) -> None:
    (row,) = measure(honest)
    assert (row.name, row.runtime, row.status) == ("web-onnxruntime @ browser", "web-onnxruntime", "ok")
    assert row.detail["cores"] == 8


def test_a_tensor_that_differs_fails_its_row(measure: Callable[..., list[Row]], root: Path) -> None:
    """Whatever the page itself says of its pixels; a copy of the sealed one does not."""
    _, tensors, _ = Bundle.open(root / "tests/golden/bundle").golden()
    for change, status in ((0.0, "ok"), (0.5, "parity")):
        shown = {"tensor": tensors[1] + np.float32(change), "shown": [{"row": 0, "golden": 1}]}
        (row,) = measure(lambda *link: honest(*link, **shown))  # noqa: B023
        assert row.status == status
    assert row.reason == "preprocessing differs there from the golden tensors by 5.0e-01"


@pytest.mark.parametrize(
    "shown", [{"row": 0, "golden": 99}, {"row": 0, "golden": -1}, {"row": 0, "image": 10**9}, {"row": 7}, {"row": 0}]
)
def test_tensors_of_nothing_are_left_out(measure: Callable[..., list[Row]], root: Path, shown: dict[str, int]) -> None:
    _, tensors, _ = Bundle.open(root / "tests/golden/bundle").golden()
    for tensor in (None, tensors[0] + 1):
        (row,) = measure(lambda *link: honest(*link, shown=[shown], tensor=tensor))  # noqa: B023
        assert row.status == "ok"


def test_tensors_that_are_none_are_left_out(measure: Callable[..., list[Row]], root: Path) -> None:
    _, tensors, _ = Bundle.open(root / "tests/golden/bundle").golden()
    shown = [{"row": 0, "golden": 0}]
    for tensor, status in (
        (tensors[0] + 1, "parity"),
        (tensors[0][:, 1:] + 1, "ok"),
        (tensors[0] * np.nan, "ok"),
        (None, "ok"),
    ):
        (row,) = measure(lambda *link: honest(*link, shown=shown, tensor=tensor))  # noqa: B023
        assert row.status == status


def test_what_was_asked_is_not_the_pages_to_say(measure: Callable[..., list[Row]]) -> None:
    claims = {"runtime": "openvino", "name": "<b>", "batch": 64, "requested_threads": 9, "device": "local", "group": 7}
    (row,) = measure(lambda *link: honest(*link, row=claims))
    assert (row.runtime, row.batch, row.requested_threads, row.device, row.group) == (
        "web-onnxruntime",
        1,
        1,
        "browser",
        0,
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"body": b"{"}, "bench.json cannot be read"),
        ({"body": b"[]"}, "expected schema"),
        ({"schema": 1}, "expected schema"),
        ({"pixel_error": "none"}, "bench.json: "),
        ({"rows": []}, "expected 1 rows, got 0"),
        ({"row": {"samples_ns": "fast"}}, "row 0 of bench.json is not valid"),
        ({"row": {"samples_ns": []}}, "expected times of rounds"),
        ({"row": {"samples_ns": [0, 1]}}, "expected times of rounds"),
        ({"row": {"samples_ns": [10**30, 1]}}, "expected times of rounds"),
        ({"row": {"round_medians_ns": [float("nan")]}}, "expected times of rounds"),
        ({"row": {"load_ms": float("inf")}}, "load_ms: expected a figure, got inf"),
        ({"row": {"size_mb": -1}}, "size_mb: expected a figure, got -1"),
        ({"body": b"[" * 100_000}, "bench.json cannot be read"),
        ({"pixel_error": None}, "nothing there could tell"),
        ({"pixel_error": float("nan")}, "Input should be a finite number"),
        ({"row-0.npy": None}, "its embeddings cannot be read"),
        ({"row-0.npy": b"junk"}, "its embeddings cannot be read"),
        ({"row-0-inputs.npy": b""}, "its embeddings cannot be read"),
        ({"pixel_error": 0.01}, "preprocessing differs there from the golden tensors"),
        ({"bad_images": [[0, "truncated"]]}, "1 images cannot be read there"),
    ],
)
def test_results_that_cannot_be_used(measure: Callable[..., list[Row]], changes: dict[str, Any], reason: str) -> None:
    (row,) = measure(lambda *link: honest(*link, **changes))
    assert row.status in ("failed", "parity")
    assert reason in str(row.reason)


def test_figures_are_the_hosts_to_work_out(measure: Callable[..., list[Row]]) -> None:
    claims = {
        "latency_p50_ms": 1e-9,
        "images_per_s": 1e9,
        "recall1": 1.0,
        "hits": "111",
        "reason": None,
        "warnings": ["\x1b[2J"],
    }
    (row,) = measure(lambda *link: honest(*link, row={**claims, "samples_ns": [2_000_000] * 4}))
    assert (row.latency_p50_ms, row.images_per_s, row.recall1, row.hits) == (2.0, 500.0, None, "")
    assert row.warnings == ["\\x1b[2J"]


def test_addresses_that_cannot_be_had(root: Path, tmp_path: Path) -> None:
    """Before anything is measured; and a row where it is taken later."""
    bundle = Bundle.open(root / "tests/golden/bundle")
    options = BenchOptions(runtimes=("onnxruntime",))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for place in (f"127.0.0.1:{taken.getsockname()[1]}", "no-such-host.invalid"):
            bench = BrowserBench(f"browser@{place}", bundle, options, random_inputs(bundle), [archive(tmp_path)])
            with pytest.raises(InputError, match="cannot listen on"):
                bench.prepare()
            (row,) = bench.measure([], [], lambda what, share: None).rows
            assert "cannot listen on" in str(row.reason)


def test_a_page_that_leaves(measure: Callable[..., list[Row]]) -> None:
    def play(origin: str, token: str) -> None:
        ask(f"{origin}/job/job.json", token)
        ask(f"{origin}/job/gone", token, b"out of memory\n")

    (row,) = measure(play)
    assert (row.status, row.reason) == ("failed", "browser: out of memory")


def test_a_page_that_falls_silent(measure: Callable[..., list[Row]]) -> None:
    def play(origin: str, token: str) -> None:
        ask(f"{origin}/job/job.json", token)
        ask(f"{origin}/job/progress", token, json.dumps({"what": "round 3", "share": 0.5, "hidden": True}).encode())

    (row,) = measure(play, silent_s=1.0)
    assert str(row.reason).endswith("asleep, closed or offline while round 3")


def test_a_page_in_the_background_is_told(measure: Callable[..., list[Row]]) -> None:
    def play(origin: str, token: str) -> None:
        ask(f"{origin}/job/progress", token, json.dumps({"what": "x", "share": 0.5, "hidden": True}).encode())
        honest(origin, token)

    (row,) = measure(play)
    assert any("in the background" in warning for warning in row.warnings)


def test_pages_that_are_not_there(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(root / "tests/golden/bundle")
    monkeypatch.chdir(tmp_path)
    options = BenchOptions(runtimes=("onnxruntime",))
    with pytest.raises(InputError, match="run 'edgerecall cross web' here"):
        BrowserBench("browser", bundle, options, random_inputs(bundle)).prepare()
    (tmp_path / "edgerecall-web.tar.gz").write_bytes(b"none")
    bench = BrowserBench("browser", bundle, options, random_inputs(bundle), [tmp_path / "edgerecall-web.tar.gz"])
    with pytest.raises(InputError, match="expected an archive of 'edgerecall cross web'"):
        bench.prepare()


def test_nothing_for_a_browser(fake_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = fake_bundle()
    bench = BrowserBench(
        "browser", bundle, BenchOptions(runtimes=("fake",)), random_inputs(bundle), [archive(tmp_path)]
    )
    bench.prepare()
    (row,) = bench.measure([], [], lambda what, share: None).rows
    assert "browsers run ONNX artifacts" in str(row.reason)
