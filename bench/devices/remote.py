"""What measures on another device, whatever kind it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ..schema.group_result import GroupResult
from ..schema.options import BenchOptions, OnProgress
from .browser_bench import BrowserBench
from .device import open_device
from .device_bench import DeviceBench


class RemoteBench(Protocol):
    """A bundle's rows on one device."""

    @property
    def name(self) -> str:
        """Of the device, as rows name it."""

    def prepare(self) -> None:
        """Looks for all that it needs, before anything is measured. InputError, BundleError."""

    def measure(self, images: Sequence[Path], digests: Sequence[str], progress: OnProgress) -> GroupResult:
        """Its rows on the images; a device that fails as a whole is one row with its reason."""


def remote_bench(
    name: str, bundle: Bundle, options: BenchOptions, random: NDArray[np.float32], programs: Sequence[Path], group: int
) -> RemoteBench:
    """By the device's name. InputError for one that is none."""
    if name.startswith("browser"):
        return BrowserBench(name, bundle, options, random, programs, group)
    return DeviceBench(open_device(name), bundle, options, random, programs, group)
