"""What an interrupted command has done so far, in a folder beside its result."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import write_text

REQUEST = "request.json"


class PartialFolder:
    """`RESULT.partial`. request: what was asked; another one is not continued, and without `resume` none is."""

    def __init__(self, result: Path, request: dict[str, Any], resume: bool) -> None:
        self.folder = result.with_name(result.name + ".partial")
        path, text = self.folder / REQUEST, json.dumps(request, indent=1)
        if resume and path.is_file():
            if path.read_text(encoding="utf-8") != text:
                raise InputError(
                    f"{self.folder}: an interrupted run with other options, bundle, images or versions: repeat its"
                    " command, or leave out --resume to begin again"
                )
            return
        if path.is_file():  # only what this class made is removed
            self.remove()
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise InputError(f"{self.folder} holds something else than an interrupted run: move it away")
        write_text(path, text)

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with."""
        return any(path.name != REQUEST for path in self.folder.glob("*.json"))

    def remove(self) -> None:
        """When the result is written, or there is nothing to keep. At once: no half of it is ever gone on with."""
        if self.folder.is_dir():
            gone = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
            shutil.rmtree(self.folder.replace(gone), ignore_errors=True)
