"""Images of the training list that are in another list too: the same file, or nearly the same picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import InputError
from .convert import TRAINING, ImageSet

NEAR = 4  # bits of 64 in which two pictures' hashes may differ
MANY = 128  # hashes that are compared at once with all others
ONES = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
Hashes = NDArray[np.uint64]


def fingerprint(path: Path) -> tuple[str, int] | None:
    """SHA-256 and perceptual hash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010)
    of an image; None when it cannot be read, which whoever uses it will say.
    """
    import imagehash
    from PIL import Image

    try:
        data = path.read_bytes()
        with Image.open(path) as opened:
            opened.draft("L", (128, 128))
            found = imagehash.phash(opened)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    bits = np.packbits(found.hash.reshape(-1)).tobytes()
    return hashlib.sha256(data).hexdigest(), int.from_bytes(bits, "big")


def leak_warnings(root: Path, sets: Sequence[ImageSet], advance: Callable[[int], None]) -> list[str]:
    """A line for each list that shares files or near-duplicates with the training list, with an example.

    advance: called with the number of images that were read. InputError when the library for hashes is missing.
    """
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise InputError(
            "looking for leaks needs ImageHash: pip install 'edgerecall[train]', or --no-leak-check"
        ) from error
    prints: list[list[tuple[str, int] | None]] = []
    with ThreadPoolExecutor(len(usable_cpus())) as pool:
        for one in sets:
            found = []
            for each in pool.map(fingerprint, [root / image.path for image in one.images]):
                found.append(each)
                advance(1)
            prints.append(found)
    train = next(index for index, one in enumerate(sets) if one.name == "train")
    known = {print_[0]: place for place, print_ in enumerate(prints[train]) if print_ is not None}
    warnings = []
    for index, one in enumerate(sets):
        if one.name in TRAINING[:1]:
            continue
        same = [(place, known[p[0]]) for place, p in enumerate(prints[index]) if p is not None and p[0] in known]
        near = near_duplicates(prints[index], prints[train], {place for place, _ in same})
        for pairs, what in ((same, "the same file as"), (near, "nearly the same picture as")):
            if pairs:
                place, other = pairs[0]
                warnings.append(
                    f"{one.name}: {len(pairs)} of {len(one.images)} images are {what} one of the training list, such as"
                    f" {one.images[place].path} and {sets[train].images[other].path}: results will be too good"
                )
    return warnings


def near_duplicates(
    prints: Sequence[tuple[str, int] | None], others: Sequence[tuple[str, int] | None], left_out: set[int]
) -> list[tuple[int, int]]:
    """Pairs of places whose hashes differ by `NEAR` bits at most, one for each of the first; plain pictures, whose hash
    says nothing, apart.
    """
    places = [i for i, one in enumerate(prints) if one is not None and i not in left_out]
    their = [i for i, one in enumerate(others) if one is not None]
    own = np.array([prints[i][1] for i in places], dtype=np.uint64)  # type: ignore[index]
    known = np.array([others[i][1] for i in their], dtype=np.uint64)  # type: ignore[index]
    if not len(own) or not len(known):
        return []
    pairs = []
    for start in range(0, len(own), MANY):
        differing = (own[start : start + MANY, None] ^ known[None]).view(np.uint8)
        distance = ONES[differing].reshape(-1, len(known), 8).sum(axis=2)
        nearest = distance.argmin(axis=1)
        for row in np.flatnonzero(distance[np.arange(len(nearest)), nearest] <= NEAR):
            pairs.append((places[start + int(row)], their[int(nearest[row])]))
    return pairs
