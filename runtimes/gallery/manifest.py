"""`gallery.json`: what a gallery on disk consists of. Replacing it is what makes a change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ..bundle.manifest import Name, Sha256
from ..core.config import Frozen, explain
from ..core.errors import InputError
from ..core.json_text import parse_json
from ..core.text import one_line
from .durable import durable_file
from .identity import ModelIdentity

FILE = "gallery.json"
FORMAT_VERSION = 1
FILE_BYTES = 1 << 24  # of gallery.json, at most
MOST_ROWS = (1 << 31) - 1

Storage = Literal["float32", "float16", "int8", "binary"]
Count = Annotated[int, Field(ge=0, le=MOST_ROWS)]


class PartFile(Frozen):
    """A file of the gallery, never changed once it is there."""

    path: Name
    bytes: Annotated[int, Field(ge=0, le=1 << 44)]
    sha256: Sha256


class SegmentEntry(Frozen):
    """Some rows in a file. removed: a bit a row, for those that are no longer there, where any is not."""

    file: PartFile
    rows: Count
    removed: PartFile | None = None
    removed_rows: Count = 0

    @model_validator(mode="after")
    def no_more_removed_than_there(self) -> SegmentEntry:
        if self.removed_rows > self.rows:
            raise ValueError(f"removed_rows: at most {self.rows}, the rows, got {self.removed_rows}")
        return self


class IndexEntry(Frozen):
    """An index for approximate search of some segments, by their files' names in its order, and the rows of each.

    kind: as `--index` names it. effort: how many lists or candidates a search looks at. recall: its recall@10 against
    exact search when it was made. version: of faiss.
    """

    file: PartFile
    kind: Annotated[str, Field(max_length=80)]
    segments: tuple[Name, ...]
    rows: tuple[Count, ...]
    effort: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    recall: Annotated[float, Field(ge=0, le=1)]
    version: Annotated[str, Field(max_length=80)]

    @model_validator(mode="after")
    def as_many_counts_as_segments(self) -> IndexEntry:
        if len(self.rows) != len(self.segments):
            raise ValueError(f"rows: expected {len(self.segments)}, one for each segment, got {len(self.rows)}")
        return self


class GalleryManifest(Frozen):
    """generation: counts the changes. next_file: what the next new file is numbered.

    model: whose embeddings they are, None where they were brought without one. tools, command: what made it.
    """

    format_version: Literal[1] = 1
    generation: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    next_file: Annotated[int, Field(ge=0, lt=1 << 62)] = 0
    dim: Annotated[int, Field(ge=1, le=65536)]
    storage: Storage
    model: ModelIdentity | None = None
    tools: dict[str, str]
    command: str
    segments: tuple[SegmentEntry, ...] = ()
    index: IndexEntry | None = None

    @model_validator(mode="after")
    def not_too_many_rows(self) -> GalleryManifest:
        if sum(one.rows for one in self.segments) > MOST_ROWS:
            raise ValueError(f"segments: more than {MOST_ROWS} rows")
        return self

    @property
    def rows(self) -> int:
        """Those that are there."""
        return sum(one.rows - one.removed_rows for one in self.segments)

    @property
    def files(self) -> list[PartFile]:
        """All but this one."""
        own = [file for one in self.segments for file in (one.file, one.removed) if file is not None]
        return own if self.index is None else [*own, self.index.file]

    @classmethod
    def read(cls, root: Path) -> GalleryManifest:
        """Of the gallery in a folder. InputError where there is none, or it is damaged or of a newer format."""
        path = root / FILE
        try:
            if not path.is_file() and path.exists():
                raise ValueError("it is no file")
            if path.stat().st_size > FILE_BYTES:
                raise ValueError(f"it is larger than {FILE_BYTES} bytes")
            data = parse_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(
                f"{root}: expected a gallery, found no {FILE} in it: make one by 'edgerecall gallery build'"
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read: {one_line(error)}; build the gallery again") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path}: this EdgeRecall reads gallery format {FORMAT_VERSION}, got {version!r:.40}: update EdgeRecall"
            )
        try:
            return cls.model_validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            raise InputError(explain(error, cls, str(path))) from error

    def write(self, root: Path) -> None:
        """Makes this what the folder's gallery is, at once and for good. InputError where it would be too large."""
        text = self.model_dump_json().encode() + b"\n"
        if len(text) > FILE_BYTES:
            raise InputError(f"{root / FILE}: would take {len(text)} bytes, at most {FILE_BYTES} are read")
        with durable_file(root / FILE) as stream:
            stream.write(text)
