"""Where embeddings go: the console, or a gallery file for a search index."""

from __future__ import annotations

import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError, RuntimeUnavailable
from ..core.files import atomic_file, write_text
from ..core.versions import needs


class Writer(ABC):
    """Takes batches; `finish` makes the result visible. `names_note`: where the image names went, if elsewhere."""

    names_note = ""

    def check(self, paths: Sequence[Path]) -> None:  # noqa: B027 - most formats take any name
        """InputError for an image whose name the format cannot hold; before anything is embedded."""

    @abstractmethod
    def add(self, paths: Sequence[Path], embeddings: NDArray[Any]) -> None:
        """Adds rows, `(n, D)` float32 (or uint8 when binarised), of these images."""

    @abstractmethod
    def finish(self) -> None:
        """Writes what is left."""


class TextWriter(Writer):
    """`NAME:<tab>[ ... ]`, one line per image, as the reference's predict_rec names them."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # a name of other bytes than UTF-8 goes out as it is

    def add(self, paths: Sequence[Path], embeddings: NDArray[Any]) -> None:
        for path, row in zip(paths, embeddings, strict=True):
            values = np.array2string(row, max_line_width=sys.maxsize, threshold=sys.maxsize)
            sys.stdout.write(f"{path.name}:\t{values}\n")

    def finish(self) -> None:
        sys.stdout.flush()


class FileWriter(Writer):
    """Collects all rows, then writes `output` atomically."""

    def __init__(self, output: Path, command: str) -> None:
        self.output, self.command = output, command
        self.paths: list[str] = []
        self.parts: list[NDArray[Any]] = []

    def check(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.resolve() == self.output.resolve():
                raise InputError(f"{self.output}: is one of the images: give --output another name")

    def add(self, paths: Sequence[Path], embeddings: NDArray[Any]) -> None:
        self.paths.extend(str(path) for path in paths)
        self.parts.append(embeddings)

    @property
    def embeddings(self) -> NDArray[Any]:
        """All rows, `(n, D)`."""
        return np.concatenate(self.parts)


def require_utf8(paths: Sequence[Path]) -> None:
    """InputError for a name that is not UTF-8."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{str(path)!r}: its name is not UTF-8: rename it, or use --format jsonl") from error


class NpyWriter(FileWriter):
    """`output` with the rows, and `output.txt` beside it with one path a line."""

    def check(self, paths: Sequence[Path]) -> None:
        super().check(paths)
        require_utf8(paths)
        for path in paths:
            if len(str(path).splitlines()) > 1:
                raise InputError(f"{str(path)!r}: its name has a line break, the list has one name a line: use jsonl")

    def finish(self) -> None:
        with atomic_file(self.output) as temporary, temporary.open("wb") as stream:
            np.save(stream, self.embeddings, allow_pickle=False)
        names = self.output.with_name(self.output.name + ".txt")
        write_text(names, "\n".join(self.paths) + "\n")
        self.names_note = f"; their images in {names}"


class JsonLinesWriter(FileWriter):
    """One `{"image": ..., "embedding": [...]}` a line."""

    def finish(self) -> None:
        rows = zip(self.paths, self.embeddings.tolist(), strict=True)
        write_text(self.output, "".join(json.dumps({"image": p, "embedding": e}) + "\n" for p, e in rows))


class ParquetWriter(FileWriter):
    """Columns `image` and `embedding` (fixed-size list); the command in the file's metadata."""

    def __init__(self, output: Path, command: str) -> None:
        super().__init__(output, command)
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise RuntimeUnavailable(f"--format parquet {needs('pyarrow')}") from error
        self.arrow = pyarrow

    def check(self, paths: Sequence[Path]) -> None:
        super().check(paths)
        require_utf8(paths)

    def finish(self) -> None:
        embeddings = self.embeddings
        flat = self.arrow.array(embeddings.reshape(-1))
        column = self.arrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
        table = self.arrow.table({"image": self.paths, "embedding": column})
        table = table.replace_schema_metadata({"edgerecall.command": self.command})
        with atomic_file(self.output) as temporary:
            self.arrow.parquet.write_table(table, temporary)


WRITERS: dict[str, type[FileWriter]] = {"npy": NpyWriter, "jsonl": JsonLinesWriter, "parquet": ParquetWriter}
