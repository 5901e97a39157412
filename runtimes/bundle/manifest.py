"""The manifest of a bundle, `bundle.json`, format 2; format 1 is read too.

`bundle.schema.json` beside this file is its JSON Schema, by which the C++ core validates.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..core.config import Frozen, explain
from ..core.contract import CONTRACT
from ..core.cpus import has_vnni
from ..core.errors import BundleError
from ..core.files import sha256
from ..core.json_text import parse_json
from ..core.text import one_line
from .spec import Spec

FORMAT_VERSION: int = CONTRACT["bundle_format"]
MANIFEST = "bundle.json"
GOLDEN = "golden"
TENSORS, EMBEDDINGS = f"{GOLDEN}/tensors.npy", f"{GOLDEN}/embeddings.npy"
OLD_VECTORS = f"{GOLDEN}/golden.npz"  # of format 1
# File, and array in it, of the golden tensors and embeddings, by format.
VECTORS: dict[int, tuple[tuple[str, str | None], ...]] = {
    1: ((OLD_VECTORS, "tensors"), (OLD_VECTORS, "embeddings")),
    2: ((TENSORS, None), (EMBEDDINGS, None)),
}
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RelativePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$", max_length=1000)
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=100)]
Quantisation = Literal["fp32", "fp16", "int8"]


class File(Frozen):
    """One file of a bundle. role: what the predictor asks for (`model`, `params`)."""

    role: Name
    path: RelativePath
    bytes: Annotated[int, Field(ge=0, le=1 << 40)]
    sha256: Sha256


class Check(Frozen):
    """How far an artifact's output lay from the reference on the golden images, when it was exported."""

    min_cosine: float
    max_abs_error: float
    tolerance: float


class Recipe(Frozen):
    """How an artifact was quantised.

    scheme: such as "QDQ, per channel, percentile 99.99". calibration: SHA-256 of each calibration image's bytes, in
    order; empty where none were needed. tool, version: what did it. kept: layers that were left in float.
    """

    scheme: str
    tool: str
    version: str
    calibration: tuple[Sha256, ...] = ()
    kept: tuple[str, ...] = ()


class Artifact(Frozen):
    """One converted model: what a runtime loads, for some machines, in one quantisation.

    targets: machine architectures it runs on, `any` for a portable one. quantisation: what its weights are, and for
    int8 its activations; recipe: how they became so, None for fp32. How a runtime computes with them is its execution
    precision, which is asked for when it is opened. check: None where the artifact cannot run on the exporting machine
    (the reason in `unchecked`).
    """

    name: Name
    runtime: Name
    targets: tuple[Name, ...]
    quantisation: Quantisation = "fp32"
    recipe: Recipe | None = None
    files: tuple[File, ...]
    check: Check | None = None
    unchecked: str | None = None

    def runs_on(self, *machine: str) -> bool:
        """Whether a machine of this architecture, or one of these names (`machine_names`), can load it."""
        return not {*machine, "any"}.isdisjoint(self.targets)

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files)


class Skipped(Frozen):
    """A format that could not be made, and why."""

    name: Name
    runtime: Name
    reason: str


class Manifest(Frozen):
    """`bundle.json`.

    source: where the model came from: its `kind`, the `form` that it was read in ("paddle" or "onnx"), file and hash.
    tools: versions, by distribution. golden: the golden images and their vectors, with hashes.
    """

    format_version: Literal[1, 2]
    spec: Spec
    source: dict[str, Any]
    tools: dict[str, str]
    command: str
    artifacts: tuple[Artifact, ...]
    skipped: tuple[Skipped, ...] = ()
    golden: tuple[File, ...]
    golden_images: Annotated[tuple[RelativePath, ...], Field(min_length=1)]

    @classmethod
    def parse(cls, raw: bytes, name: str) -> Manifest:
        """The manifest that the bytes of a `bundle.json` hold. BundleError, which begins with `name`.

        Strict: `true` is no number and 64.0 no whole one, as for the C++ core.
        """
        try:
            data = parse_json(raw)
        except ValueError as error:
            raise BundleError(f"{name}: not readable as JSON: {one_line(error)}; export the bundle again") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is not int or version not in CONTRACT["bundle_formats_read"]:
            known = " and ".join(map(str, CONTRACT["bundle_formats_read"]))
            raise BundleError(
                f"{name}: this EdgeRecall reads bundle formats {known}, got {version!r:.40}:"
                " update EdgeRecall or export the bundle again"
            )
        if version == 1:
            data = of_format_1(data)
        try:
            return cls.model_validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            raise BundleError(explain(error, cls, name)) from error

    @model_validator(mode="after")
    def golden_is_hashed(self) -> Manifest:
        vectors = {file for file, _ in VECTORS[self.format_version]}
        missing = {*self.golden_images, *vectors} - {file.path for file in self.golden}
        if missing:
            raise ValueError(f"golden: no hash of {min(missing)}")
        return self


def of_format_1(data: dict[str, Any]) -> dict[str, Any]:
    """Format 1 called the quantisation `precision`, and had fp32 alone."""
    artifacts = data.get("artifacts")
    if not isinstance(artifacts, list):
        return data
    renamed = [
        {"quantisation" if key == "precision" else key: value for key, value in one.items()}
        if isinstance(one, dict) and "quantisation" not in one
        else one
        for one in artifacts
    ]
    return {**data, "artifacts": renamed}


VNNI = "+vnni"  # in an artifact's targets, behind an architecture: only its CPUs that have these instructions


def machine_names(machine: str) -> tuple[str, ...]:
    """What artifacts may call this machine, of this architecture: with what its CPU has too."""
    return (machine, machine + VNNI) if machine == "x86_64" and has_vnni() else (machine,)


def host_target() -> str:
    """This machine's architecture as artifacts name it."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def describe_file(root: Path, path: Path, role: str) -> File:
    """Size and hash of a file already in the bundle's folder."""
    return File(role=role, path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256(path))


def json_schema() -> str:
    """The text of `bundle.schema.json`, without pydantic's titles, which are the keys again."""

    def untitled(schema: Any) -> Any:
        if isinstance(schema, dict):
            return {key: untitled(rule) for key, rule in schema.items() if key != "title"}
        return [untitled(rule) for rule in schema] if isinstance(schema, list) else schema

    return json.dumps(untitled(Manifest.model_json_schema()), indent=1) + "\n"


if __name__ == "__main__":  # after a change of the models
    Path(__file__).resolve().with_name("bundle.schema.json").write_text(json_schema(), encoding="utf-8")
