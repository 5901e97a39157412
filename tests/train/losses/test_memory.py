"""The memory is a FIFO: across the wrap, with label 0, and never larger than asked."""

from __future__ import annotations

from collections import deque

import numpy as np
import paddle
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.losses.memory import CrossBatchMemory


def rows(start: int, count: int, dim: int = 2) -> tuple[paddle.Tensor, paddle.Tensor]:
    values = np.arange(start, start + count, dtype=np.float32)
    return paddle.to_tensor(np.repeat(values[:, None], dim, axis=1)), paddle.to_tensor(values.astype(np.int64) % 3)


@pytest.mark.parametrize(("size", "batch"), [(10, 4), (8, 4), (7, 7), (5, 1), (9, 8)])
def test_holds_exactly_the_newest(size: int, batch: int) -> None:
    memory = CrossBatchMemory(size, 2)
    expected: deque[float] = deque(maxlen=size)
    for step in range(12):
        feats, labels = rows(step * batch, batch)
        slots = memory.enqueue(feats, labels).numpy()
        expected.extend(feats.numpy()[:, 0].tolist())
        held, held_labels = (tensor.numpy() for tensor in memory.get())
        assert memory.fill == min((step + 1) * batch, size)
        assert sorted(held[:, 0]) == sorted(expected)
        assert (held_labels == held[:, 0].astype(np.int64) % 3).all()
        # A slot names where each row of the batch lies now.
        assert (held[slots, 0] == feats.numpy()[:, 0]).all()


def test_label_zero_does_not_empty_it() -> None:
    memory = CrossBatchMemory(4, 2)
    for _ in range(3):
        memory.enqueue(paddle.ones([4, 2]), paddle.zeros([4], dtype="int64"))
        assert memory.get()[0].shape == [4, 2]


def test_refuses_a_batch_larger_than_itself() -> None:
    with pytest.raises(InputError, match="batch of 5 does not fit a memory of 4"):
        CrossBatchMemory(4, 2).enqueue(*rows(0, 5))


def checkpoint(memory: CrossBatchMemory) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in memory.state_dict().items()}


def test_pointer_and_fill_survive_a_checkpoint() -> None:
    memory, copy = CrossBatchMemory(5, 2), CrossBatchMemory(5, 2)
    for step in range(3):
        memory.enqueue(*rows(step * 4, 4))
    copy.load(checkpoint(memory), "test")
    assert (copy.pointer, copy.fill) == (memory.pointer, memory.fill) == (2, 5)
    for target in (memory, copy):
        target.enqueue(*rows(100, 2))
    assert (copy.feats.numpy() == memory.feats.numpy()).all()
    assert (copy.targets.numpy() == memory.targets.numpy()).all()


def test_a_memory_of_paddleclas_has_no_pointer() -> None:
    """Its unused rows are zero; label 0 does not make a row unused."""
    memory = CrossBatchMemory(6, 2)
    memory.enqueue(*rows(1, 4))
    memory.targets[3] = 0
    saved = checkpoint(memory)
    del saved["state"]
    copy = CrossBatchMemory(6, 2)
    copy.load(saved, "test")
    assert (copy.pointer, copy.fill) == (4, 4)
    memory.enqueue(*rows(50, 4))
    saved = checkpoint(memory)
    del saved["state"]
    copy.load(saved, "test")
    assert (copy.pointer, copy.fill) == (0, 6)


def test_a_memory_of_another_size_is_refused() -> None:
    memory = CrossBatchMemory(6, 2)
    with pytest.raises(InputError, match=r"feats: expected \(5, 2\), found \(6, 2\)"):
        CrossBatchMemory(5, 2).load(checkpoint(memory), "test")
    with pytest.raises(InputError, match="found None"):
        CrossBatchMemory(5, 2).load({}, "test")
    with pytest.raises(InputError, match=r"state: expected \(2,\), found \(3,\)"):
        CrossBatchMemory(6, 2).load({**checkpoint(memory), "state": np.zeros(3, np.int64)}, "test")
    broken = {**checkpoint(memory), "state": np.array([9, 2])}
    with pytest.raises(InputError, match="pointer 9 and fill 2 do not fit 6"):
        CrossBatchMemory(6, 2).load(broken, "test")
