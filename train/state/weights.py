"""Pretrained weights: a local file, or a URL fetched by Paddle's own downloader."""

from __future__ import annotations

from pathlib import Path

from ...runtimes.core.errors import InputError


def weights_file(source: str) -> Path:
    """The local path of a `.pdparams` file or URL. InputError with what to do when it cannot be had."""
    if not source.startswith(("http://", "https://")):
        return Path(source)
    from paddle.utils.download import get_weights_path_from_url

    try:
        return Path(get_weights_path_from_url(source))
    except Exception as error:  # the downloader raises RuntimeError and whatever its HTTP library does
        raise InputError(
            f"cannot download {source}: download it elsewhere and use '-o Arch.Backbone.pretrained=FILE',"
            " or '-o Arch.Backbone.pretrained=False' to start from random weights"
        ) from error
