"""A 300 x 400 JPEG to the float32 tensor of a 224 x 224 crop: this core beside Pillow with numpy, and Paddle's ops.

All contenders take turns in one run; figures are medians over the rounds, and ratios of medians.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
from PIL import Image
from support.environment import machine_line, print_machine
from support.models import photo

from edgerecall.runtimes import _native
from edgerecall.runtimes.preprocess.ops import CenterCrop, Decode, Normalize, Preprocess, ResizeShort
from edgerecall.runtimes.preprocess.pipeline import plan, preprocess_batch

LIMIT = 10**8
BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def spec(backend: Any) -> Preprocess:
    """What the reference's XBM configuration evaluates with."""
    return Preprocess(
        ops=(
            Decode(),
            ResizeShort(size=256, backend=backend, rounding="truncate"),
            CenterCrop(height=224, width=224, margin="round"),
            Normalize(mean=MEAN, std=STD),
        )
    )


def pillow_and_numpy(image: Image.Image) -> Callable[[], Any]:
    """Resize, crop and normalise a decoded image as one writes it by hand, without needless copies."""
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (MEAN, STD))

    def run() -> Any:
        crop = image.resize((256, 341), Image.Resampling.BILINEAR).crop((16, 58, 240, 282))
        tensor = np.ascontiguousarray(np.asarray(crop).transpose(2, 0, 1)).astype(np.float32)
        tensor *= np.float32(1 / 255)
        tensor -= mean
        tensor /= std
        return tensor

    return run


def paddle_transforms(image: Image.Image) -> Callable[[], Any] | None:
    """The operations that the reference trains and evaluates with; None where Paddle is not installed."""
    try:
        from paddle.vision import transforms as T
    except ImportError:
        return None
    steps = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(mean=list(MEAN), std=list(STD))])
    return lambda: steps(image)


def main() -> None:
    """Measures and prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print_machine()
    data = photo()
    image = Image.open(io.BytesIO(data)).convert("RGB")
    pixels = _native.decode(data, False, LIMIT)
    one = np.empty((3, 224, 224), np.float32)
    slot, batch = one[None], np.empty((BATCH, 3, 224, 224), np.float32)
    pil, cv2 = spec("pil"), spec("cv2")
    contenders: dict[str, Callable[[], Any] | None] = {
        "decode": lambda: _native.decode(data, False, LIMIT),
        "decode, Pillow": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
        "transform (pil)": lambda: plan(pil).run(pixels, one, LIMIT),
        "transform (cv2)": lambda: plan(cv2).run(pixels, one, LIMIT),
        "transform, Pillow + numpy": pillow_and_numpy(image),
        "transform, Paddle's training ops": paddle_transforms(image),
        "decode + transform (pil)": lambda: preprocess_batch([data], pil, slot),
        f"{BATCH} images, 1 thread": lambda: preprocess_batch([data] * BATCH, pil, batch, threads=1),
        f"{BATCH} images, 2 threads": lambda: preprocess_batch([data] * BATCH, pil, batch, threads=2),
    }
    active = {name: run for name, run in contenders.items() if run is not None}
    seconds: dict[str, list[float]] = {name: [] for name in active}
    for round_ in range(options.rounds + 5):
        for name, run in active.items():
            began = time.perf_counter()
            run()
            if round_ >= 5:
                seconds[name].append(time.perf_counter() - began)
    ms = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    ours = ms["transform (pil)"]
    ratios = {
        "transform: times faster than Pillow + numpy (target: 2.5)": ms["transform, Pillow + numpy"] / ours,
        "transform: times faster than Paddle's training ops (target: 5)": ms.get("transform, Paddle's training ops", 0)
        / ours,
        "decode + transform over decode (target: at most 1.9)": ms["decode + transform (pil)"] / ms["decode"],
        "two threads over one (target: 1.8)": ms[f"{BATCH} images, 1 thread"] / ms[f"{BATCH} images, 2 threads"],
    }
    machine = {
        "cpu": machine_line(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "jpeg_bytes": len(data),
        "rounds": options.rounds,
    }
    if options.json:
        print(json.dumps({"machine": machine, "median_ms": ms, "ratios": ratios}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in machine.items() if name != "cpu"))
    for name, value in ms.items():
        print(f"{name:36} {value:8.3f} ms")
    for name, value in ratios.items():
        print(f"{name:64} {value:6.2f}")


if __name__ == "__main__":
    main()
