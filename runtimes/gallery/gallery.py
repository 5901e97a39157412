"""`edgerecall.Gallery`: in memory, or by `open` and `create` on disk."""

from __future__ import annotations

from pathlib import Path

from .. import _native
from ..bundle.bundle import Bundle
from .disk_gallery import DiskGallery
from .identity import identity_of
from .manifest import Storage


class Gallery(_native.Gallery):
    """Embeddings in memory, searched exactly: `Gallery(dim, storage)`, `add(rows)`, `search(queries, k, threads)`.

    `Gallery.create` and `Gallery.open` give one in a folder, with ids, labels and metadata: a `DiskGallery`.
    """

    @staticmethod
    def open(root: str | Path, writable: bool = False, model: Bundle | None = None) -> DiskGallery:
        """The gallery in a folder. writable: to be changed by this process, and no other meanwhile. model: the bundle
        that queries and new rows will come from.

        InputError for what is no gallery, is damaged, is being written already, or holds another model's embeddings.
        """
        return DiskGallery(root, writable, model)

    @staticmethod
    def create(root: str | Path, model: Bundle | int, storage: Storage = "float32", command: str = "") -> DiskGallery:
        """A new one in a folder that holds nothing, writable.

        model: the bundle whose embeddings it will hold, by which queries of any other are refused; or, for embeddings
        from elsewhere, how many numbers one has. storage: float32, float16, int8, whose best rows are ranked by
        what its codes leave of each number, kept beside them in 16 bits, or binary, the signs alone.
        """
        if isinstance(model, Bundle):
            return DiskGallery.create(root, model.spec.embedding_dim, storage, identity_of(model), command)
        return DiskGallery.create(root, model, storage, None, command)
