"""What training and each loss give on real photographs: EfficientNet-Lite0 from ImageNet weights on grocery products.

    python benchmarks/real_photos.py GROCERY [--validate] [--only NAME,...] [--seeds N]

GROCERY: a clone of GroceryStoreDataset's `dataset` folder. 41 of its 81 classes are trained on; the test is on
photographs of the others, among themselves and against the shop's catalogue pictures. With --validate 14 of the 41 are
left out of training and stand in for the test: settings are chosen there. Two trainings run at a time, one thread each.
What is done lies in `build/real_photos` and is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from support.environment import print_machine

from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.bench.schema.statistics import clustered_interval
from edgerecall.runtimes.core.config import read_yaml
from edgerecall.runtimes.preprocess.image_list import ImageList, read_image_list
from edgerecall.train.data.convert import convert
from edgerecall.train.data.layouts import Split

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "real_photos"
CONFIG = ROOT / "configs" / "photos.yaml"
SEED, TRAIN_CLASSES, VAL_CLASSES = 7, 41, 14
FEATURES = 1280
Plain = dict[str, Any]
Change = Callable[[dict[str, Any], int], None]  # of a config, for so many classes


def batch_only(config: Plain, classes: int) -> None:
    """The contrastive loss without the memory."""
    options = {"margin": config["Loss"]["Train"][0]["ContrastiveLoss_XBM"]["margin"]}
    config["Loss"]["Train"] = [{"ContrastiveLoss": options}]


def arcface(config: Plain, classes: int) -> None:
    """A class head alone, which learns ten times as fast as the network."""
    config["Loss"]["Train"] = [{"CELoss": {}}]
    head_learns(config, classes)


def arcface_too(config: Plain, classes: int) -> None:
    """A class head beside the contrastive loss with its memory."""
    config["Loss"]["Train"].append({"CELoss": {}})
    head_learns(config, classes)


def head_learns(config: Plain, classes: int) -> None:
    """ArcFace's head, and an optimizer for it."""
    head = {"name": "ArcMargin", "embedding_size": FEATURES, "class_num": classes, "margin": 0.3, "scale": 30}
    config["Arch"]["Head"] = head
    of_network = {key: value for key, value in config["Optimizer"].items() if key != "name"}
    of_head = {"scope": "head", "lr": {"name": "Cosine", "learning_rate": 1e-3}}
    config["Optimizer"] = [{"Adam": {"scope": "backbone", **of_network}}, {"Adam": of_head}]


def as_it_is(config: Plain, classes: int) -> None:
    """The config's own way."""


METHODS: dict[str, Change | None] = {
    "no training": None,
    "contrastive": batch_only,
    "contrastive + XBM": as_it_is,
    "ArcFace": arcface,
    "ArcFace + XBM": arcface_too,
}


def config(home: Path, data: Path, out: Path, change: Change, classes: int, seed: int) -> Plain:
    """`configs/photos.yaml` for one training."""
    plain: Plain = read_yaml(CONFIG)
    loader = plain["DataLoader"]
    for part, name in ((loader["Train"], "train"), (loader["Eval"]["Gallery"], "test")):
        part["dataset"] |= {"image_root": str(data), "cls_label_path": str(home / f"{name}_list.txt")}
    plain["Global"] |= {"output_dir": str(out), "seed": seed}
    change(plain, classes)
    return plain


def train(file: Path, folder: Path) -> float:
    """One training; the minutes it took."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "edgerecall", "train", "-c", str(file)]
    with (folder / "output.txt").open("w") as output:
        subprocess.run(
            command, check=True, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=folder
        )
    return (time.monotonic() - begin) / 60


def embeddings(file: Path, checkpoint: Path | None, lists: list[ImageList]) -> list[np.ndarray]:
    """L2-normalised embeddings of each list's images, by a checkpoint or by the ImageNet weights alone."""
    from edgerecall.train.config.training import load_config
    from edgerecall.train.encoder import encoder
    from edgerecall.train.evaluate import encode, eval_preprocess
    from edgerecall.train.setup import build_network

    read = load_config(file)
    network = build_network(read, checkpoint)
    gallery = read.DataLoader.Eval.Gallery
    with encoder(read, network.state_dict()) as run:
        return [encode(run, images, eval_preprocess(read), gallery)[0] for images in lists]


