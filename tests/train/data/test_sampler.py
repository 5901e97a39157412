"""Identity-balanced batches: balanced, seeded, and the same when taken up in the middle."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.data import PKOptions, ShuffledOptions
from edgerecall.train.data.sampler import (
    START,
    IdentityBatches,
    PKBatches,
    Position,
    RandomIdentityBatches,
    build_sampler,
)

Make = Callable[..., IdentityBatches]
SAMPLERS: dict[str, Make] = {
    "random": RandomIdentityBatches,
    "by images": lambda *arguments: PKBatches(*arguments, by_images=True),
    "alike": lambda *arguments: PKBatches(*arguments, by_images=False),
}


def take(sampler: IdentityBatches, count: int, start: Position = START) -> list[tuple[np.ndarray, Position]]:
    return list(islice(sampler.batches(start), count))


def test_every_batch_is_balanced_and_a_pass_repeats_nothing() -> None:
    labels = np.repeat(np.arange(10), 8)
    batches = [batch for batch, _ in take(RandomIdentityBatches(labels, 16, 4, 0), 5)]
    for batch in batches:  # 5 of 16 = all 80 images, if classes are left until then
        values, counts = np.unique(labels[batch], return_counts=True)
        assert len(values) == 4 and (counts == 4).all()
    first_pass = np.concatenate(batches[:3])
    assert len(np.unique(first_pass)) == len(first_pass)


@pytest.mark.parametrize("name", SAMPLERS)
def test_small_classes_are_filled_up(name: str) -> None:
    labels = np.array([0, 0, 0, 0, 1, 2, 2, 3])
    batch, _ = take(SAMPLERS[name](labels, 16, 4, 1), 1)[0]
    assert (np.unique(labels[batch], return_counts=True)[1] == 4).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeded(name: str) -> None:
    labels = np.repeat(np.arange(6), 5)
    runs = [np.stack([b for b, _ in take(SAMPLERS[name](labels, 8, 2, seed), 20)]) for seed in (3, 3, 4)]
    assert (runs[0] == runs[1]).all() and (runs[0] != runs[2]).any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_taken_up_anywhere_it_goes_on_the_same(name: str) -> None:
    labels = np.repeat(np.arange(7), 6)
    sampler = SAMPLERS[name](labels, 8, 2, 5)
    whole = take(sampler, 40)  # several passes of the random one
    for done in (1, 4, 5, 6, 23):
        rest = take(SAMPLERS[name](labels, 8, 2, 5), 40 - done, whole[done - 1][1])
        for (expected, _), (found, _) in zip(whole[done:], rest, strict=True):
            assert (expected == found).all()


def test_pk_draws_by_images_or_all_alike() -> None:
    labels = np.repeat([0, 1, 2], [60, 6, 6])
    shares = {}
    for by_images in (True, False):
        batches = take(PKBatches(labels, 2, 2, 0, by_images), 600)
        shares[by_images] = np.mean([labels[batch[0]] == 0 for batch, _ in batches])
    assert shares[True] == pytest.approx(60 / 72, abs=0.06) and shares[False] == pytest.approx(1 / 3, abs=0.06)


def test_too_few_classes() -> None:
    with pytest.raises(InputError, match="needs 4 identities, the list has 2"):
        RandomIdentityBatches(np.array([0, 0, 1, 1]), 16, 4, 0)


def test_shuffled_batches_pass_over_the_whole_list() -> None:
    options = ShuffledOptions(name="DistributedBatchSampler", batch_size=4)
    labels = np.arange(10) % 3
    batches = build_sampler(options, labels, seed=1).batches()
    passes = [np.concatenate([next(batches)[0] for _ in range(3)]) for _ in range(2)]
    for one in passes:
        assert sorted(one[:10]) == list(range(10)) and (one[10:] == one[:2]).all()
    assert (passes[0] != passes[1]).any()
    everything = build_sampler(options, labels, seed=1).batches()
    position = [next(everything) for _ in range(4)][3][1]
    resumed, rest = build_sampler(options, labels, seed=1).batches(position), next(everything)[0]
    assert (next(resumed)[0] == rest).all()


def test_ranges_of_identities_are_drawn_more_often() -> None:
    labels = np.repeat(np.arange(10), 4)
    options = PKOptions(name="PKSampler", batch_size=4, sample_per_id=2, id_list=(8, 9), ratio=(6.0,))
    batches = build_sampler(options, labels, seed=0).batches()
    drawn = np.concatenate([labels[next(batches)[0]] for _ in range(2000)])
    share = np.isin(drawn, (8, 9)).mean()
    assert 0.45 < share < 0.62  # of two drawn without replacement, with 12 parts of 20
    with pytest.raises(ValidationError, match="first and last of 1 ranges"):
        PKOptions(name="PKSampler", batch_size=4, sample_per_id=2, id_list=(8,), ratio=(6.0,))
