"""EdgeRecall: train an image-retrieval embedding, ship it to every edge runtime, prove that recall held."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtimes._native import Gallery
    from .runtimes.bundle import Bundle
    from .runtimes.errors import (
        BundleError,
        EdgeRecallError,
        ImageError,
        InputError,
        ParityError,
        RuntimeFailed,
        RuntimeUnavailable,
    )
    from .runtimes.model import EmbeddingModel, load
    from .runtimes.predictor import Predictor, RunOptions
    from .runtimes.spec import Spec

    __version__: str

_HOMES = {
    "Bundle": "bundle",
    "EmbeddingModel": "model",
    "Gallery": "_native",
    "load": "model",
    "Predictor": "predictor",
    "RunOptions": "predictor",
    "Spec": "spec",
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
        "errors",
    ),
}
__all__ = [
    "Bundle",
    "BundleError",
    "EdgeRecallError",
    "EmbeddingModel",
    "Gallery",
    "ImageError",
    "InputError",
    "ParityError",
    "Predictor",
    "RunOptions",
    "RuntimeFailed",
    "RuntimeUnavailable",
    "Spec",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("edgerecall")
    if name in _HOMES:
        return getattr(importlib.import_module(f".runtimes.{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module 'edgerecall' has no attribute '{name}'")
