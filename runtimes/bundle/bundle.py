"""The bundle: a folder with `bundle.json`, the artifacts, and golden images with the framework's own outputs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.contract import CONTRACT
from ..core.errors import BundleError, UnsoundModel
from ..core.files import sha256, write_text
from ..core.soundness import embedding_problem
from ..predictor.backend import Backend
from ..predictor.registry import FAKE, all_names, backend
from .manifest import (
    EMBEDDINGS,
    MANIFEST,
    TENSORS,
    VECTORS,
    Artifact,
    File,
    Manifest,
    host_target,
    machine_names,
)
from .spec import Spec

MANIFEST_BYTES: int = CONTRACT["manifest_bytes"]  # of bundle.json, at most
HEADER_BYTES = 4096  # of an array in a file, at most


class Bundle:
    """A bundle on disk. Opening it checks that every file is there with its size; what is used is hashed first.

    Thread-safe, and nothing to close.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self._hashed: set[str] = set()

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Reads the manifest and checks that every file is there.

        Raises BundleError for an incomplete bundle, one with a file of another size, or one of another format.
        """
        root = Path(root)
        path = root / MANIFEST
        try:
            if path.stat().st_size > MANIFEST_BYTES:
                raise ValueError(f"it is larger than {MANIFEST_BYTES} bytes")
            raw = path.read_bytes()
        except FileNotFoundError as error:
            raise BundleError(f"{root}: expected a bundle, found no {MANIFEST} in it") from error
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: cannot be read: {error}; export the bundle again") from error
        bundle = cls(root, Manifest.parse(raw, str(path)))
        for file in bundle.all_files():
            bundle._check_size(file)
        return bundle

    @property
    def spec(self) -> Spec:
        """What the model eats and gives."""
        return self.manifest.spec

    def save(self) -> None:
        """Writes the manifest."""
        write_text(self.root / MANIFEST, self.manifest.model_dump_json(indent=2) + "\n")

    def all_files(self) -> list[File]:
        """Of the artifacts and the golden images."""
        return [*(file for artifact in self.manifest.artifacts for file in artifact.files), *self.manifest.golden]

    def check(self, files: Iterable[File] | None = None) -> None:
        """BundleError unless each of the files, all of the bundle's by default, has the hash that the manifest gives.

        A file is hashed once for as long as this object lives.
        """
        for file in self.all_files() if files is None else files:
            if file.path in self._hashed:
                continue
            self._check_size(file)
            if sha256(self.root / file.path) != file.sha256:
                raise self._changed(file)
            self._hashed.add(file.path)

    def _check_size(self, file: File) -> None:
        path = self.root / file.path
        if not path.is_file():
            raise BundleError(f"{path}: missing from the bundle; export it again")
        if path.stat().st_size != file.bytes:
            raise self._changed(file)

    def _changed(self, file: File) -> BundleError:
        path = self.root / file.path
        return BundleError(f"{path}: changed since export (its sha256 differs); export the bundle again")

    def artifacts_for(self, runtime: str) -> list[Artifact]:
        """Those that a runtime can use on this machine, in the manifest's order."""
        here, described = machine_names(host_target()), backend(runtime)
        return [
            artifact
            for artifact in self.manifest.artifacts
            if artifact.runtime == described.artifacts and artifact.runs_on(*here)
        ]

    def quantisations(self, runtime: str) -> tuple[str, ...]:
        """Those that the runtime takes of its artifacts for this machine, each once."""
        there = dict.fromkeys(artifact.quantisation for artifact in self.artifacts_for(runtime))
        return tuple(name for name in there if name in backend(runtime).quantisations)

    def artifact(self, runtime: str, name: str | None = None, quantisation: str | None = None) -> Artifact:
        """The artifact that a runtime uses on this machine: of this name and quantisation where they are given, else
        the fp32 one, else the first. BundleError, with the reason, when there is none.
        """
        described, fitting = backend(runtime), self.artifacts_for(runtime)
        chosen = [one for one in fitting if name in (None, one.name) and quantisation in (None, one.quantisation)]
        chosen.sort(key=lambda one: (one.quantisation not in described.quantisations, one.quantisation != "fp32"))
        if not chosen:
            raise BundleError(self._none_for(described, quantisation, fitting))
        if chosen[0].quantisation not in described.quantisations:
            raise BundleError(
                f"{self.root}: runtime '{runtime}' takes {', '.join(described.quantisations)} artifacts,"
                f" {chosen[0].name} is {chosen[0].quantisation}"
            )
        return chosen[0]

    def _none_for(self, described: Backend, quantisation: str | None, fitting: list[Artifact]) -> str:
        wanted = f"{quantisation} artifact" if quantisation and fitting else "artifact"
        others = [
            f"{one.name} is for {', '.join(one.targets)}"
            for one in self.manifest.artifacts
            if one.runtime == described.artifacts and quantisation in (None, one.quantisation) and one not in fitting
        ]
        if others:
            why = "; ".join(others)
        elif fitting:
            why = f"it has {', '.join(f'{one.name} ({one.quantisation})' for one in fitting)}"
        else:
            reasons = [s.reason for s in self.manifest.skipped if s.runtime == described.artifacts]
            available = ", ".join(sorted({a.runtime for a in self.manifest.artifacts}))
            why = f"it could not be made: {reasons[0]}" if reasons else f"it has {available}"
        return f"{self.root}: no {wanted} for runtime '{described.name}' on {host_target()}; {why}"

    def runtimes(self) -> tuple[str, ...]:
        """What "all" means for this bundle: the runtimes that it has an artifact for, or was to have one for."""
        there = {made.runtime for made in self.manifest.artifacts} | {one.runtime for one in self.manifest.skipped}
        return tuple(name for name in (*all_names(), FAKE) if backend(name).artifacts in there)

    def files(self, artifact: Artifact) -> dict[str, str]:
        """`role -> path` of an artifact's files, hashed. BundleError when one was changed."""
        self.check(artifact.files)
        return {file.role: str(self.root / file.path) for file in artifact.files}

    def golden(self) -> tuple[list[Path], NDArray[np.float32], NDArray[np.float32]]:
        """The golden images, their tensors float32 `(n, 3, H, W)` and raw embeddings float32 `(n, D)`, hashed.

        BundleError unless they are there in that form; UnsoundModel where no trained network gives such embeddings.
        """
        self.check(self.manifest.golden)
        paths = [self.root / name for name in self.manifest.golden_images]
        shapes = ((len(paths), *self.spec.input_shape), (len(paths), self.spec.embedding_dim))
        tensors, embeddings = (
            read_vectors(self.root / file, name, shape)
            for (file, name), shape in zip(VECTORS[self.manifest.format_version], shapes, strict=True)
        )
        if problem := embedding_problem(embeddings, tensors):
            raise UnsoundModel(f"{self.root}: its golden embeddings: {problem}; train it further and export it again")
        return paths, tensors, embeddings


