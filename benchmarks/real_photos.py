"""What training and each loss give on real photographs: EfficientNet-Lite0 from ImageNet weights on grocery products.

    python benchmarks/real_photos.py GROCERY [--validate] [--only NAME,...] [--seeds N]

GROCERY: a clone of GroceryStoreDataset's `dataset` folder. 41 of its 81 classes are trained on; the test is on the
others. With --validate 14 of the 41 are left out of training and stand in for the test: settings are chosen there.
Trainings are kept in `build/real_photos` and not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from environment import print_machine

from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.bench.schema.statistics import clustered_interval
from edgerecall.runtimes.core.image_list import ImageList, read_image_list
from edgerecall.train.data.convert import convert
from edgerecall.train.data.layouts import Split

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "real_photos"
SEED, TRAIN_CLASSES, VAL_CLASSES = 7, 41, 14
SIDE, FEATURES = 128, 1280
NORMALIZE = {"NormalizeImage": {"scale": 1 / 255, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}}
XBM = {"xbm_size": 1024, "start_iter": 50}
PAIRS = {"name": "DistributedRandomIdentitySampler", "batch_size": 32, "num_instances": 4}
ARC = {"margin": 0.3, "scale": 30}
CONTRASTIVE = {"margin": 0.5}
METHODS: dict[str, dict[str, Any]] = {
    "no training": {},
    "contrastive": {"losses": [{"ContrastiveLoss": CONTRASTIVE}]},
    "contrastive + XBM": {"losses": [{"ContrastiveLoss_XBM": {**CONTRASTIVE, **XBM}}]},
    "ArcFace": {"losses": [{"CELoss": {}}], "arc": ARC},
    "ArcFace + XBM": {"losses": [{"CELoss": {}}, {"ContrastiveLoss_XBM": {**CONTRASTIVE, **XBM}}], "arc": ARC},
}


def config(lists: Path, data: Path, out: Path, method: dict[str, Any], classes: int, seed: int, steps: int) -> Any:
    """A training config as plain data."""
    arch: dict[str, Any] = {
        "name": "RecModel",
        "Backbone": {"name": "EfficientNetLite0", "pretrained": True},
    }
    if "neck" in method:
        arch["Neck"] = method["neck"]
    if "arc" in method:
        arch["Head"] = {"name": "ArcMargin", "embedding_size": FEATURES, "class_num": classes, **method["arc"]}
    crop = {"RandomResizedCrop": {"size": SIDE, "scale": [0.5, 1.0], "interpolation": "bilinear"}}
    sets = {"image_root": str(data), "backend": "pil"}
    test = [{"ResizeImage": {"resize_short": SIDE * 8 // 7, "interpolation": "bicubic", "backend": "pil"}}]
    plain: dict[str, Any] = {
        "Global": {
            "output_dir": str(out),
            "device": "cpu",
            "epochs": 1,
            "iter_per_epoch": steps,
            "print_batch_step": 50,
            "eval_during_train": False,
            "drift_interval": 0,
            "image_shape": [3, SIDE, SIDE],
            "seed": seed,
        },
        "Arch": arch,
        "Loss": {"Train": method["losses"]},
        "Optimizer": {
            "name": "Adam",
            "lr": {"name": "Cosine", "learning_rate": method["rate"]},
            "regularizer": {"name": "L2", "coeff": 1e-4},
        },
        "DataLoader": {
            "Train": {
                "dataset": {
                    **sets,
                    "cls_label_path": str(lists / "train_list.txt"),
                    "transform_ops": [crop, {"RandomHorizontalFlip": {}}, NORMALIZE, {"ToCHWImage": None}],
                },
                "sampler": PAIRS,
                "loader": {"num_workers": 1},
            },
            "Eval": {
                "Gallery": {
                    "dataset": {
                        **sets,
                        "cls_label_path": str(lists / "test_list.txt"),
                        "transform_ops": [*test, {"CropImage": {"size": SIDE}}, NORMALIZE, {"ToCHWImage": None}],
                    }
                }
            },
        },
    }
    if "average" in method:
        plain["EMA"] = {"decay": method["average"]}
    return plain


def embeddings(file: Path, checkpoint: Path | None, lists: list[ImageList]) -> list[np.ndarray]:
    """L2-normalised embeddings of each list's images, by a checkpoint or by the ImageNet weights alone."""
    from edgerecall.train.config.training import load_config
    from edgerecall.train.encoder import encoder
    from edgerecall.train.evaluate import encode, eval_preprocess
    from edgerecall.train.setup import build_network

    read = load_config(
        file, [] if checkpoint else ["Arch.Neck=null", "Arch.Head=null", "Loss.Train=[{SupConLoss: {}}]"]
    )
    network = build_network(read, checkpoint)
    gallery = read.DataLoader.Eval.Gallery
    with encoder(read, network.state_dict()) as run:
        return [encode(run, images, eval_preprocess(read), gallery)[0] for images in lists]


def scores(photos: np.ndarray, images: ImageList, catalogue: np.ndarray | None, pictures: ImageList | None) -> Any:
    """The figures of one training."""
    own = retrieval_scores(photos, images.labels)
    found = {"recall@1": own.recall[1], "mAP": own.mean_ap, "mAP@R": own.map_at_r}
    if catalogue is not None and pictures is not None:
        hard = retrieval_scores(photos, images.labels, catalogue, pictures.labels, ks=(1,))
        interval = clustered_interval(hard.hits.astype(np.float64), images.labels[hard.first_rank > 0])
        found |= {"catalogue": interval.value, "low": interval.low or 0.0, "high": interval.high or 1.0}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print_machine()
    home = OUT / ("validate" if options.validate else "test")
    split = Split(TRAIN_CLASSES, VAL_CLASSES if options.validate else 0, SEED)
    sets = {one.name: one for one in convert(options.data, "grocery", split, home)}
    judged = "val" if options.validate else "test"
    images = read_image_list(home / f"{judged}_list.txt", options.data)
    pictures = None if options.validate else read_image_list(home / "catalogue_list.txt", options.data)
    rows: dict[str, list[Any]] = {}
    for name in options.only.split(","):
        method = METHODS[name]
        for seed in range(1, (options.seeds if method else 1) + 1):
            folder = home / f"{name.replace(' ', '_')}-{seed}-{options.steps}"
            result = folder / "scores.json"
            folder.mkdir(parents=True, exist_ok=True)
            file = folder / "train.yaml"
            arguments = (home, options.data, folder, method or METHODS["contrastive"])
            plain = config(*arguments, len(sets["train"].classes), seed, options.steps)
            text = yaml.safe_dump(plain)
            if not result.is_file() or file.read_text() != text:
                file.write_text(text)
                begin = time.monotonic()
                if method:
                    command = [sys.executable, "-m", "edgerecall", "train", "-c", str(file)]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                minutes = (time.monotonic() - begin) / 60
                checkpoint = folder / "latest" if method else None
                found = embeddings(file, checkpoint, [images] if pictures is None else [images, pictures])
                rest = [None] if pictures is None else [found[1]]
                told = {**scores(found[0], images, rest[0], pictures), "minutes": minutes}
                result.write_text(json.dumps(told))
            rows.setdefault(name, []).append(json.loads(result.read_text()))
            shown = ", ".join(f"{key} {value:.4f}" for key, value in rows[name][-1].items())
            print(f"{name}, seed {seed}: {shown}", flush=True)
    print("\n| | " + " | ".join(key for key in next(iter(rows.values()))[0]) + " |")
    for name, found in rows.items():
        cells = []
        for key in found[0]:
            values = [one[key] for one in found]
            cells.append(f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
