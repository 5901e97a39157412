"""What an interrupted sweep has measured so far."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import atomic_file, write_text
from ...runtimes.core.partial_folder import PartialFolder
from ..schema.group_result import GroupResult
from ..schema.rows import Row


class ResumeStore(PartialFolder):
    """One file pair a group."""

    def save(self, name: str, measured: GroupResult) -> None:
        """Keeps a group; the rows' file comes last and vouches for both."""
        arrays = {f"e/{k}": v for k, v in measured.embeddings.items()}
        arrays |= {f"r/{k}": v for k, v in measured.random.items()}
        with atomic_file(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        rows = [asdict(row) for row in measured.rows]
        write_text(self.folder / f"{name}.json", json.dumps({"rows": rows, "warnings": measured.warnings}))

    def load(self, name: str) -> GroupResult | None:
        """A group measured before; None when there is none."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = TypeAdapter(list[Row]).validate_python(data["rows"])
            warnings = TypeAdapter(list[str]).validate_python(data["warnings"])
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as stored:
                found: dict[str, dict[str, Any]] = {"e": {}, "r": {}}
                for key in stored.files:
                    found[key[0]][key[2:]] = stored[key]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, ValidationError) as error:
            raise InputError(f"{path}: damaged; remove {self.folder} and run again") from error
        return GroupResult(rows, found["e"], found["r"], warnings)