def read_vectors(path: Path, name: str | None, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array of this shape from a `.npy` file, or of this name from an `.npz` file. BundleError.

    What the header promises is held against the file before anything is read.
    """
    size = int(np.prod(shape, dtype=np.int64)) * 4
    try:
        if name is None:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as arrays:
                promised = arrays.zip.getinfo(f"{name}.npy").file_size
                if promised > size + HEADER_BYTES:
                    raise ValueError(f"{name} takes {promised} bytes")
                found = arrays[name]
        if not isinstance(found, np.ndarray):
            raise ValueError("got several arrays")
    except Exception as error:  # a damaged header fails in as many ways as Python has literals
        raise BundleError(f"{path}: expected float32 of shape {shape}: {error}; export the bundle again") from error
    if found.shape != shape or found.dtype != np.dtype("<f4"):
        got = f"{found.dtype.str} of shape {found.shape}"
        raise BundleError(
            f"{path}: expected little-endian float32 of shape {shape}, got {got}; export the bundle again"
        )
    return np.array(found, order="C")


def write_vectors(root: Path, tensors: NDArray[np.float32], embeddings: NDArray[np.float32]) -> tuple[Path, Path]:
    """The golden vectors of a bundle under construction; the files."""
    for name, array in ((TENSORS, tensors), (EMBEDDINGS, embeddings)):
        np.save(root / name, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    return root / TENSORS, root / EMBEDDINGS
