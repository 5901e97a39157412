"""A savepoint is all of one moment, wherever the process that writes it dies."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.state import savepoint
from edgerecall.train.state.checkpoint import read_arrays

NAMES = (".pdparams", ".pdopt", ".pdstates")


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def write_text(state: Any, path: Path) -> None:
    path.write_text(str(state))


def contents(prefix: Path) -> list[str]:
    return [savepoint.path_of(prefix, suffix).read_text() for suffix in NAMES]


def test_a_death_at_any_point_leaves_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "latest"
    replace, outcomes = Path.replace, set()
    for deaths in range(4):  # renames done before the end: of the commit, then of each file
        savepoint.save(prefix, dict.fromkeys(NAMES, "old"), write_text)
        done = 0

        def dying(self: Path, target: Path, deaths: int = deaths) -> Path:
            nonlocal done
            if done == deaths:
                raise Killed
            done += 1
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            savepoint.save(prefix, dict.fromkeys(NAMES, "new"), write_text)
        monkeypatch.setattr(Path, "replace", replace)
        assert savepoint.exists(prefix)
        savepoint.recover(prefix)
        savepoint._clean(prefix)  # as the next save does first
        found = contents(prefix)
        assert found in (["old"] * 3, ["new"] * 3), f"torn after {deaths} renames: {found}"
        outcomes.add(found[0])
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"latest{suffix}" for suffix in NAMES)
    assert outcomes == {"old", "new"}


def test_reading_leaves_alone_what_is_being_written(tmp_path: Path) -> None:
    prefix = tmp_path / "latest"
    savepoint.save(prefix, dict.fromkeys(NAMES, "old"), write_text)

    def with_a_reader(state: Any, path: Path) -> None:
        write_text(state, path)
        savepoint.recover(prefix)

    savepoint.save(prefix, dict.fromkeys(NAMES, "new"), with_a_reader)
    assert contents(prefix) == ["new"] * 3


def test_a_commit_that_a_power_failure_emptied_is_dropped(tmp_path: Path) -> None:
    prefix = tmp_path / "latest"
    savepoint.save(prefix, dict.fromkeys(NAMES, "old"), write_text)
    (tmp_path / ".latest.commit").write_text("")
    savepoint.recover(prefix)
    assert contents(prefix) == ["old"] * 3 and len(list(tmp_path.iterdir())) == 3


def test_a_file_that_the_new_moment_has_not_goes(tmp_path: Path) -> None:
    prefix = tmp_path / "latest"
    savepoint.save(prefix, dict.fromkeys((*NAMES, ".pdema"), "old"), write_text)
    savepoint.save(prefix, dict.fromkeys(NAMES, "new"), write_text)
    assert not savepoint.path_of(prefix, ".pdema").exists()


def test_a_failed_write_keeps_the_old_one(tmp_path: Path) -> None:
    prefix = tmp_path / "latest"
    savepoint.save(prefix, dict.fromkeys(NAMES, "old"), write_text)

    def full(state: Any, path: Path) -> None:
        if path.name.endswith(".pdstates.new"):
            raise OSError(28, "No space left on device")
        write_text(state, path)

    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        savepoint.save(prefix, dict.fromkeys(NAMES, "new"), full)
    assert contents(prefix) == ["old"] * 3
    assert len(list(tmp_path.iterdir())) == 3


def test_numpy_1_can_read_what_numpy_2_writes(tmp_path: Path) -> None:
    """PaddleClas pins numpy 1.24, which has no `numpy._core`."""
    path = tmp_path / "x.pdparams"
    weight = paddle.arange(12, dtype="float32").reshape([3, 4])
    savepoint.paddle_save({"w": weight, "n": 3}, path)
    assert b"numpy._core" not in path.read_bytes() and b"numpy.core.multiarray" in path.read_bytes()
    assert (paddle.load(str(path))["w"].numpy() == weight.numpy()).all()
    with path.open("rb") as stream:
        assert pickle.load(stream)["n"] == 3
    savepoint.paddle_save({"w": weight}, path)
    assert (read_arrays(path)["w"] == weight.numpy()).all()


def test_the_newest_epochs_stay(tmp_path: Path) -> None:
    for epoch in (1, 2, 9, 10, 11):
        savepoint.save(tmp_path / f"epoch_{epoch}", dict.fromkeys(NAMES, "x"), write_text)
    savepoint.save(tmp_path / "epoch_best", dict.fromkeys(NAMES, "x"), write_text)
    savepoint.keep_newest(tmp_path, 10, 2)  # epoch 11 is of another run
    assert {path.stem for path in tmp_path.iterdir()} == {"epoch_9", "epoch_10", "epoch_11", "epoch_best"}


def test_arrays_larger_than_a_frame(tmp_path: Path) -> None:
    big = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    savepoint.paddle_save([{"a": paddle.to_tensor(big)}], tmp_path / "x.pdopt")
    assert (paddle.load(str(tmp_path / "x.pdopt"))[0]["a"].numpy() == big).all()
