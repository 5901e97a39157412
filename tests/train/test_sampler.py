"""Identity-balanced batches."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from edgerecall.runtimes.errors import InputError
from edgerecall.train.sampler import IdentitySampler


def test_every_batch_is_balanced_and_a_pass_repeats_nothing() -> None:
    labels = np.repeat(np.arange(10), 8)
    sampler = IdentitySampler(labels, 16, 4, seed=0)
    batches = list(islice(iter(sampler), 5))  # 5 of 16 = all 80 images, if classes are left until then
    for batch in batches:
        values, counts = np.unique(labels[batch], return_counts=True)
        assert len(values) == 4 and (counts == 4).all()
    first_pass = np.concatenate(batches[:3])
    assert len(np.unique(first_pass)) == len(first_pass)


def test_small_classes_are_filled_up() -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 3])
    batch = next(iter(IdentitySampler(labels, 16, 4, seed=1)))
    assert (np.unique(labels[batch], return_counts=True)[1] == 4).all()


def test_seeded() -> None:
    labels = np.repeat(np.arange(6), 5)
    runs = [np.stack(list(islice(iter(IdentitySampler(labels, 8, 2, seed)), 20))) for seed in (3, 3, 4)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


def test_too_few_classes() -> None:
    with pytest.raises(InputError, match="needs 4 identities, the list has 2"):
        IdentitySampler(np.array([0, 0, 1, 1]), 16, 4, seed=0)
