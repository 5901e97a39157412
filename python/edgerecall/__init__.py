"""EdgeRecall: train an image-retrieval embedding, ship it to every edge runtime, prove that recall held."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtimes.approximate.compressed import CompressedGallery
    from .runtimes.bundle.bundle import Bundle
    from .runtimes.bundle.spec import Spec
    from .runtimes.core.errors import (
        BundleError,
        EdgeRecallError,
        ImageError,
        InputError,
        ParityError,
        RuntimeFailed,
        RuntimeUnavailable,
    )
    from .runtimes.embed.model import EmbeddingModel, load
    from .runtimes.gallery.disk_gallery import DiskGallery
    from .runtimes.gallery.gallery import Gallery
    from .runtimes.gallery.snapshot import Match
    from .runtimes.predictor.interface import Predictor, RunOptions
    from .runtimes.stores.interface import Store
    from .runtimes.stores.opening import open_gallery

    __version__: str

# ONNX Runtime 1.29 and newer tell Microsoft of each process and model, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "bundle.bundle",
    "CompressedGallery": "approximate.compressed",
    "DiskGallery": "gallery.disk_gallery",
    "EmbeddingModel": "embed.model",
    "Gallery": "gallery.gallery",
    "load": "embed.model",
    "open_gallery": "stores.opening",
    "Store": "stores.interface",
    "Match": "gallery.snapshot",
    "Predictor": "predictor.interface",
    "RunOptions": "predictor.interface",
    "Spec": "bundle.spec",
    **dict.fromkeys(
        (
            "BundleError",
            "EdgeRecallError",
            "ImageError",
            "InputError",
            "ParityError",
            "RuntimeFailed",
            "RuntimeUnavailable",
        ),
        "core.errors",
    ),
}
__all__ = [
    "Bundle",
    "BundleError",
    "CompressedGallery",
    "DiskGallery",
    "EdgeRecallError",
    "EmbeddingModel",
    "Gallery",
    "ImageError",
    "InputError",
    "Match",
    "ParityError",
    "Predictor",
    "RunOptions",
    "RuntimeFailed",
    "RuntimeUnavailable",
    "Spec",
    "Store",
    "__version__",
    "load",
    "open_gallery",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("edgerecall")
    if name in _HOMES:
        return getattr(importlib.import_module(f".runtimes.{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'edgerecall' has no attribute '{name}'")
