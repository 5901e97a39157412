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
from .convert import ImageSet

NEAR = 4  # bits in which two pictures' hashes may differ
BITS, AT_ONCE = 64, 512  # of a hash; hashes that are compared with all others in one piece


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


def require_hashes() -> None:
    """InputError when the library for perceptual hashes is missing."""
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise InputError(
            "looking for leaks needs ImageHash: pip install 'edgerecall[train]', or use --no-leak-check"
        ) from error


def leak_warnings(root: Path, sets: Sequence[ImageSet], advance: Callable[[int], None]) -> list[str]:
    """A line for each list that shares files or near-duplicates with the training list, with an example.

    advance: called with the number of images that were read.
    """
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
        if index == train:
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
    """Pairs of places whose hashes differ by `NEAR` bits at most, one for each of the first. Plain pictures, of whose
    hash one bit is set at most, are alike all of them and left out.
    """
    places = [i for i, one in enumerate(prints) if one is not None and i not in left_out and tells(one[1])]
    their = [i for i, one in enumerate(others) if one is not None and tells(one[1])]
    if not places or not their:
        return []
    own, known = signs(prints, places), signs(others, their)
    pairs = []
    for start in range(0, len(own), AT_ONCE):
        agreeing = own[start : start + AT_ONCE] @ known.T  # 64 less twice the bits that differ
        nearest = agreeing.argmax(axis=1)
        for row in np.flatnonzero(agreeing[np.arange(len(nearest)), nearest] >= BITS - 2 * NEAR):
            pairs.append((places[start + int(row)], their[int(nearest[row])]))
    return pairs


def tells(value: int) -> bool:
    """Whether a hash is of a picture with something in it."""
    return value.bit_count() > 1


def signs(prints: Sequence[tuple[str, int] | None], places: Sequence[int]) -> NDArray[np.float32]:
    """The hashes' bits as 1 and -1, float32 `(n, 64)`, whose inner products count those that agree."""
    values = np.array([one[1] for i in places if (one := prints[i]) is not None], dtype=">u8")
    return np.unpackbits(values.view(np.uint8)).reshape(len(values), BITS).astype(np.float32) * 2 - 1
