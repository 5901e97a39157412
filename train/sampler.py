"""Identity-balanced batches (Hermans et al., arXiv 1703.07737: P identities x K images)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..runtimes.errors import InputError


class IdentitySampler:
    """Endless batches of `identities` classes with `instances` images each, without replacement within a pass.

    A pass deals every class's shuffled images out in groups of `instances` (a smaller class is filled up by
    repeating its images); classes are drawn in proportion to the groups they have left. A new pass begins when
    fewer than `identities` classes are left. Seeded: the same labels and seed give the same batches.
    """

    def __init__(self, labels: NDArray[np.int64], batch_size: int, instances: int, seed: int) -> None:
        self.instances, self.identities = instances, batch_size // instances
        self.rng = np.random.default_rng(seed)
        order = np.argsort(labels, kind="stable")
        starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order][0] - 1))
        self.members = np.split(order, starts[1:])
        if len(self.members) < self.identities:
            raise InputError(
                f"sampler: a batch needs {self.identities} identities, the list has {len(self.members)}:"
                " lower batch_size or raise num_instances"
            )

    def _deal(self) -> list[list[NDArray[np.int64]]]:
        groups = []
        for members in self.members:
            shuffled = self.rng.permutation(members)
            if len(shuffled) < self.instances:
                shuffled = np.resize(shuffled, self.instances)
            whole = len(shuffled) // self.instances * self.instances
            groups.append(list(shuffled[:whole].reshape(-1, self.instances)))
        return groups

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        while True:
            groups = self._deal()
            left = np.array([len(group) for group in groups], dtype=np.float64)
            while np.count_nonzero(left) >= self.identities:
                chosen = self.rng.choice(len(groups), self.identities, replace=False, p=left / left.sum())
                yield np.concatenate([groups[index].pop() for index in chosen])
                left[chosen] -= 1
