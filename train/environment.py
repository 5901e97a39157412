"""What a run ran on."""

from __future__ import annotations

import platform

import numpy
import paddle
import PIL


def environment() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "python": platform.python_version(),
        "paddlepaddle": paddle.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "machine": platform.machine(),
    }
