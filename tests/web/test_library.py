"""@edgerecall/web in Chromium: the pixels, the embeddings and the neighbours that Python gives, and its refusals."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from edgerecall.bench.devices.page_server import HEADERS
from edgerecall.runtimes._native import Gallery
from edgerecall.runtimes.bundle.web_pages import unpack_pages
from edgerecall.runtimes.embed.model import load
from edgerecall.runtimes.preprocess.ops import FILTERS, Preprocess
from edgerecall.runtimes.preprocess.pipeline import preprocess_bytes

pytestmark = pytest.mark.device
PAGE = """<!doctype html><title>test</title><link rel=icon href="data:,">
<script type=module>window.web = await import("/web/index.js"); document.title = "ready"</script>"""


@pytest.fixture
def site(
    web_archive: Path, real_bundle: Path, tmp_path: Path, serve_folder: Callable[..., tuple[str, object]]
) -> tuple[Path, str]:
    """A folder with the package and a bundle, and its URL; the page is isolated."""
    unpack_pages(web_archive, tmp_path / "site" / "web")
    folder = tmp_path / "site"
    shutil.copytree(real_bundle, folder / "bundle")
    (folder / "index.html").write_text(PAGE)
    headers = {name: value for name, value in HEADERS.items() if name != "Content-Security-Policy"}
    return folder, serve_folder(folder, headers)[0]


@pytest.fixture
def page(site: tuple[Path, str], chromium: Browser) -> Page:
    """A page where the package is `web`."""
    opened = chromium.new_page()
    opened.goto(site[1])
    opened.wait_for_function("document.title === 'ready'")
    return opened


def text(image: Path) -> str:
    return base64.b64encode(image.read_bytes()).decode()


BYTES = "const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));"


def test_the_same_embeddings_and_neighbours(site: tuple[Path, str], page: Page, data: Path) -> None:
    images = sorted(data.glob("*_final/*.JPG"))[:24]
    told = page.evaluate(
        f"""async (images) => {{
        {BYTES}
        const model = await web.load("bundle");
        const rows = [];
        for (const one of images) rows.push(await model.embed(bytes(one)));
        const found = {{}};
        for (const storage of ["float32", "float16", "int8", "binary"]) {{
            const gallery = model.gallery(storage);
            for (const row of rows) await gallery.add(row);
            const {{ rows: places, similarities }} = await gallery.search(rows[3], 10);
            found[storage] = [Array.from(places), Array.from(similarities)];
        }}
        const blob = await model.embed(new Blob([bytes(images[0])]));
        return {{ info: model.info, rows: rows.map((row) => Array.from(row)), found, blob: Array.from(blob) }};
    }}""",
        [text(image) for image in images],
    )
    with load(site[0] / "bundle") as model:
        expected = model.embed_images(images)
    rows = np.asarray(told["rows"], np.float32)
    assert np.abs(rows - expected).max() < 1e-5
    assert told["blob"] == told["rows"][0]
    assert told["info"]["proof"]["pixelError"] == 0
    assert told["info"]["runtime"] == "onnxruntime"
    for storage, (places, similarities) in told["found"].items():
        gallery = Gallery(rows.shape[1], storage)
        gallery.add(rows)
        mine, scores = gallery.search(rows[3:4], 10)
        assert places == mine[0].tolist()
        assert np.array_equal(np.asarray(similarities, np.float32), scores[0])


def test_pixels_of_a_canvas(site: tuple[Path, str], page: Page, data: Path) -> None:
    """What a page has drawn itself: Chromium decodes a JPEG to the same pixels, upright ones of sRGB at least."""
    image = sorted(data.glob("*_final/*.JPG"))[0]
    canvas, encoded = page.evaluate(
        f"""async (text) => {{
        {BYTES}
        const model = await web.load("bundle");
        const picture = await createImageBitmap(new Blob([bytes(text)]));
        const canvas = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
        canvas.drawImage(picture, 0, 0);
        const pixels = canvas.getImageData(0, 0, picture.width, picture.height);
        return [Array.from(await model.embed(pixels)), Array.from(await model.embed(bytes(text)))];
    }}""",
        text(image),
    )
    assert canvas == encoded


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "image is empty|neither JPEG nor PNG|expected"),
        (b"GIF89a" + bytes(40), "neither JPEG nor PNG|JPEG|PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(40), "."),
    ],
)
def test_bad_images(page: Page, body: bytes, reason: str) -> None:
    """Each is refused with the core's own words, and the model goes on."""
    told = page.evaluate(
        f"""async (text) => {{
        {BYTES}
        const model = await web.load("bundle");
        let why = "";
        try {{ await model.embed(bytes(text)); }} catch (error) {{ why = error.message; }}
        const canvas = new ImageData(200, 200);
        return [why, (await model.embed(canvas)).length];
    }}""",
        base64.b64encode(body).decode(),
    )
    assert re.search(reason, told[0]), told
    assert told[1] > 0


LOAD = """async (options) => {
    try { await web.load("bundle", options); } catch (error) { return [error.name, error.message]; }
    return ["", ""];
}"""


def test_a_bundle_that_was_changed(site: tuple[Path, str], page: Page) -> None:
    bundle = site[0] / "bundle"
    manifest = json.loads((bundle / "bundle.json").read_text())
    path = next(one["files"][0]["path"] for one in manifest["artifacts"] if one["runtime"] == "onnxruntime")
    content = bytearray((bundle / path).read_bytes())
    content[-1] ^= 1
    (bundle / path).write_bytes(content)
    assert f"{path}: not the file that was sealed" in page.evaluate(LOAD, {})[1]
    (bundle / path).unlink()
    assert f"{path}: the server answered 404" in page.evaluate(LOAD, {})[1]


