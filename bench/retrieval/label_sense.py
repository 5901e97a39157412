"""Whether labels make sense: each check gives one line with an example, or none. What is wrong with the list is seen
nowhere else: wrong labels lower the recall of every row alike, and images listed twice raise it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes._native import Gallery
from ...runtimes.core.cpus import usable_cpus
from .metrics import Embeddings, Labels

SHIFTS = (-3, -2, -1, 1, 2, 3)  # lines
LEVEL = 1e-3  # of each test, with every place and shift that it tries counted in
LEAST_GAIN = 0.05  # of recall@1, for a shift to be told
NEIGHBOURS, LEAST_PAIRS, AGREEING = 5, 20, 0.85  # further neighbours; pairs at least; their share of one label
UNREADABLE = sha256(b"").digest()


def label_warnings(
    paths: Sequence[Path], labels: Labels, nearest: NDArray[np.int64], embeddings: Embeddings, digests: Sequence[bytes]
) -> list[str]:
    """What looks wrong with the labels int64 `(n,)` of images in list order.

    nearest: of each image its nearest other one, int64 `(n,)`, -1 for none; embeddings: L2-normalised float32 `(n, D)`
    of a sound network; digests: SHA-256 of each image's bytes, or none at all.
    """
    shift = moved_names(paths, labels) or moved_labels(paths, labels, nearest)
    # A shifted list explains neighbours of other labels.
    found = (
        *content_twice(paths, labels, digests),
        shift,
        None if shift else unlike(paths, labels, nearest, embeddings),
    )
    return [line for line in found if line]


def content_twice(paths: Sequence[Path], labels: Labels, digests: Sequence[bytes]) -> Iterator[str]:
    """The same bytes in several lines: a query whose copy is in the gallery always finds it."""
    places = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest != UNREADABLE:
            places[digest].append(index)
    several = [group for group in places.values() if len(group) > 1]
    alike = [group for group in several if len(set(labels[group].tolist())) == 1]
    unlike_labels = [group for group in several if len(set(labels[group].tolist())) > 1]
    if alike:
        first, second = alike[0][:2]
        yield (
            f"{sum(map(len, alike))} of {len(paths)} lines have images with the same bytes under one label, such as"
            f" {paths[first]} and {paths[second]}: each finds its copy, and recall is too high; list each image once"
        )
    if unlike_labels:
        group = unlike_labels[0]
        second = next(index for index in group if labels[index] != labels[group[0]])
        yield (
            f"{sum(map(len, unlike_labels))} of {len(paths)} lines have images with the same bytes under different"
            f" labels, such as {paths[group[0]]} ({labels[group[0]]}) and {paths[second]} ({labels[second]}):"
            " one is wrong"
        )


def moved_labels(paths: Sequence[Path], labels: Labels, nearest: NDArray[np.int64]) -> str | None:
    """Whether labels agree better with the nearest neighbours when those of a run of lines are moved by a few."""
    from scipy import stats

    count, best = len(labels), None
    has = nearest >= 0
    hits = has & (labels[nearest] == labels)
    for shift in SHIFTS:
        moved = np.roll(labels, -shift)
        moved_hits = has & (moved[nearest] == moved)
        begin, end = best_run(moved_hits.astype(np.int64) - hits)
        won = int((moved_hits & ~hits)[begin:end].sum())
        lost = int((hits & ~moved_hits)[begin:end].sum())
        if won + lost == 0:
            continue
        tried = len(SHIFTS) * count * count / 2
        level = stats.binomtest(won, won + lost, 0.5, alternative="greater").pvalue * tried
        if level <= LEVEL and (won - lost) / (end - begin) >= LEAST_GAIN and (best is None or level < best[0]):
            best = (level, shift, begin, end, hits[begin:end].mean(), moved_hits[begin:end].mean())
    if best is None:
        return None
    _, shift, begin, end, before, after = best
    example = next(index for index in range(begin, end) if labels[index] != labels[(index + shift) % count])
    return (
        f"lines {begin + 1} to {end} fit their labels better when these are moved by {abs(shift)} line"
        f"{'s' * (abs(shift) > 1)} {'up' if shift > 0 else 'down'} (recall@1 {after:.3f} against {before:.3f}): is a"
        f" line missing or doubled there? {paths[example]} has label {labels[example]}, perhaps"
        f" {labels[(example + shift) % count]} is meant"
    )


def best_run(gains: NDArray[np.int64]) -> tuple[int, int]:
    """Begin and end of the run with the largest sum."""
    sums = np.concatenate([[0], np.cumsum(gains)])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    return int(np.argmin(sums[: end + 1])), end


def moved_names(paths: Sequence[Path], labels: Labels) -> str | None:
    """Whether labels change a few lines before or after the names do, each name being a class and a number."""
    changes = np.flatnonzero(labels[1:] != labels[:-1])
    for key in (lambda path: path.parent, lambda path: (path.parent, re.sub(r"[-_. ]?\d+$", "", path.stem))):
        names = [key(path) for path in paths]
        there = [index for index in range(len(names) - 1) if names[index] != names[index + 1]]
        if len(there) < 5 or share(changes, there) > 0.5:
            continue
        for shift in SHIFTS:
            if share(changes - shift, there) >= 0.8:
                example = there[0] + (shift < 0)
                return (
                    f"labels change {abs(shift)} line{'s' * (abs(shift) > 1)} {'after' if shift > 0 else 'before'} the"
                    f" names do, such as at {paths[example]} (label {labels[example]}): is a line missing or doubled?"
                )
    return None


def share(some: Sequence[int] | NDArray[np.int64], others: Sequence[int]) -> float:
    """Common ones of all that are in either."""
    first, second = set(map(int, some)), set(others)
    return len(first & second) / max(len(first | second), 1)


def unlike(paths: Sequence[Path], labels: Labels, nearest: NDArray[np.int64], embeddings: Embeddings) -> str | None:
    """Whether labels deny what the embedding is sure of: pairs, each the other's nearest, with most of their further
    neighbours in common. Of a network that tells nothing few pairs are so, whatever the labels.
    """
    from scipy import stats

    own = np.arange(len(labels))
    first = own[(nearest > own) & (nearest[nearest] == own)]
    # Of classes that have another image to find.
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    first = first[(sizes[place][first] > 1) & (sizes[place][nearest[first]] > 1)]
    if len(first) < LEAST_PAIRS:
        return None
    gallery = Gallery(embeddings.shape[1])
    gallery.add(embeddings)
    found, _ = gallery.search(embeddings, min(NEIGHBOURS + 2, len(embeddings)), len(usable_cpus()))
    in_common = [
        len((set(found[one]) & set(found[other])) - {one, other})
        for one, other in zip(first, nearest[first], strict=True)
    ]
    first = first[np.array(in_common) > NEIGHBOURS / 2]
    agree = labels[first] == labels[nearest[first]]
    if len(agree) < LEAST_PAIRS or stats.binomtest(int(agree.sum()), len(agree), AGREEING, "less").pvalue > LEVEL:
        return None
    one = first[np.flatnonzero(~agree)[0]]
    other = nearest[one]
    return (
        f"{(~agree).sum()} of {len(agree)} pairs of images that the embedding is sure of (each the other's nearest,"
        f" most further neighbours in common) have different labels, such as {paths[one]} ({labels[one]}) and"
        f" {paths[other]} ({labels[other]}): are the labels right?"
    )
