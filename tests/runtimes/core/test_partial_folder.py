"""What an interrupted command has done is gone on with only where the same is asked, and nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.core.partial_folder import PartialFolder


def test_only_the_same_request_goes_on(tmp_path: Path) -> None:
    first = PartialFolder(tmp_path / "out", {"what": 1}, False)
    assert first.folder == tmp_path / "out.partial" and not first.begun
    (first.folder / "heat.json").write_text("1")
    assert PartialFolder(tmp_path / "out", {"what": 1}, True).begun
    with pytest.raises(InputError, match="other options, bundle, images or versions"):
        PartialFolder(tmp_path / "out", {"what": 2}, True)
    assert not PartialFolder(tmp_path / "out", {"what": 2}, False).begun  # begins again
    assert not (first.folder / "heat.json").exists()


def test_nothing_of_others_is_removed(tmp_path: Path) -> None:
    """Nor taken for what was done before, as after a removal that was cut off."""
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / "mine.txt").write_text("1")
    for resume in (False, True):
        with pytest.raises(InputError, match="holds something else than an interrupted run"):
            PartialFolder(tmp_path / "out", {"what": 1}, resume)
    assert (folder / "mine.txt").read_text() == "1"


def test_removed_at_once(tmp_path: Path) -> None:
    state = PartialFolder(tmp_path / "out", {"what": 1}, False)
    (state.folder / "heat.json").write_text("1")
    state.remove()
    state.remove()
    assert not any(tmp_path.iterdir())
