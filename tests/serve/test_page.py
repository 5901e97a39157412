"""The web page in a real browser, and what is behind it."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright
from served import Client, serving

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.identity import identity_of

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
EVIL = "<img src=x onerror=alert(1)>"

expect.set_options(timeout=60_000)  # a page's first time compiles megabytes, on a busy machine


@pytest.fixture
def shop(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> list[tuple[str, str]]:
    """A bundle and a gallery in the folder; its images' names and labels."""
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    assert edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path).returncode == 0
    rows = [line.rsplit(" ", 1) for line in (data / "test_list.txt").read_text().splitlines()]
    return [(name, label) for name, label in rows]


@pytest.fixture
def browse() -> Iterator[Callable[..., Page]]:
    """Opens pages in Chromium; whatever a page complains of fails the test."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no chromium: apt-get install chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])

        def open_page(url: str, size: dict[str, int], **options: Any) -> Page:
            page = browser.new_context(viewport=size, **options).new_page()
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on(
                "console",
                lambda told: (
                    complaints.append(told.text)
                    if told.type == "error" and "Failed to load resource" not in told.text
                    else None
                ),
            )
            page.on("dialog", lambda dialog: complaints.append(dialog.message))
            page.goto(url)
            return page

        yield open_page
        browser.close()
    assert complaints == []


def shown(page: Page, count: int) -> list[str]:
    """The labels found, when their pictures are there."""
    expect(page.locator("#found li img")).to_have_count(count)
    for _ in range(100):  # wait_for_function would evaluate text in the page, which its policy forbids
        if page.evaluate("[...document.querySelectorAll('#found img')].every((one) => one.naturalWidth > 0)"):
            break
        page.wait_for_timeout(50)
    else:
        pytest.fail("pictures are missing")
    return page.locator("#found .id").all_inner_texts()


@pytest.mark.device
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_a_picture_and_what_is_nearest(
    tmp_path: Path, data: Path, shop: list[tuple[str, str]], browse: Callable[..., Page], size: dict[str, int]
) -> None:
    name, label = shop[5]
    with serving(tmp_path, "--gallery", "g", "--pictures", data) as server:
        page = browse(server.url, size)
        expect(page.locator("h1")).to_have_text("bundle")
        expect(page.locator("#about")).to_have_text("fake fp32, embeddings of 16 numbers")
        page.set_input_files("#file", data / name)
        assert shown(page, 12)[0] == name
        expect(page.locator("#found .label").first).to_have_text(label)
        expect(page.locator("#status")).to_contain_text("12 nearest, in")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.locator("#camera").is_visible() == (size is PHONE)
        second = page.locator("#found .id").nth(1).inner_text()
        page.locator("#found button").nth(1).click()  # asks about that one
        expect(page.locator("#found .id").first).to_have_text(second)
        page.select_option("#count", "5")
        assert len(shown(page, 5)) == 5
        (tmp_path / "no.jpg").write_bytes(b"no image")
        page.set_input_files("#file", tmp_path / "no.jpg")
        expect(page.locator("#status")).to_contain_text("image 0: expected a JPEG, PNG, BMP, WebP or TIFF image")
        expect(page.locator("#found li")).to_have_count(0)
        page.evaluate(
            """async (url) => {
                const bytes = await (await fetch(url)).arrayBuffer();
                const transfer = new DataTransfer();
                transfer.items.add(new File([bytes], "a.jpg", { type: "image/jpeg" }));
                document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
            }""",
            f"pictures/{name}",
        )
        assert len(shown(page, 5)) == 5
    page.set_input_files("#file", data / name)
    expect(page.locator("#status")).to_have_text("the server does not answer")


@pytest.mark.device
def test_a_token_a_foreign_page_and_no_gallery(
    tmp_path: Path, data: Path, fake_bundle: Make, shop: list[tuple[str, str]], browse: Callable[..., Page]
) -> None:
    (tmp_path / "token").write_text("secret-token\n")
    with serving(tmp_path, "--token-file", "token", "--gallery", "g", "--pictures", data) as server:
        page = browse(server.url, DESKTOP)
        expect(page.locator("#status")).to_have_text("this server asks for its token")
        page.set_input_files("#file", data / shop[0][0])
        page.fill("#token", "wrong-token")
        page.press("#token", "Enter")
        expect(page.locator("#access")).to_be_visible()
        page.fill("#token", "secret-token")
        page.press("#token", "Enter")
        assert shown(page, 12)[0] == shop[0][0]
        expect(page.locator("#access")).to_be_hidden()
    fake_bundle("other")
    with serving(tmp_path) as server:
        page = browse(server.url, DESKTOP)
        expect(page.locator("#about")).to_contain_text("no gallery")
        page.set_input_files("#file", data / shop[0][0])
        expect(page.locator("#status")).to_contain_text("an embedding, in")


@pytest.mark.device
def test_texts_of_a_gallery_are_texts(
    tmp_path: Path, data: Path, fake_bundle: Make, browse: Callable[..., Page]
) -> None:
    bundle = fake_bundle()
    with DiskGallery.create(tmp_path / "g", 16, model=identity_of(bundle)) as gallery:
        gallery.add([EVIL], np.ones((1, 16), np.float32), labels=[EVIL])
    with serving(tmp_path, "--gallery", "g", "--name", EVIL.replace("/", "")) as server:
        page = browse(server.url, DESKTOP)
        page.set_input_files("#file", sorted(data.glob("*_final/*.JPG"))[0])
        expect(page.locator("#found .label")).to_have_text(EVIL)
        expect(page.locator("#found .picture")).to_have_text("no picture")
        assert page.locator("#found img").count() == 0


def get(server: Client, path: str, **headers: str) -> int:
    return server.get(path, **headers)[0]


def test_pictures_are_small_and_of_the_gallery_alone(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: Callable[..., None]
) -> None:
    bundle = fake_bundle()
    images = tmp_path / "images"
    images.mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret"  # lies on its side
    Image.new("RGB", (800, 400), "red").save(images / "a b.jpg", exif=exif)
    (images / "broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.png")
    (images / "link.png").symlink_to(tmp_path / "outside.png")
    Image.new("RGB", (8, 8)).save(images / "other.png")
    names = ["a b.jpg", "broken.jpg", "link.png", "../outside.png", str(tmp_path / "outside.png"), "gone.jpg", "x\0y"]
    with DiskGallery.create(tmp_path / "g", 16, model=identity_of(bundle)) as gallery:
        gallery.add(names, np.ones((len(names), 16), np.float32))
    missing = edgerecall("serve", "bundle", "--gallery", "g", "--pictures", "nowhere", cwd=tmp_path)
    one_line(missing, 2, "--pictures nowhere: expected a folder of images")
    with serving(tmp_path, "--gallery", "g", "--pictures", "images") as server:
        code, body, headers = server.get("/pictures/a%20b.jpg")
        assert code == 200 and headers["content-type"] == "image/jpeg" and b"secret" not in body
        with Image.open(io.BytesIO(body)) as shown_:
            assert shown_.size == (160, 320)
        for name in ("other.png", "broken.jpg", "link.png", "../outside.png", "%2e%2e/outside.png", "gone.jpg", "x%00y",
                     f"/{tmp_path}/outside.png", ""):  # fmt: skip
            assert get(server, f"/pictures/{name}") == 404, name
        assert get(server, "/page/page.js") == 200 and get(server, "/page/nothing.js") == 404
        told = server.get("/")[2]
        assert "default-src 'none'" in told["content-security-policy"] and told["x-content-type-options"] == "nosniff"
        assert get(server, "/v2/models/bundle", sec_fetch_site="cross-site") == 403
        assert get(server, "/pictures/a%20b.jpg", sec_fetch_site="cross-site") == 403
        assert get(server, "/v2/models/bundle", sec_fetch_site="same-origin") == 200
    (tmp_path / "token").write_text("secret-token\n")
    with serving(tmp_path, "--gallery", "g", "--pictures", "images", "--token-file", "token") as server:
        assert get(server, "/pictures/a%20b.jpg") == 401 and get(server, "/") == 200
