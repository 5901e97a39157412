"""Which model a gallery's embeddings come from, so that no query of another one is answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import Sha256
from ..bundle.spec import Spec
from ..core.config import Frozen
from ..core.errors import InputError
from ..preprocess.comparison import preprocess_difference

SAME_MODEL = 0.999  # lowest cosine of two golden embeddings of one image, by one model on two machines


class ModelIdentity(Frozen):
    """spec: input, output and preprocessing. golden_images: their SHA-256. golden: the embeddings that the bundle has
    sealed of them, `(n, D)`; empty for a plain model. source: SHA-256 of the files that the model came in. signs: how
    embeddings became signs, None where they are as the model gives them.
    """

    spec: Spec
    golden_images: tuple[Sha256, ...] = ()
    golden: tuple[tuple[float, ...], ...] = ()
    source: tuple[Sha256, ...] = ()
    signs: str | None = None

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The golden ones, float32 `(n, D)`."""
        return np.asarray(self.golden, np.float32)


def identity_of(bundle: Bundle) -> ModelIdentity:
    """Of a bundle's model, whatever artifact runs it."""
    _, _, embeddings = bundle.golden()
    hashes = {file.path: file.sha256 for file in bundle.manifest.golden}
    return ModelIdentity(
        spec=bundle.spec,
        golden_images=tuple(hashes[name] for name in bundle.manifest.golden_images),
        golden=tuple(tuple(float(str(value)) for value in row) for row in embeddings),  # no more digits than it has
        source=tuple(str(bundle.manifest.source[key]) for key in sorted(bundle.manifest.source) if "sha256" in key),
    )


def require_same(where: object, ours: ModelIdentity | None, model: Bundle | ModelIdentity) -> None:
    """InputError unless a gallery's embeddings come from this model, or were brought without one (`ours` is None)."""
    theirs = identity_of(model) if isinstance(model, Bundle) else model
    if ours is not None and (why := difference(ours, theirs)):
        raise InputError(f"{where}: {why}; query by the model that it was built with, or build it anew")


def difference(gallery: ModelIdentity, query: ModelIdentity) -> str | None:
    """Why a query by one model has no answer in a gallery of another; None where they are one.

    A bundle that was exported again on another machine, or has got other artifacts since, is the same model.
    """
    ours, theirs = gallery.spec, query.spec
    if ours.embedding_dim != theirs.embedding_dim:
        return f"its embeddings have {ours.embedding_dim} numbers, the model's {theirs.embedding_dim}"
    if found := preprocess_difference(ours.preprocess, theirs.preprocess):
        return f"its images were preprocessed otherwise ({found})"
    if ours.normalize_embedding != theirs.normalize_embedding:
        return f"its embeddings are {'' if ours.normalize_embedding else 'not '}normalised"
    if gallery.signs != query.signs:
        return f"its embeddings are {gallery.signs or 'not signs'}, the query's {query.signs or 'not signs'}"
    if not gallery.golden or gallery.golden_images != query.golden_images:
        if gallery.source and gallery.source == query.source:
            return None
        return "another model: made from other files, and it has no golden images in common"
    a, b = gallery.embeddings.astype(np.float64), query.embeddings.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    lowest = float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-30)).min())
    if lowest < SAME_MODEL:
        return f"another model: cosine of the golden embeddings down to {lowest:.4f}"
    return None
