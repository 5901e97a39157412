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
from .metrics import COLLAPSED, Embeddings, Labels, mean_cosine
from .significance import binomial_above

SHIFTS = (1, -1, 2, -2, 3, -3)  # lines; of equal ones the first
AS_GOOD = 0.9  # of the best shift's gain
LEVEL = 1e-3  # of each test, with every place and shift that it tries counted in
LEAST_GAIN = 0.05  # of the pairs, for a shift to be told
COPIES = 1e-3  # of the lines, below which copies under one label change no figure
NEIGHBOURS, LEAST_PAIRS, DENIED = 5, 20, 0.05  # further neighbours; pairs at least; their share that labels may deny
UNREADABLE = sha256(b"").digest()
Indices = NDArray[np.int64]


def label_warnings(
    paths: Sequence[Path], labels: Labels, embeddings: Embeddings, digests: Sequence[bytes] = ()
) -> list[str]:
    """What looks wrong with the labels int64 `(n,)` of images in list order.

    embeddings: L2-normalised float32 `(n, D)` of a sound network; digests: SHA-256 of each image's bytes, or none.
    """
    found = list(content_twice(paths, labels, digests))
    told = moved_names(paths, labels)
    # A shifted list explains neighbours of other labels: the first of these that is seen is told.
    if told is None and len(paths) > NEIGHBOURS + 2 and mean_cosine(embeddings) <= COLLAPSED:
        near = neighbours(embeddings)
        told = moved_labels(paths, labels, near[:, 0]) or denied(paths, labels, near)
    return [*found, told] if told else found


def neighbours(embeddings: Embeddings) -> Indices:
    """The nearest other images of each, nearest first, `(n, NEIGHBOURS + 1)`."""
    gallery = Gallery(embeddings.shape[1])
    gallery.add(embeddings)
    found, _ = gallery.search(embeddings, NEIGHBOURS + 2, len(usable_cpus()))
    own = found == np.arange(len(found))[:, None]
    own[~own.any(axis=1), -1] = True  # among many alike an image may not find itself
    return np.asarray(found[~own]).reshape(len(found), -1)


def mutual_pairs(nearest: Indices) -> tuple[Indices, Indices]:
    """Pairs that are each other's nearest: each image is in one at most, so that no hub counts often."""
    own = np.arange(len(nearest))
    first = own[(nearest > own) & (nearest[nearest] == own)]
    return first, nearest[first]


def content_twice(paths: Sequence[Path], labels: Labels, digests: Sequence[bytes]) -> Iterator[str]:
    """The same bytes in several lines: a query whose copy is in the gallery always finds it."""
    places = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest != UNREADABLE:
            places[digest].append(index)
    several = [group for group in places.values() if len(group) > 1]
    alike = [group for group in several if len(set(labels[group].tolist())) == 1]
    unlike = [group for group in several if len(set(labels[group].tolist())) > 1]
    if sum(map(len, alike)) > COPIES * len(paths):
        first, second = alike[0][:2]
        yield (
            f"{sum(map(len, alike))} of {len(paths)} lines have images with the same bytes under one label, such as"
            f" {paths[first]} and {paths[second]}: each finds its copy, and recall is too high; list each image once"
        )
    if unlike:
        group = unlike[0]
        second = next(index for index in group if labels[index] != labels[group[0]])
        yield (
            f"{sum(map(len, unlike))} of {len(paths)} lines have images with the same bytes under different labels,"
            f" such as {paths[group[0]]} ({labels[group[0]]}) and {paths[second]} ({labels[second]}):"
            " is one wrong, or do they show both?"
        )


