"""Whether a model's numbers can be those of a trained network at all: finite, and not the same for every image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UnsoundModel

COLLAPSED = 1e-6  # 1 - cosine of the first embedding and the one least like it, up to which all are one


def require_finite(tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """UnsoundModel naming the first tensor, by name, that holds NaN or infinity."""
    for name in sorted(tensors):
        values = tensors[name]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            wrong = np.argwhere(~np.isfinite(values))
            place = f"[{', '.join(map(str, wrong[0]))}]" if values.ndim else ""
            raise UnsoundModel(
                f"{where}: '{name}' holds NaN or infinity: {len(wrong)} of {values.size} values, first {name}{place} ="
                f" {values[tuple(wrong[0])]}"
            )


def embedding_problem(embeddings: NDArray[np.float32], tensors: NDArray[np.float32] | None = None) -> str | None:
    """One line when embeddings `(n, D)`, normalised or not, are not finite, zero, or one and the same for inputs that
    differ. tensors: the inputs; without them all count as different.
    """
    if not np.isfinite(embeddings).all():
        row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
        return f"the embedding of image {row} holds NaN or infinity"
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    if not lengths.all():
        return f"the embedding of image {int(np.flatnonzero(lengths == 0)[0])} is zero"
    distinct = len(embeddings)
    if tensors is not None:
        distinct = len({tensor.tobytes() for tensor in tensors})
    if distinct < 2:
        return None
    rows = embeddings / lengths[:, None]
    least = float((rows @ rows[0]).min())
    if 1 - least > COLLAPSED:
        return None
    return f"{distinct} different images have one and the same embedding (lowest cosine {least:.8f})"
