"""Many images to Parquet files, a shard at a time: what is there is not done again, whoever does it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST, Sha256
from ..core.config import Frozen
from ..core.errors import ImageError, InputError, RuntimeUnavailable
from ..core.files import atomic_file, read_text, sha256
from ..core.json_text import parse_json
from ..core.versions import needs
from ..gallery.entries import Entry
from ..predictor.registry import tool_versions
from .gallery_build import usable
from .model import EmbeddingModel, load

PLAN = "_embeddings.json"  # readers of Parquet pass over it
FORMAT = 1
LINEAGE = "edgerecall"  # in a file's metadata


class Plan(Frozen):
    """What a folder of shards is made of. bundle: SHA-256 of its manifest. entries: of each image's path, size, id and
    label, in order.

    shard: images of a file. Two plans are one where these agree, whatever made them.
    """

    format: int = Field(FORMAT, ge=FORMAT, le=FORMAT)
    bundle: Sha256
    entries: Sha256
    images: int = Field(ge=1)
    shard: int = Field(ge=1)
    runtime: str
    quantisation: str
    dim: int = Field(ge=1)
    tools: dict[str, str] = Field(default_factory=dict)
    command: str = ""

    def same(self, other: Plan) -> bool:
        """Whether the other one's shards can be gone on with."""
        passing = {"tools", "command"}
        return self.model_dump(exclude=passing) == other.model_dump(exclude=passing)


@dataclass(frozen=True)
class Shard:
    """Images of one file. paths: of the image files."""

    number: int
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[str | None, ...]

    @property
    def file(self) -> str:
        """Its name."""
        return f"part-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Work:
    """What makes any shard of a plan, in any process: the bundle, and where files go. strict: a bad image is raised."""

    bundle: str
    out: str
    plan: Plan
    threads: int
    strict: bool = False

    def open(self) -> EmbeddingModel:
        """The model. InputError where the bundle is not the plan's."""
        if sha256(Path(self.bundle) / MANIFEST) != self.plan.bundle:
            raise InputError(f"{self.bundle}: is not the bundle that these embeddings were begun with")
        # Batches of one: the same digits, however the images are divided.
        return load(
            self.bundle,
            self.plan.runtime,
            replicas=self.threads,
            batch_size=1,
            quantisation=self.plan.quantisation,
        )

    def make(self, model: EmbeddingModel, shard: Shard) -> list[str]:
        """Writes a shard's file, whole or not at all. A line for each image that could not be read."""
        arrow, parquet = pyarrow()
        bad: list[str] = []
        places: dict[str, list[int]] = {}  # two ids may name one file
        for index in reversed(range(len(shard.paths))):
            places.setdefault(shard.paths[index], []).append(index)
        kept: list[int] = []
        parts = [np.empty((0, self.plan.dim), np.float32)]

        def on_bad(path: Path, error: ImageError) -> None:
            if self.strict:
                raise error
            places[str(path)].pop()
            bad.append(str(error))

        for paths, embeddings in model.stream([Path(path) for path in shard.paths], on_bad):
            kept += [places[str(path)].pop() for path in paths]
            parts.append(embeddings)
        rows = np.concatenate(parts)
        column = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), self.plan.dim)
        table = arrow.table(
            {
                "id": arrow.array([shard.ids[at] for at in kept], arrow.string()),
                "label": arrow.array([shard.labels[at] for at in kept], arrow.string()),
                "embedding": column,
            }
        )
        told = {**self.plan.model_dump(mode="json"), "tools": tool_versions(), "part": shard.number, "skipped": bad}
        table = table.replace_schema_metadata({LINEAGE: json.dumps(told)})
        target = Path(self.out) / shard.file
        with atomic_file(target) as temporary:
            parquet.write_table(table, temporary)
        return bad


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet. RuntimeUnavailable with the remedy."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise RuntimeUnavailable(f"this {needs('pyarrow')}") from error
    return arrow, parquet


def planned(
    bundle: Path,
    entries: Sequence[Entry],
    shard: int,
    runtime: str,
    quantisation: str | None,
    command: str,
    on_bad: Callable[[Path, ImageError], None] | None = None,
) -> tuple[Plan, list[Shard]]:
    """How images are divided. An id or label that no file can hold goes to `on_bad`, or is raised."""
    opened = Bundle.open(bundle)
    entries = usable(entries, on_bad)
    if not entries:
        raise InputError("no image is left to embed")
    digest = hashlib.sha256()
    for one in entries:
        path = one.path.absolute()
        told = [os.fsencode(path).hex(), path.stat().st_size if path.is_file() else None, one.id, one.label]
        digest.update(json.dumps(told).encode() + b"\n")
    plan = Plan(
        format=FORMAT,
        bundle=sha256(bundle / MANIFEST),
        entries=digest.hexdigest(),
        images=len(entries),
        shard=shard,
        runtime=runtime,
        quantisation=opened.artifact(runtime, quantisation=quantisation).quantisation,
        dim=opened.spec.embedding_dim,
        tools=tool_versions(),
        command=command,
    )
    parts = [entries[start : start + shard] for start in range(0, len(entries), shard)]
    shards = [
        Shard(
            number,
            tuple(str(one.path.absolute()) for one in part),
            tuple(one.id for one in part),
            tuple(one.label for one in part),
        )
        for number, part in enumerate(parts)
    ]
    return plan, shards


def begun(out: Path, plan: Plan, shards: Sequence[Shard]) -> set[str]:
    """The files that are there already, of a folder that this plan is now of. One in which images could not be read is
    to be made again, as is one that is not whole.

    InputError where the folder holds anything else.
    """
    file = out / PLAN
    if out.is_dir():
        for pattern in (f".{PLAN}.*", ".part-*"):  # of a process that was killed
            for path in out.glob(pattern):
                path.unlink(missing_ok=True)
    if file.is_file():
        try:
            before = Plan.model_validate(parse_json(read_text(file, str(file)).encode()))
        except ValueError as error:
            raise InputError(f"{file}: is no plan of embeddings: {error}".splitlines()[0]) from error
        if not plan.same(before):
            told = plan.model_dump(exclude={"tools", "command"})
            changed = ", ".join(name for name, value in told.items() if value != getattr(before, name))
            raise InputError(f"{out}: was begun with another {changed}: give another folder, or remove it")
        return {shard.file for shard in shards if _is_done(out / shard.file, plan, shard)}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already: remove it or give another name")
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(plan.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    return set()


def _is_done(path: Path, plan: Plan, shard: Shard) -> bool:
    """Whether a file holds all images of a shard."""
    arrow, parquet = pyarrow()
    try:
        found = parquet.read_metadata(path)
        told = json.loads(found.metadata[LINEAGE.encode()])
    except (OSError, KeyError, TypeError, ValueError, arrow.ArrowException):
        return False
    same = told.get("entries") == plan.entries and told.get("part") == shard.number
    return same and not told.get("skipped") and found.num_rows == len(shard.ids)


def here(work: Work, shards: Sequence[Shard], done: Callable[[Shard, list[str]], object]) -> None:
    """Makes shards one after another, in this process."""
    with work.open() as model:
        for shard in shards:
            done(shard, work.make(model, shard))
