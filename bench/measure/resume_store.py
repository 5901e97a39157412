"""What an interrupted sweep has measured so far, in a folder beside its result's file."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import atomic_file, write_text
from ..schema.group_result import GroupResult
from ..schema.rows import Row

REQUEST = "request.json"


class ResumeStore:
    """One file pair a group. request: what the sweep was asked; another one is not continued."""

    def __init__(self, result_file: Path, request: dict[str, Any], resume: bool) -> None:
        self.folder = result_file.with_name(result_file.name + ".partial")
        path, text = self.folder / REQUEST, json.dumps(request, indent=1)
        if resume and path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise InputError(
                    f"{self.folder}: an interrupted run with other options, bundle, images or versions: repeat its"
                    " command, or leave out --resume to begin again"
                )
            return
        if self.folder.is_dir() and path.is_file():  # only what this class made is removed
            shutil.rmtree(self.folder)
        write_text(path, text)

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

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return any(self.folder.glob("*.npz"))

    def remove(self) -> None:
        """When the result is written, or there is nothing to keep."""
        shutil.rmtree(self.folder, ignore_errors=True)
