"""What is run in an environment that has a wheel and nothing else."""

from __future__ import annotations

import subprocess

SAME_PIXELS = """
import sys
import numpy
from edgerecall import Bundle, Gallery
from edgerecall.runtimes.preprocess.pipeline import preprocess_file
bundle = Bundle.open(sys.argv[1])
images, tensors, _ = bundle.golden()
for image, tensor in zip(images, tensors):
    assert (preprocess_file(image, bundle.spec.preprocess) == tensor).all(), image
gallery = Gallery(8, "float32")
gallery.add(numpy.eye(8, dtype=numpy.float32))
assert gallery.search(numpy.eye(8, dtype=numpy.float32), 1, 1)[0][:, 0].tolist() == list(range(8))
import platform
print(platform.machine(), len(images), "images, bit for bit")
"""


def run(*command: object) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd="/")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
