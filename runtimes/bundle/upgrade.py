"""From bundle format 1 to the present one: the artifacts stay as they are."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from ..core.files import write_text
from .bundle import Bundle, write_vectors
from .manifest import FORMAT_VERSION, GOLDEN, MANIFEST, OLD_VECTORS, Artifact, describe_file


def present_files(bundle: Bundle, artifacts: Iterable[Artifact], scratch: Path) -> dict[str, Path]:
    """What a reader of the present format alone needs of a bundle: the manifest, the golden files and some artifacts,
    by their names in it. scratch: where what has to be written anew goes.
    """
    manifest = bundle.manifest
    if manifest.format_version != FORMAT_VERSION:
        changed = upgraded_files(bundle, scratch / "upgraded")
    else:
        changed = {MANIFEST: bundle.root / MANIFEST}
    names = {file.path for file in manifest.golden} | changed.keys()
    names |= {file.path for artifact in artifacts for file in artifact.files}
    return {name: changed.get(name, bundle.root / name) for name in sorted(names)}


def upgraded_files(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Writes what differs, manifest and golden vectors, into a folder: name in the bundle -> file."""
    _, tensors, embeddings = bundle.golden()
    (folder / GOLDEN).mkdir(parents=True, exist_ok=True)
    vectors = write_vectors(folder, tensors, embeddings)
    old = bundle.manifest
    kept = [file for file in old.golden if file.path != OLD_VECTORS]
    golden = (*kept, *(describe_file(folder, path, "golden") for path in vectors))
    manifest = old.model_copy(update={"format_version": FORMAT_VERSION, "golden": golden})
    Bundle(folder, manifest).save()
    return {path.relative_to(folder).as_posix(): path for path in (folder / MANIFEST, *vectors)}


def upgrade(bundle: Bundle) -> bool:
    """Brings a bundle to the present format, in place; False when it is already. All its hashes are checked first.

    The new manifest takes its place in one step, after the vectors that it names.
    """
    scratch = bundle.root / ".upgrade"
    old = bundle.manifest.format_version != FORMAT_VERSION
    if old:
        bundle.check()
        scratch.mkdir(exist_ok=True)
        files = upgraded_files(bundle, scratch)
        manifest = files.pop(MANIFEST)
        for name, path in files.items():
            path.replace(bundle.root / name)
        write_text(bundle.root / MANIFEST, manifest.read_text(encoding="utf-8"))
    # Also what an interrupted one has left.
    shutil.rmtree(scratch, ignore_errors=True)
    (bundle.root / OLD_VECTORS).unlink(missing_ok=True)
    return old