def test_vectors_that_do_not_come_out(site: tuple[Path, str], page: Page) -> None:
    """Another resize, sealed as if it were the model's: its own tensors do not come out on this device."""
    path = site[0] / "bundle" / "bundle.json"
    manifest = json.loads(path.read_text())
    for op in manifest["spec"]["preprocess"]["ops"]:
        if "filter" in op:
            op["filter"] = "bicubic" if op["filter"] != "bicubic" else "bilinear"
    path.write_text(json.dumps(manifest))
    name, why = page.evaluate(LOAD, {})
    assert name == "NotProven"
    assert why.startswith("preprocessing differs from the sealed tensors: max error ")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "bundle.json: not readable as JSON"), ("[]", "bundle.json: "), ('{"format_version": 99}', "bundle.json: ")],
)
def test_manifests_that_are_none(site: tuple[Path, str], page: Page, text: str, reason: str) -> None:
    (site[0] / "bundle" / "bundle.json").write_text(text)
    assert reason in page.evaluate(LOAD, {})[1]


def test_what_a_gallery_is_not_asked(page: Page) -> None:
    """Several queries at once, no k, another length, an unknown storage: refused, nothing is written past anything."""
    told = page.evaluate("""async () => {
        const model = await web.load("bundle");
        const dim = model.info.dim, row = new Float32Array(dim).fill(1);
        const refused = [];
        const attempt = (work) => work.then(() => refused.push(""), (error) => refused.push(error.message));
        const gallery = model.gallery();
        const empty = await gallery.search(row, 5);
        await gallery.add(row);
        await attempt(gallery.search(new Float32Array(4 * dim), 10));
        await attempt(gallery.search(new Float32Array(0), 1));
        for (const k of [0, -1, 1.5, NaN]) await attempt(gallery.search(row, k));
        await attempt(gallery.add(new Float32Array(dim + 1)));
        await attempt(model.gallery("float8").add(row));
        return [empty.rows.length, refused, (await gallery.search(row, 10)).rows.length];
    }""")
    assert told[0] == 0 and told[2] == 1
    assert all("expected" in one for one in told[1]), told[1]


def test_what_the_bundle_does_not_have(page: Page) -> None:
    assert "has no int8 artifact for onnxruntime (it has fp32)" in page.evaluate(LOAD, {"quantisation": "int8"})[1]
    assert "runtime: expected one of onnxruntime, got 'tnn'" in page.evaluate(LOAD, {"runtime": "tnn"})[1]


HASHES = """async ([images, cases]) => {
    const module = await (await import("/web/edgerecall.js")).default({ locateFile: (name) => "/web/" + name });
    const put = (data) => { const at = module._malloc(data.length); module.HEAPU8.set(data, at); return at; };
    const bytes = images.map((text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0)));
    const hashes = [];
    for (const [image, preprocess, size] of cases) {
        const text = put(new TextEncoder().encode(preprocess + "\\0")), data = put(bytes[image]);
        const handle = module._er_preprocess_open(text), out = module._malloc(4 * size);
        const code = handle && module._er_preprocess_encoded(handle, data, bytes[image].length, 9e7, out);
        if (handle === 0 || code < 0) throw new Error(module.UTF8ToString(module._er_error()));
        module._er_sha256_add(out, 4 * size);
        module._er_sha256_finish();
        hashes.push(module.UTF8ToString(module._er_error()));
        module._er_preprocess_close(handle);
        for (const one of [text, data, out]) module._free(one);
    }
    return hashes;
}"""


def test_tensors_are_equal_to_the_bit(page: Page, data: Path) -> None:
    """Over 4,000 cases: photographs and noise, every filter, sizes and crops drawn."""
    rng = np.random.default_rng(7)
    images = [image.read_bytes() for image in sorted(data.glob("*_final/*.JPG"))[:40]]
    for _ in range(80):
        stream = io.BytesIO()
        noise = rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8)
        Image.fromarray(noise).save(stream, "PNG")
        images.append(stream.getvalue())
    cases = []
    for backend, names in FILTERS.items():
        for name in names:
            for _ in range(240):
                how = {"backend": backend, "filter": name}
                height, width = (int(side) for side in rng.integers(1, 120, 2))
                crop = {
                    "op": "center_crop",
                    "height": max(height // 2, 1),
                    "width": max(width // 3, 1),
                    "margin": "floor",
                }
                ops = [{"op": "resize", "height": height, "width": width, **how}, crop]
                if rng.integers(2):
                    side = int(rng.integers(1, 100))
                    ops = [
                        {"op": "resize_short", "size": side, "rounding": str(rng.choice(["round", "truncate"])), **how},
                        {
                            "op": "center_crop",
                            "height": side,
                            "width": side,
                            "margin": str(rng.choice(["round", "floor"])),
                        },
                    ]
                order = str(rng.choice(["rgb", "bgr"]))
                whole = [{"op": "decode", "exif": "apply"}, *ops, {"op": "normalize", "order": order}]
                cases.append((int(rng.integers(len(images))), Preprocess.model_validate({"ops": whole})))
    assert len(cases) > 4000
    given = [[image, spec.model_dump_json(), int(np.prod(spec.output_shape))] for image, spec in cases]
    hashes = page.evaluate(HASHES, [[base64.b64encode(one).decode() for one in images], given])
    for (image, spec), found in zip(cases, hashes, strict=True):
        assert found == hashlib.sha256(preprocess_bytes(images[image], spec, "image").tobytes()).hexdigest(), (
            image,
            spec,
        )