def moved_labels(paths: Sequence[Path], labels: Labels, nearest: Indices) -> str | None:
    """Whether labels agree better within pairs of neighbours when those of a run of lines are moved by a few.

    By pairs whose lines have, before and after, classes with another image: others cannot agree.
    """
    first, second = mutual_pairs(nearest)
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    alone = sizes[place] < 2
    found = []
    for shift in SHIFTS:
        moved, moved_alone = np.roll(labels, -shift), np.roll(alone, -shift)
        told = ~(alone[first] | alone[second] | moved_alone[first] | moved_alone[second])
        one, other = first[told], second[told]
        now, then = labels[one] == labels[other], moved[one] == moved[other]
        begin, end = best_run(then.astype(np.int64) - now)
        won, lost = (int((a & ~b)[begin:end].sum()) for a, b in ((then, now), (now, then)))
        if won - lost <= LEAST_GAIN * (end - begin):
            continue
        level = binomial_above(won, won + lost, 0.5)
        if level * len(SHIFTS) * len(one) ** 2 / 2 <= LEVEL:
            shares = f"{now[begin:end].mean():.3f}", f"{then[begin:end].mean():.3f}"
            found.append((won - lost, shift, int(one[begin]), int(one[end - 1]), shares))
    if not found:
        return None
    good = [one for one in found if one[0] >= AS_GOOD * max(found)[0]]
    _, shift, begin, end, (before, after) = good[0]
    wrong = np.flatnonzero(labels[begin : end + 1] != np.roll(labels, -shift)[begin : end + 1])
    example = begin + int(wrong[0]) if len(wrong) else begin
    return (
        f"from {paths[begin]} to {paths[end]} labels fit better when moved by {counted(shift)}"
        f" {direction(good, shift, 'up', 'down')} ({after} of the pairs of nearest neighbours agree, now {before}):"
        f" is a line missing or doubled there? Such as {paths[example]} with label {labels[example]}, where"
        f" {labels[(example + shift) % len(labels)]} may be meant"
    )


def best_run(gains: Indices) -> tuple[int, int]:
    """Begin and end of the shortest run with the largest sum."""
    sums = np.concatenate([[0], np.cumsum(gains)])
    end = int(np.argmax(sums - np.minimum.accumulate(sums)))
    return end - int(np.argmin(sums[end::-1])), end


def counted(shift: int) -> str:
    """`1 line`, `2 lines`."""
    return f"{abs(shift)} line{'s' * (abs(shift) > 1)}"


def direction(good: Sequence[tuple[object, ...]], shift: int, one: str, other: str) -> str:
    """Which way, or both where pairs of lines make them alike. good: each with its shift second."""
    if any(entry[1] == -shift for entry in good):
        return f"{one} or {other}"
    return one if shift > 0 else other


def moved_names(paths: Sequence[Path], labels: Labels) -> str | None:
    """Whether labels change a few lines before or after the names do, each name being a class and a number."""
    changes = np.flatnonzero(labels[1:] != labels[:-1])
    for key in (lambda path: path.parent, lambda path: (path.parent, re.sub(r"[-_. ]?\d+$", "", path.stem))):
        names = [key(path) for path in paths]
        there = [index for index in range(len(names) - 1) if names[index] != names[index + 1]]
        if len(there) < 5 or common(changes, there) > 0.5:
            continue
        found = [(common(changes - shift, there), shift) for shift in SHIFTS]
        good = [one for one in found if one[0] >= max(0.8, AS_GOOD * max(found)[0])]
        if good:
            shift = good[0][1]
            example = there[0] + (shift > 0)
            return (
                f"labels change {counted(shift)} {direction(good, shift, 'after', 'before')} the names do, such as at"
                f" {paths[example]} (label {labels[example]}): is a line missing or doubled?"
            )
    return None


def common(some: Sequence[int] | Indices, others: Sequence[int]) -> float:
    """Those in both, of all that are in either."""
    first, second = set(map(int, some)), set(others)
    return len(first & second) / max(len(first | second), 1)


def denied(paths: Sequence[Path], labels: Labels, near: Indices) -> str | None:
    """Whether labels deny what the embedding is sure of: pairs, each the other's nearest, with most of their further
    neighbours in common, all of one label but for one of the two.

    A network that tells nothing, or other things than these labels, has no such neighbours of one label; nor has any
    where most labels are wrong, which the level of chance shows.
    """
    agree, against = 0, []
    for one, other in zip(*mutual_pairs(near[:, 0]), strict=True):
        around = (set(near[one]) & set(near[other])) - {one, other}
        around_labels = set(labels[[*around]].tolist())
        if len(around) <= NEIGHBOURS / 2 or len(around_labels) > 1:
            continue
        (label,) = around_labels
        if labels[one] == labels[other] == label:
            agree += 1
        elif label in (labels[one], labels[other]):
            against.append((one, other) if label == labels[other] else (other, one))
    count = agree + len(against)
    if count < LEAST_PAIRS or binomial_above(len(against), count, DENIED) > LEVEL:
        return None
    one, other = against[0]
    return (
        f"{len(against)} of {count} images that the embedding is sure of have another label than their nearest image"
        f" and all around both, such as {paths[one]} ({labels[one]}) beside {paths[other]} ({labels[other]}): are the"
        " labels right?"
    )
