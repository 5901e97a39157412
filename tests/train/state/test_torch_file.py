"""PyTorch's files of weights are read without it, and nothing in them runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Stored, stored, write_torch

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.state.checkpoint import read_arrays
from edgerecall.train.state.torch_file import is_torch_file, read_torch

FORMS = pytest.mark.parametrize("legacy", [False, True])


def state() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return OrderedDict(
        weight=stored(rng.standard_normal((4, 3, 2)).astype(np.float32)),
        turned=Stored(np.arange(12, dtype=np.float32), (3, 2), (1, 6), 2),
        half=stored(rng.standard_normal(5).astype(np.float16)),
        count=stored(np.array([7], dtype=np.int64)),
        empty=stored(np.empty((0, 3), dtype=np.float32)),
    )


@FORMS
@pytest.mark.parametrize("inside", [None, "state_dict"])
def test_arrays_come_back(tmp_path: Path, legacy: bool, inside: str | None) -> None:
    made = state()
    write_torch(tmp_path / "x.pth", made if inside is None else {"epoch": 3, inside: made}, legacy)
    found = read_torch(tmp_path / "x.pth")
    assert is_torch_file(tmp_path / "x.pth") and list(found) == list(made)
    assert (found["weight"] == made["weight"].values.reshape(4, 3, 2)).all() and found["half"].dtype == np.float16
    assert found["turned"].tolist() == [[2, 8], [3, 9], [4, 10]] and found["turned"].flags.c_contiguous
    assert found["count"].tolist() == [7] and found["empty"].shape == (0, 3)
    assert read_arrays(tmp_path / "x.pth").keys() == found.keys()  # by its content, whatever it is called


def test_bfloat16_is_the_upper_half_of_a_float(tmp_path: Path) -> None:
    numbers = np.array([1.0, -2.5, 3.140625], dtype=np.float32)
    tensor = stored(numbers)
    tensor.values, tensor.kind = (numbers.view(np.uint32) >> 16).astype(np.uint16), "BFloat16Storage"
    write_torch(tmp_path / "x.pth", {"w": tensor}, legacy=False)
    assert read_torch(tmp_path / "x.pth")["w"].tolist() == [1.0, -2.5, 3.140625]


class Payload:
    """What a file from the web may hold."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.target}",))


@FORMS
def test_a_payload_does_not_run(tmp_path: Path, legacy: bool) -> None:
    write_torch(tmp_path / "x.pth", {"w": Payload(tmp_path / "ran")}, legacy)
    with pytest.raises(InputError, match=r"refused: it wants to load (posix|os)\.system"):
        read_torch(tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


@FORMS
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Stored(np.zeros(4, np.float32), (3, 2), (2, 1)), "longer than its storage"),
        (Stored(np.zeros(4, np.float32), (2, 2), (2, 1), 1), "longer than its storage"),  # by one
        (Stored(np.zeros(4, np.float32), (2,), (1,), -1), "longer than its storage"),
        (Stored(np.zeros(4, np.float32), (1000, 1000), (0, 0)), "repeats its storage"),
        (Stored(np.zeros(4, np.float32), (2, 2), (2,)), "without a plain shape"),
        (Stored(np.zeros(4, np.float32), (-2,), (1,)), "without a plain shape"),
    ],
)
def test_views_that_leave_their_storage(tmp_path: Path, legacy: bool, tensor: Stored, message: str) -> None:
    write_torch(tmp_path / "x.pth", {"w": tensor}, legacy)
    with pytest.raises(InputError, match=message):
        read_torch(tmp_path / "x.pth")


def test_damaged_files(tmp_path: Path) -> None:
    for legacy in (False, True):
        write_torch(tmp_path / "x.pth", state(), legacy)
        whole = (tmp_path / "x.pth").read_bytes()
        for length in (16, 40, len(whole) // 2, len(whole) - 3):
            (tmp_path / "cut.pth").write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"cut\.pth"):
                read_torch(tmp_path / "cut.pth")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(InputError, match=r"without PyTorch's data\.pkl"):
        read_torch(tmp_path / "other.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/data/0", bytes(1 << 20))
    with pytest.raises(InputError, match="compressed"):
        read_torch(tmp_path / "bomb.pth")
    write_torch(tmp_path / "list.pth", [1, 2], legacy=False)
    with pytest.raises(InputError, match="expected a state dict, got list"):
        read_torch(tmp_path / "list.pth")
    with pytest.raises(InputError, match="No such file"):
        read_arrays(tmp_path / "none.pth")


class Changed(Stored):
    """A tensor that the pickle changes after it made it."""


@FORMS
def test_a_tensor_changed_after_it_was_made(tmp_path: Path, legacy: bool) -> None:
    """Of which no check would see the strides, which lead out of the storage."""
    good = stored(np.zeros(16, np.float32))
    bad = Changed(good.values, (16,), (1,))
    write_torch(tmp_path / "x.pth", {"w": bad}, legacy, changes={"stride": (-(1 << 20),)})
    with pytest.raises(InputError, match="it changes a tensor after it was made"):
        read_torch(tmp_path / "x.pth")


def test_memory_is_bounded_by_the_file(tmp_path: Path) -> None:
    tensor = stored(np.arange(50_000, dtype=np.float32))
    write_torch(tmp_path / "shared.pth", {f"w{n}": tensor for n in range(300)}, legacy=False)
    found = read_torch(tmp_path / "shared.pth")
    assert len(found) == 300 and len({id(array) for array in found.values()}) == 1
    views = {f"w{n}": Stored(tensor.values, (49_000,), (1,), n) for n in range(300)}
    for view in views.values():
        view.values = tensor.values
    write_torch(tmp_path / "views.pth", views, legacy=False, shared=True)
    with pytest.raises(InputError, match="its tensors overlap"):
        read_torch(tmp_path / "views.pth")
    with zipfile.ZipFile(tmp_path / "order.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", bytes(1 << 24))
    with pytest.raises(InputError, match="compressed"):
        read_torch(tmp_path / "order.pth")
    (tmp_path / "memo.pdparams").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(InputError, match="it remembers more than 10,000,000 values"):
        read_arrays(tmp_path / "memo.pdparams")
