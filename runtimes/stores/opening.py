"""Galleries by their address: a folder, or a database's URL."""

from __future__ import annotations

from pathlib import Path

from ..bundle.bundle import Bundle
from ..core.errors import InputError
from ..gallery.disk_gallery import DiskGallery
from ..gallery.identity import ModelIdentity
from .interface import Store

SCHEMES = ("postgresql", "postgres", "qdrant", "qdrants", "milvus", "milvuss")
AnyGallery = DiskGallery | Store


def is_url(place: str | Path) -> bool:
    """Whether it names a database."""
    return isinstance(place, str) and "://" in place


def store_at(url: str, dim: int | None = None, model: ModelIdentity | None = None, command: str = "") -> Store:
    """The gallery in a database; with `dim` it is made where there is none.

    InputError for another kind of database, what cannot be reached, and where there is no gallery of that size.
    """
    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        raise InputError(f"gallery: expected a folder or a URL of {', '.join(SCHEMES)}, got {scheme!r:.40}")
    if scheme.startswith("postgres"):
        from .postgres import PostgresStore

        return PostgresStore(url, dim, model, command)
    if scheme.startswith("milvus"):
        from .milvus import MilvusStore

        return MilvusStore(url, dim, model, command)
    from .qdrant import QdrantStore

    return QdrantStore(url, dim, model, command)


def open_gallery(place: str | Path, model: Bundle | ModelIdentity | None = None) -> AnyGallery:
    """A gallery to search, wherever it is. model: that queries come from. InputError for what is none, or another's."""
    if not is_url(place):
        return DiskGallery(place, model=model)
    store = store_at(str(place))
    try:
        if model is not None:
            store.require_model(model)
    except BaseException:
        store.close()
        raise
    return store
