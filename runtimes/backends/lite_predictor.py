"""Paddle Lite. Its wheels stop at CPython 3.10 and need numpy 1, so it mostly runs in a sidecar worker."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..core.versions import Package
from ..predictor.backend import Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output

BACKENDS = (
    Backend(
        name="lite",
        predictor=f"{__name__}:LitePredictor",
        title="Paddle Lite",
        package=Package(
            "paddlelite", "paddlelite", "lite", (3, 11), ", or run 'edgerecall doctor --fix lite'", shown=False
        ),
        imports="paddlelite.lite",
        file_format="`.nb`, one per machine",
        sidecar="lite",
        purpose="convert, run",
        order=30,
    ),
)


class LitePredictor(Predictor):
    """files: `model` (`.nb` for this machine's target)."""

    concurrent = False

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            from paddlelite import lite
        except ImportError as error:
            version = ".".join(str(part) for part in sys.version_info[:2])
            raise RuntimeUnavailable(
                f"runtime 'lite' needs paddlelite, which this Python {version} does not have:"
                " run 'edgerecall doctor --fix lite'"
            ) from error
        if int(np.__version__.split(".")[0]) >= 2:
            raise RuntimeUnavailable(
                f"paddlelite answers garbage under numpy {np.__version__}: it needs numpy<2;"
                " run 'edgerecall doctor --fix lite'"
            )
        if options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'lite' on x86 runs fp32 only: ask for fp32")
        config = lite.MobileConfig()
        config.set_model_from_file(files["model"])
        self.io = io
        self._predictor = lite.create_paddle_predictor(config)
        self._input = self._predictor.get_input(0)
        self.info = RuntimeInfo(
            runtime="lite",
            version=self._predictor.get_version(),
            precision="fp32",  # the x86 target holds float32 kernels only
            threads=None,  # the Python API neither sets nor tells it
            detail={"python": sys.version.split()[0], "numpy": np.__version__},
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        self._input.from_numpy(batch)
        self._predictor.run()
        # numpy() is a view of the runtime's own buffer, which the next inference overwrites.
        return checked_output("lite", self._predictor.get_output(0).numpy().copy(), len(batch), self.io)

    def runtime_object(self) -> Any:
        """The `LightPredictor`."""
        return self._predictor
