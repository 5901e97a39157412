"""The static page of `edgerecall web`: what is written, what is refused, and in Chromium, online and offline."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.model import load
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.identity import identity_of

Run = Callable[..., subprocess.CompletedProcess[str]]
Serve = Callable[..., tuple[str, Callable[[], None]]]
BENCH = ["bench.js", "bench.css", "row_worker.js", "index.js", "index.html", "types/x", "ort/webgpu/x"]
NAMES = [*BENCH, "sw.js", "source.js", "worker.js"]
EVIL = "<img src=x onerror=alert(1)>"

expect.set_options(timeout=60_000)  # a page's first time compiles megabytes, on a busy machine


def fake_pages(folder: Path, made_by: str = version("edgerecall")) -> Path:
    """An archive with the names that are wanted of one."""
    path = folder / "pages.tar.gz"
    with tarfile.open(path, "w:gz") as packed:
        for name in (*NAMES, "version.txt"):
            content = made_by.encode() if name == "version.txt" else b"ok\n"
            member = tarfile.TarInfo(f"edgerecall-web/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def golden(root: Path, tmp_path: Path) -> Path:
    """A gallery of the golden bundle, one row of a picture that is there, others not."""
    bundle = Bundle.open(root / "tests/golden/bundle")
    rows = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    ids = ["a/rgb420.jpg", "../../outside.jpg", EVIL, "ü/none.png"]
    with DiskGallery.create(tmp_path / "g", bundle.spec.embedding_dim, model=identity_of(bundle)) as gallery:
        gallery.add(ids, rows, ["one", EVIL, None, "three"])
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    shutil.copy(root / "tests/golden/rgb420.jpg", tmp_path / "pictures/a/rgb420.jpg")
    shutil.copy(root / "tests/golden/rgb420.jpg", tmp_path / "outside.jpg")
    return tmp_path / "g"


def test_signs_alone_stay_signs(root: Path, tmp_path: Path, edgerecall: Run) -> None:
    bundle = Bundle.open(root / "tests/golden/bundle")
    rows = np.random.default_rng(1).standard_normal((3, bundle.spec.embedding_dim)).astype(np.float32)
    with DiskGallery.create(tmp_path / "g", rows.shape[1], "binary", identity_of(bundle)) as gallery:
        gallery.add(["a", "b", "c"], rows)
    line = ("web", root / "tests/golden/bundle", "out", "--gallery", "g", "--pages", fake_pages(tmp_path))
    result = edgerecall(*line, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/gallery/rows.json").read_text())["storage"] == "binary"
    assert np.array_equal(np.load(tmp_path / "out/gallery/rows.npy") > 0, rows > 0)


def test_what_is_written(root: Path, tmp_path: Path, golden: Path, edgerecall: Run) -> None:
    line = ("web", root / "tests/golden/bundle", "out", "--gallery", golden, "--pages", fake_pages(tmp_path))
    more = ("--pictures", tmp_path / "pictures", "--title", EVIL)
    result = edgerecall(*line, *more, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 rows" in result.stdout and "no picture of '../../outside.jpg'" in result.stdout
    out = tmp_path / "out"
    names = json.loads((out / "gallery/rows.json").read_text())
    assert names["ids"][1:3] == ["../../outside.jpg", EVIL] and names["labels"] == ["one", EVIL, "", "three"]
    assert names["storage"] == "float32"
    with DiskGallery(golden) as gallery:
        expected = np.stack([row for _, row in gallery.stored_rows()])
    assert np.array_equal(np.load(out / "gallery/rows.npy"), expected)
    assert [path.name for path in (out / "pictures").iterdir()] == ["0.jpg"]
    page = (out / "index.html").read_text()
    assert EVIL not in page and 'rel="manifest"' in page
    listed = json.loads((out / "edgerecall-site.json").read_text())
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(listed["files"]) == {"", *there} - {"edgerecall-site.json", "sw.js"}
    assert not {f"page/{name}" for name in BENCH} & there
    for name in ("bundle.json", "onnx/model.onnx", "golden/tensors.npy"):
        assert (out / "bundle" / name).read_bytes() == (root / "tests/golden/bundle" / name).read_bytes()

    assert (out / "sw.js").read_text() == f"ok\n// {listed['version']}\n"
    (tmp_path / "pictures/a/rgb420.jpg").unlink()  # a changed file is another version
    assert edgerecall(*line, *more, cwd=tmp_path).returncode == 0
    assert json.loads((out / "edgerecall-site.json").read_text())["version"] != listed["version"]
    (out / "CNAME").write_text("shop.example")
    result = edgerecall(*line, *more, cwd=tmp_path)
    assert result.returncode == 2 and "holds CNAME, which would be lost" in result.stderr
    assert (out / "CNAME").is_file()


def test_pages_of_another_version(root: Path, tmp_path: Path, golden: Path, edgerecall: Run) -> None:
    pages = fake_pages(tmp_path, "0.0.1")
    result = edgerecall("web", root / "tests/golden/bundle", "out", "--gallery", golden, "--pages", pages, cwd=tmp_path)
    assert result.returncode == 2
    assert "made by edgerecall 0.0.1, this is" in result.stderr and "run 'edgerecall cross web' again" in result.stderr
    content = pages.read_bytes()
    pages.write_bytes(content[:40] + b"damaged" + content[47:])
    result = edgerecall("web", root / "tests/golden/bundle", "out", "--gallery", golden, "--pages", pages, cwd=tmp_path)
    assert result.returncode == 2 and "expected an archive" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gallery": "other"}, "query by the model that it was built with"),
        ({"gallery": "nothing"}, "expected|no gallery"),
        ({"pages": "none.tar.gz"}, "expected an archive of 'edgerecall cross web'"),
        ({"pictures": "nowhere"}, "--pictures nowhere: expected a folder"),
        ({"quantisation": "int8"}, "int8"),
        ({"out": "g"}, "g"),
    ],
)
def test_refusals(
    root: Path, tmp_path: Path, golden: Path, edgerecall: Run, change: dict[str, str], reason: str
) -> None:
    """In one line, and nothing is written."""
    assert golden.is_dir()
    if change.get("gallery") == "other":
        bundle = shutil.copytree(root / "tests/golden/bundle", tmp_path / "another")
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["spec"]["normalize_embedding"] = False
        (bundle / "bundle.json").write_text(json.dumps(manifest))
        with DiskGallery.create(tmp_path / "other", 8, model=identity_of(Bundle.open(bundle))) as gallery:
            gallery.add(["x"], np.ones((1, 8), np.float32), ["y"])
    pages = fake_pages(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    given = {"gallery": "g", "pages": pages, **change}
    out = given.pop("out", "out")
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    result = edgerecall("web", root / "tests/golden/bundle", out, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert re.search(reason, result.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.fixture
def shop(web_archive: Path, real_bundle: Path, data: Path, tmp_path: Path, edgerecall: Run) -> Path:
    """The page over a trained bundle, of the data set's test images."""
    lists = ("--images", data, "--list", data / "test_list.txt")
    assert edgerecall("gallery", "build", "g", real_bundle, *lists, cwd=tmp_path).returncode == 0
    more = ("--pages", web_archive, "--pictures", data, "--title", "shop")
    result = edgerecall("web", real_bundle, "out", "--gallery", "g", *more, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    return tmp_path / "out"


def find(page: Page, picture: Path) -> list[str]:
    """The ids found for a picture, when their pictures are there."""
    page.set_input_files("#file", picture)
    expect(page.locator("#found li img")).to_have_count(12)
    expect(page.locator("#status")).to_contain_text("nearest")
    return page.locator("#found .id").all_inner_texts()


KEPT = """async (count) => {
    let kept = 0;
    for (const name of await caches.keys()) kept += (await (await caches.open(name)).keys()).length;
    return kept > count;
}"""


@pytest.mark.device
def test_offline_after_the_first_visit(
    shop: Path, real_bundle: Path, data: Path, chromium: Browser, serve_folder: Serve
) -> None:
    """Served without any header; the worker isolates the page. Then the server goes."""
    url, end = serve_folder(shop, {})
    picture = data / (data / "test_list.txt").read_text().split()[0]
    page = chromium.new_page()
    complaints: list[Any] = []
    page.on("pageerror", lambda error: complaints.append(error))
    page.goto(url)
    page.wait_for_function("crossOriginIsolated")  # it has been opened again by the worker
    expect(page.locator("#about")).to_contain_text("pixels equal")
    online = find(page, picture)
    page.wait_for_function(KEPT, arg=len(json.loads((shop / "edgerecall-site.json").read_text())["files"]))
    end()
    page.reload()
    page.wait_for_function("crossOriginIsolated")
    expect(page.locator("#about")).to_contain_text(
        "2 threads" if page.evaluate("navigator.hardwareConcurrency") == 2 else "threads"
    )
    assert find(page, picture) == online
    with load(real_bundle) as model, DiskGallery(shop.parent / "g", model=Bundle.open(real_bundle)) as gallery:
        (matches,) = gallery.search(model.embed_images([picture]), 12)
    assert online == [match.id for match in matches]
    assert complaints == []


@pytest.mark.device
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1440, "light")])
def test_accessible(
    root: Path, shop: Path, data: Path, chromium: Browser, serve_folder: Serve, width: int, scheme: Any
) -> None:
    """axe-core finds nothing serious; nothing is wider than the page."""
    url, _ = serve_folder(shop, {})
    page = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    page.goto(url)
    find(page, data / (data / "test_list.txt").read_text().split()[0])
    page.add_script_tag(path=root / "build/cross/web/modules/web/node_modules/axe-core/axe.min.js")
    found = page.evaluate("async () => (await axe.run()).violations")
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.device
def test_a_new_folder_reaches_who_was_there(
    shop: Path,
    real_bundle: Path,
    web_archive: Path,
    data: Path,
    chromium: Browser,
    serve_folder: Serve,
    edgerecall: Run,
) -> None:
    """The worker is another one: the next visit but one has the new gallery, and nothing of the old is kept."""
    url, _ = serve_folder(shop, {})
    context = chromium.new_context()
    page = context.new_page()
    page.goto(url)
    expect(page.locator("#about")).to_contain_text(" rows")
    before = page.locator("#about").inner_text()
    one = shop.parent / "one.txt"
    one.write_text((data / "test_list.txt").read_text().splitlines()[0] + "\n")
    assert (
        edgerecall("gallery", "build", "g2", real_bundle, "--images", data, "--list", one, cwd=shop.parent).returncode
        == 0
    )
    fresh = shop.parent / "fresh"
    options = ("--gallery", "g2", "--pages", web_archive, "--title", "shop")
    assert edgerecall("web", real_bundle, fresh, *options, cwd=shop.parent).returncode == 0
    shutil.rmtree(shop)
    fresh.rename(shop)
    page.goto(url)
    page.wait_for_function("async () => (await navigator.serviceWorker.getRegistration()).waiting !== null")
    for _ in range(5):  # the new worker takes over some time after the last page of the old one has gone
        page.close()
        time.sleep(0.5)
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#about")).to_contain_text(" rows")
        if page.locator("#about").inner_text() != before:
            break
    expect(page.locator("#about")).to_contain_text("; 1 rows")
    assert len(page.evaluate("caches.keys()")) == 1


