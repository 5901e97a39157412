"""The bundle: a folder with `bundle.json`, the artifacts, and golden images with the framework's own outputs."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from .config import explain
from .errors import BundleError
from .files import sha256, write_text
from .predictor import artifact_runtime
from .spec import Frozen, Spec

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
GOLDEN = "golden"
GOLDEN_VECTORS = f"{GOLDEN}/golden.npz"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]


class File(Frozen):
    """One file of a bundle. role: what the predictor asks for (`model`, `params`)."""

    role: str
    path: RelativePath
    bytes: int
    sha256: Sha256


class Check(Frozen):
    """How far an artifact's output lay from the reference on the golden images, when it was exported."""

    min_cosine: float
    max_abs_error: float
    tolerance: float


class Artifact(Frozen):
    """One converted model. targets: machine architectures it runs on, `any` for a portable one.

    check: None where the artifact cannot run on the exporting machine (the reason in `unchecked`).
    """

    name: str
    runtime: str
    targets: tuple[str, ...]
    precision: str
    files: tuple[File, ...]
    check: Check | None = None
    unchecked: str | None = None

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files)


class Skipped(Frozen):
    """A format that could not be made, and why."""

    name: str
    runtime: str
    reason: str


class Manifest(Frozen):
    """`bundle.json`."""

    format_version: Literal[1]
    spec: Spec
    source: dict[str, Any]
    tools: dict[str, str]
    command: str
    artifacts: tuple[Artifact, ...]
    skipped: tuple[Skipped, ...] = ()
    golden: tuple[File, ...]
    golden_images: Annotated[tuple[RelativePath, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def golden_is_hashed(self) -> Manifest:
        missing = {*self.golden_images, GOLDEN_VECTORS} - {file.path for file in self.golden}
        if missing:
            raise ValueError(f"golden: no hash of {min(missing)}")
        return self


def host_target() -> str:
    """This machine's architecture as artifacts name it."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def describe_file(root: Path, path: Path, role: str) -> File:
    """Size and hash of a file already in the bundle's folder."""
    return File(role=role, path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256(path))


class Bundle:
    """A bundle on disk, checked against its manifest when opened."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Reads the manifest and checks every file's size and hash.

        Raises BundleError for a missing, changed or extra-versioned bundle.
        """
        root = Path(root)
        path = root / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BundleError(f"{root}: expected a bundle, found no {MANIFEST} in it") from error
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise BundleError(f"{path}: not readable as JSON: {error}; export the bundle again") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{path}: this EdgeRecall reads bundle format {FORMAT_VERSION}, got {version!r}:"
                " update EdgeRecall or export the bundle again"
            )
        try:
            bundle = cls(root, Manifest.model_validate(data))
        except ValidationError as error:
            raise BundleError(explain(error, Manifest, str(path))) from error
        bundle.check_files()
        return bundle

    @property
    def spec(self) -> Spec:
        """What the model eats and gives."""
        return self.manifest.spec

    def save(self) -> None:
        """Writes the manifest."""
        write_text(self.root / MANIFEST, self.manifest.model_dump_json(indent=2) + "\n")

    def check_files(self) -> None:
        """BundleError unless every file is there with the size and hash that the manifest gives."""
        files = [file for artifact in self.manifest.artifacts for file in artifact.files]
        for file in (*files, *self.manifest.golden):
            path = self.root / file.path
            if not path.is_file():
                raise BundleError(f"{path}: missing from the bundle; export it again")
            if path.stat().st_size != file.bytes or sha256(path) != file.sha256:
                raise BundleError(f"{path}: changed since export (its sha256 differs); export the bundle again")

    def artifact(self, runtime: str, name: str | None = None) -> Artifact:
        """The artifact that a runtime uses on this machine. BundleError, with the reason, when there is none."""
        here, runtime = host_target(), artifact_runtime(runtime)
        for artifact in self.manifest.artifacts:
            fits = here in artifact.targets or "any" in artifact.targets
            if artifact.runtime == runtime and fits and name in (None, artifact.name):
                return artifact
        reasons = [s.reason for s in self.manifest.skipped if s.runtime == runtime]
        available = ", ".join(sorted({a.runtime for a in self.manifest.artifacts}))
        why = f"it could not be made: {reasons[0]}" if reasons else f"it has {available}"
        raise BundleError(f"{self.root}: no artifact for runtime '{runtime}' on {here}; {why}")

    def files(self, artifact: Artifact) -> dict[str, str]:
        """`role -> path` of an artifact's files."""
        return {file.role: str(self.root / file.path) for file in artifact.files}

    def golden(self) -> tuple[list[Path], NDArray[np.float32], NDArray[np.float32]]:
        """The golden images, their tensors float32 `(n, 3, H, W)` and raw embeddings float32 `(n, D)`."""
        paths = [self.root / name for name in self.manifest.golden_images]
        source = self.root / GOLDEN_VECTORS
        try:
            with np.load(source, allow_pickle=False) as vectors:
                tensors, embeddings = vectors["tensors"], vectors["embeddings"]
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{source}: expected tensors and embeddings: {error}") from error
        found = (tensors.shape, embeddings.shape)
        expected = ((len(paths), *self.spec.input_shape), (len(paths), self.spec.embedding_dim))
        if found != expected:
            raise BundleError(f"{source}: expected shapes {expected}, got {found}")
        return paths, tensors, embeddings