def scores(photos: np.ndarray, images: ImageList, catalogue: np.ndarray | None, pictures: ImageList | None) -> Plain:
    """The figures of one training."""
    own = retrieval_scores(photos, images.labels)
    found = {"recall@1": own.recall[1], "mAP": own.mean_ap, "mAP@R": own.map_at_r}
    if catalogue is not None and pictures is not None:
        hard = retrieval_scores(photos, images.labels, catalogue, pictures.labels, ks=(1,))
        interval = clustered_interval(hard.hits.astype(np.float64), images.labels[hard.first_rank > 0])
        found |= {"catalogue": interval.value, "low": interval.low or 0.0, "high": interval.high or 1.0}
    return found


def row(name: str, found: list[Plain]) -> str:
    """A method's line of the table: mean (lowest to highest) over the seeds; against the catalogue each seed's with its
    interval.
    """
    cells = []
    for key in ("recall@1", "mAP", "mAP@R"):
        values = [one[key] for one in found]
        spread = f" ({min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{spread}")
    if "catalogue" in found[0]:
        cells.append(", ".join(f"{one['catalogue']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in found))
    minutes = np.mean([one["minutes"] for one in found])
    return f"| {name} | " + " | ".join(cells) + f" | {minutes:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print_machine()
    home, data = OUT / ("validate" if options.validate else "test"), options.data.resolve()
    split = Split(TRAIN_CLASSES, VAL_CLASSES if options.validate else 0, SEED)
    sets = {one.name: one for one in convert(data, "grocery", split, home)}
    images = read_image_list(home / f"{'val' if options.validate else 'test'}_list.txt", data)
    pictures = None if options.validate else read_image_list(home / "catalogue_list.txt", data)
    one_at_a_time = threading.Lock()

    def run(name: str, seed: int) -> Plain:
        change = METHODS[name]
        folder = home / f"{name.replace(' ', '_')}-{seed}"
        file, result = folder / "train.yaml", folder / "scores.json"
        text = yaml.safe_dump(config(home, data, folder, change or as_it_is, len(sets["train"].classes), seed))
        if not result.is_file() or file.read_text() != text:
            folder.mkdir(parents=True, exist_ok=True)
            result.unlink(missing_ok=True)  # else it would pass for the new settings' after a Ctrl-C
            file.write_text(text)
            minutes = train(file, folder) if change else 0.0
            with one_at_a_time:
                found = embeddings(
                    file, folder / "latest" if change else None, [images, *([pictures] if pictures else [])]
                )
            told = scores(found[0], images, found[1] if pictures else None, pictures)
            result.write_text(json.dumps({**told, "minutes": minutes}))
        told = json.loads(result.read_text())
        print(f"{name}, seed {seed}: {', '.join(f'{key} {value:.4f}' for key, value in told.items())}", flush=True)
        return dict(told)

    jobs = [
        (name, seed)
        for name in options.only.split(",")
        for seed in range(1, (options.seeds if METHODS[name] else 1) + 1)
    ]
    with ThreadPoolExecutor(2) as pool:
        done = list(zip(jobs, pool.map(lambda job: run(*job), jobs), strict=True))
    catalogue = "" if options.validate else " photograph to catalogue, recall@1 (95 %) |"
    print(
        f"\n| | recall@1 | mAP | mAP@R |{catalogue} minutes |\n|---|---:|---:|---:|{'---:|' if catalogue else ''}---:|"
    )
    for name in options.only.split(","):
        print(row(name, [told for (of, _), told in done if of == name]))


if __name__ == "__main__":
    main()