@pytest.mark.device
def test_an_artifact_of_less_precision(
    web_archive: Path,
    real_bundle: Path,
    data: Path,
    tmp_path: Path,
    chromium: Browser,
    serve_folder: Serve,
    edgerecall: Run,
) -> None:
    """The page opens what was chosen, not the fp32 one that is not there."""
    shutil.copytree(real_bundle, tmp_path / "bundle")
    lists = ("--images", data, "--list", data / "test_list.txt")
    assert edgerecall("quantize", "bundle", "--artifacts", "onnx-fp16", cwd=tmp_path).returncode == 0
    assert edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path).returncode == 0
    options = ("--gallery", "g", "--pages", web_archive, "--quantisation", "fp16")
    result = edgerecall("web", "bundle", "out", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = chromium.new_page()
    page.goto(serve_folder(tmp_path / "out", {})[0])
    expect(page.locator("#about")).to_contain_text("pixels equal")


@pytest.mark.device
def test_a_changed_model_is_refused(shop: Path, chromium: Browser, serve_folder: Serve) -> None:
    """By the page, in words."""
    (model,) = (shop / "bundle").glob("onnx*/*.onnx")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    url, _ = serve_folder(shop, {})
    page = chromium.new_page()
    page.goto(url)
    expect(page.locator("#status")).to_contain_text("not the file that was sealed")
