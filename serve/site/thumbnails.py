"""Small pictures of a gallery's images."""

from __future__ import annotations

import io
from pathlib import Path

from ...runtimes.preprocess.images import decode_rgb

SIDE = 320  # pixels of a picture's longer side, as it is shown


def thumbnail(path: Path, written: int) -> bytes:
    """An image file, upright, as a small JPEG. written: when, which tells it from one of the same name before."""
    from PIL import Image

    image = Image.fromarray(decode_rgb(path.read_bytes(), "apply", path.name))
    image.thumbnail((SIDE, SIDE))
    found = io.BytesIO()
    image.save(found, "JPEG", quality=85)
    return found.getvalue()
