import numpy as np
from numpy.typing import NDArray

class InputError(ValueError): ...
class UnsupportedImage(InputError): ...

def decode_jpeg(encoded: bytes) -> NDArray[np.uint8]:
    """Gray, YCbCr or RGB JPEG bytes -> uint8 (height, width, 3) RGB. Raises InputError, UnsupportedImage."""

def pack_planar(
    image: NDArray[np.uint8], tables: NDArray[np.float32], swap_channels: bool, out: NDArray[np.float32]
) -> None:
    """uint8 (height, width, 3) -> float32 (3, height, width) in `out`, each sample through tables[channel]."""
