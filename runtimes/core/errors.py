"""The one error tree. A message says what was expected, what came, and what to do.

EdgeRecallError          exit code 2 unless a subclass says otherwise
├── InputError           a file, image, list, config, checkpoint or option from outside is not as it must be
│   └── ImageError       one image cannot be used; folder-wide work reports it and goes on
│       └── UnsupportedImage   it is neither JPEG nor PNG, which is all that the C++ core decodes
├── BundleError          a bundle is incomplete, changed, or of a newer format
├── RuntimeUnavailable   the runtime is not installed or cannot do what was asked here
├── RuntimeFailed        the runtime was there but crashed, hung or answered nonsense     (exit code 1)
├── UnsoundModel         weights or embeddings are NaN, infinite, or the same for all     (exit code 1)
└── ParityError          an artifact's output is not the reference's                      (exit code 1)
"""

from __future__ import annotations


class EdgeRecallError(Exception):
    """Base of every error that EdgeRecall raises on purpose."""

    exit_code = 2


class InputError(EdgeRecallError):
    """Something that came from outside is not as it must be."""


class ImageError(InputError):
    """One image cannot be decoded or preprocessed."""


class UnsupportedImage(ImageError):
    """An image in a format that the C++ core does not decode; Pillow may."""


class BundleError(EdgeRecallError):
    """A bundle is incomplete, changed after export, or of an unknown format."""


class RuntimeUnavailable(EdgeRecallError):
    """A runtime is not installed, or cannot do what was asked on this machine."""


class RuntimeFailed(EdgeRecallError):
    """A runtime crashed, hung, or returned something that is no embedding."""

    exit_code = 1


class UnsoundModel(EdgeRecallError):
    """A model's weights or embeddings cannot be those of a trained network."""

    exit_code = 1


class ParityError(EdgeRecallError):
    """An artifact's output differs from the reference by more than its tolerance."""

    exit_code = 1
