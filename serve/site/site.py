"""`edgerecall web`: a static folder whose page embeds and searches in the browser, and works offline."""

from __future__ import annotations

import hashlib
import html
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact
from ...runtimes.bundle.upgrade import present_files
from ...runtimes.bundle.web_pages import unpack_pages
from ...runtimes.core.errors import ImageError, InputError
from ...runtimes.core.files import atomic_folder, sha256
from ...runtimes.gallery.disk_gallery import DiskGallery
from .thumbnails import thumbnail

RUNTIME = "onnxruntime"  # of the artifacts that browsers run
FILES = "edgerecall-site.json"  # what is kept for offline use; marks the folder as one of ours
BENCH = ("index.html", "bench.js", "bench.css", "row_worker.js", "types", "index.js", "ort/webgpu")  # not needed here
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64">
<rect width="64" height="64" rx="14" fill="#3949ab"/>
<circle cx="28" cy="28" r="13" fill="none" stroke="#fff" stroke-width="5"/>
<path d="M38 38 50 50" stroke="#fff" stroke-width="6" stroke-linecap="round"/></svg>
"""
HEAD = """<link rel="icon" href="icon.svg">
  <link rel="manifest" href="site.webmanifest">
  <meta name="theme-color" content="#3949ab">"""


@dataclass(frozen=True)
class Site:
    """What was made. bytes: of all files but the pictures. missing: ids that have none."""

    rows: int
    bytes: int
    picture_bytes: int
    missing: tuple[str, ...]


def make_site(
    bundle: Bundle,
    gallery: DiskGallery,
    out: Path,
    pages: Path,
    title: str,
    quantisation: str | None = None,
    pictures: Path | None = None,
    progress: Callable[[float], object] = lambda share: None,
) -> Site:
    """Writes the folder; one that this made before is replaced.

    pages: the archive of 'edgerecall cross web'. pictures: the folder in which the gallery's ids name images; None:
    none are shown. InputError where the gallery is of another model, is empty, or the bundle has no ONNX artifact.
    """
    gallery.require_model(bundle)
    if not len(gallery):
        raise InputError(f"{gallery.root}: the gallery is empty: add to it first")
    artifact = bundle.artifact(RUNTIME, quantisation=quantisation)
    bundle.check([*artifact.files, *bundle.manifest.golden])
    refuse_others(out)
    with atomic_folder(out, FILES) as folder:
        unpack_pages(pages, folder / "page")
        for name in BENCH:
            place = folder / "page" / name
            if not place.exists():
                raise InputError(f"{pages}: it has no {name}: run 'edgerecall cross web' again")
            (shutil.rmtree if place.is_dir() else Path.unlink)(place)
        (folder / "page" / "sw.js").rename(folder / "sw.js")
        web = resources.files("edgerecall.serve") / "web"
        for name in ("page.js", "page.css"):
            (folder / "page" / name).write_bytes((web / name).read_bytes())
        write_page(folder, (web / "index.html").read_text(encoding="utf-8"), title)
        write_bundle(bundle, artifact, folder)
        ids = write_gallery(gallery, folder / "gallery", pictures is not None, artifact.quantisation)
        missing = [] if pictures is None else write_pictures(ids, pictures, folder / "pictures", progress)
        sizes = write_list(folder)
    shown = sum(size for name, size in sizes.items() if name.startswith("pictures/"))
    return Site(len(ids), sum(sizes.values()) - shown, shown, tuple(missing))


def refuse_others(out: Path) -> None:
    """InputError where the folder, made here before, holds what was not made here: it would be lost."""
    try:
        listed = json.loads((out / FILES).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # then it is not replaced
    made = {*listed, FILES, "sw.js"}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in made:
            raise InputError(f"{out} holds {name}, which would be lost: move it away, or name another folder")


def write_page(folder: Path, page: str, title: str) -> None:
    """The page of the server, with what lets it be installed."""
    text = Template(page).substitute(model=html.escape(title))
    (folder / "index.html").write_text(text.replace('<link rel="icon" href="data:,">', HEAD), encoding="utf-8")
    (folder / "icon.svg").write_text(ICON, encoding="utf-8")
    about = {
        "name": title,
        "short_name": title[:12],
        "start_url": "./",
        "display": "standalone",
        "background_color": "#ffffff",
        "theme_color": "#3949ab",
        "icons": [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }
    (folder / "site.webmanifest").write_text(json.dumps(about, indent=1), encoding="utf-8")


def write_bundle(bundle: Bundle, artifact: Artifact, folder: Path) -> None:
    """The manifest, the golden files and one artifact, in the present format."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-site-") as scratch:
        for name, path in present_files(bundle, [artifact], Path(scratch)).items():
            target = folder / "bundle" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def write_gallery(gallery: DiskGallery, folder: Path, pictures: bool, quantisation: str) -> list[str]:
    """Embeddings, float32 `(n, dim)`, names, and how the page is to keep them; the ids."""
    folder.mkdir()
    matches, rows = zip(*gallery.stored_rows(), strict=True)
    np.save(folder / "rows.npy", np.stack(rows).astype("<f4"))
    ids = [match.id for match in matches]
    names: dict[str, Any] = {"ids": ids, "labels": [match.label or "" for match in matches], "pictures": pictures}
    names["quantisation"] = quantisation  # of the model that lies beside it
    names["storage"] = "binary" if gallery.manifest.storage == "binary" else "float32"
    (folder / "rows.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    return ids


def write_pictures(ids: list[str], root: Path, folder: Path, progress: Callable[[float], object]) -> list[str]:
    """`N.jpg` of row N, small and without metadata; the ids without a picture. An id cannot lead out of the folder."""
    folder.mkdir()
    root, missing = root.resolve(), []
    for row, identity in enumerate(ids):
        progress(row / len(ids))
        try:
            path = (root / identity).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                raise InputError("not there")
            (folder / f"{row}.jpg").write_bytes(thumbnail(path, 0))
        except (OSError, ValueError, ImageError, InputError):
            missing.append(identity)
    return missing


def write_list(folder: Path) -> dict[str, int]:
    """The files that are kept for offline use, and a version that changes with them; their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "sw.js")
    names = [path.relative_to(folder).as_posix() for path in files]
    digest = hashlib.sha256()
    for name, path in zip(names, files, strict=True):
        digest.update(f"{name} {sha256(path)}\n".encode())
    version = digest.hexdigest()[:20]
    (folder / FILES).write_text(json.dumps({"version": version, "files": ["", *names]}, indent=1), encoding="utf-8")
    with (folder / "sw.js").open("a", encoding="utf-8") as worker:  # browsers install it again where it differs
        worker.write(f"// {version}\n")
    return {name: path.stat().st_size for name, path in zip(names, files, strict=True)}
