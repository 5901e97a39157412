"""Shuffled batches, and identity-balanced ones (Hermans et al., arXiv 1703.07737: P identities x K images), seeded and
resumable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError
from ..config.data import PKOptions, RandomIdentityOptions, ShuffledOptions

Indices = NDArray[np.int64]
Position = tuple[int, int]  # (pass, batch in the pass) of the next batch
START: Position = (0, 0)


class Batches(ABC):
    """Endless batches, the same for the same labels and seed."""

    seed: int

    def batches(self, start: Position = START) -> Iterator[tuple[Indices, Position]]:
        """Batches from `start` on, each with the position after it."""
        number, skip = start
        while True:
            for index, batch in enumerate(self.one_pass(np.random.default_rng((self.seed, number)))):
                if index >= skip:
                    yield batch, (number, index + 1)
            number, skip = number + 1, 0

    @abstractmethod
    def one_pass(self, rng: np.random.Generator) -> Iterator[Indices]:
        """The batches of one pass."""


class ShuffledBatches(Batches):
    """Passes over all images in random order; the last batch is filled up from the beginning of its pass."""

    def __init__(self, labels: Indices, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed = len(labels), batch_size, seed

    def one_pass(self, rng: np.random.Generator) -> Iterator[Indices]:
        order = rng.permutation(self.count)
        whole = -(-self.count // self.batch_size) * self.batch_size
        yield from np.resize(order, whole).reshape(-1, self.batch_size)


class IdentityBatches(Batches):
    """Batches of `identities` classes with `instances` images each."""

    def __init__(self, labels: Indices, batch_size: int, instances: int, seed: int) -> None:
        self.instances, self.identities, self.seed = instances, batch_size // instances, seed
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order][0] - 1))
        self.members = np.split(order, starts[1:])
        if len(self.members) < self.identities:
            raise InputError(
                f"sampler: a batch needs {self.identities} identities, the list has {len(self.members)}:"
                " lower batch_size or raise the images per identity"
            )


class RandomIdentityBatches(IdentityBatches):
    """Passes without replacement.

    A pass deals every class's shuffled images out in groups of `instances` (a smaller class is filled up by
    repeating its images); classes are drawn in proportion to the groups they have left. A new pass begins when
    fewer than `identities` classes are left.
    """

    def one_pass(self, rng: np.random.Generator) -> Iterator[Indices]:
        groups = []
        for members in self.members:
            shuffled = rng.permutation(members)
            if len(shuffled) < self.instances:
                shuffled = np.resize(shuffled, self.instances)
            whole = len(shuffled) // self.instances * self.instances
            groups.append(list(shuffled[:whole].reshape(-1, self.instances)))
        left = np.array([len(group) for group in groups], dtype=np.float64)
        while np.count_nonzero(left) >= self.identities:
            chosen = rng.choice(len(groups), self.identities, replace=False, p=left / left.sum())
            yield np.concatenate([groups[index].pop() for index in chosen])
            left[chosen] -= 1


class PKBatches(IdentityBatches):
    """Every batch drawn by itself: classes in proportion to their images, or all alike; images without replacement
    where a class has enough. A pass is one batch.
    """

    def __init__(
        self,
        labels: Indices,
        batch_size: int,
        instances: int,
        seed: int,
        by_images: bool,
        ranges: Sequence[tuple[int, int, float]] = (),
    ) -> None:
        """ranges: first and last class, by the order in which the list comes to them, and how many times more often
        those are drawn.
        """
        super().__init__(labels, batch_size, instances, seed)
        sizes = np.array([len(members) if by_images else 1 for members in self.members], dtype=np.float64)
        known = np.argsort(np.argsort([members[0] for members in self.members]))
        weighed = np.zeros(len(known), dtype=bool)
        for first, last, ratio in ranges:
            inside = (known >= first) & (known <= last) & ~weighed
            sizes[inside] *= ratio
            weighed |= inside
        self.chances = sizes / sizes.sum()

    def one_pass(self, rng: np.random.Generator) -> Iterator[Indices]:
        chosen = rng.choice(len(self.members), self.identities, replace=False, p=self.chances)
        rows = [self.members[index] for index in chosen]
        yield np.concatenate([rng.choice(m, self.instances, replace=len(m) < self.instances) for m in rows])


def build_sampler(
    options: RandomIdentityOptions | PKOptions | ShuffledOptions, labels: Indices, seed: int, world: int = 1
) -> Batches:
    """The sampler of the config. world: processes whose batches are drawn together, as one."""
    size = options.batch_size * world
    if isinstance(options, ShuffledOptions):
        return ShuffledBatches(labels, size, seed)
    if isinstance(options, PKOptions):
        by_images = options.sample_method == "sample_avg_prob"
        ranges = list(zip(options.id_list[::2], options.id_list[1::2], options.ratio, strict=True))
        return PKBatches(labels, size, options.sample_per_id, seed, by_images, ranges)
    return RandomIdentityBatches(labels, size, options.num_instances, seed)
