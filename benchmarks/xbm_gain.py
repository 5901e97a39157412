"""What cross-batch memory gains on the generated set: the same network, seeds, steps and batch, with and without it.

XBM wants embeddings that drift slowly (the reference starts from ImageNet weights), so a network is first trained on a
generated set of other products, by the batch alone. From there every contender takes the same number of steps on new
products: the batch-only loss at several margins, and the loss with memories of several sizes. Seeds change the order
of the images, the augmentation and the dropout. recall@1 and mAP are on classes that neither training saw, at the last
step.

About an hour on two cores. Finished runs are kept in --folder and not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from support.environment import print_machine

from edgerecall.train.data.synth import SynthOptions, synthesise

ROOT = Path(__file__).resolve().parent.parent
SIDE, DIM, BATCH, STEPS, START = 64, 64, 16, 1200, 100
PRETRAIN = SynthOptions(400, 60, 8, size=96, seed=100)
PRODUCTS = SynthOptions(2000, 500, 5, size=80, seed=3)
SEEDS = (0, 1, 2)


def contenders() -> dict[str, dict[str, Any]]:
    """Name -> the config's loss entry."""

    def batch_only(margin: float) -> tuple[str, dict[str, Any]]:
        return f"batch only, margin {margin}", {"ContrastiveLoss": {"embedding_size": DIM, "margin": margin}}

    def memory(ratio: float, margin: float) -> tuple[str, dict[str, Any]]:
        options = {"embedding_size": DIM, "margin": margin, "xbm_ratio": ratio, "start_iter": START}
        return f"memory {ratio:.0%}, margin {margin}", {"ContrastiveLoss_XBM": options}

    margins = [batch_only(margin) for margin in (0.9, 0.8, 0.5)]
    return dict([*margins, *(memory(ratio, 0.9) for ratio in (0.5, 0.2, 0.05))])


def config(data: Path, output: Path, loss: dict[str, Any], steps: int, batch: int, lr: float, seed: int) -> Any:
    """The training config as plain data."""
    normalize = {"Normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    crop = {"RandomResizedCrop": {"size": SIDE, "scale": [0.5, 1.0]}}
    random_ops = [crop, {"RandomHorizontalFlip": {"prob": 0.5}}, {"ToTensor": None}, normalize]
    fixed_ops = [{"Resize": {"size": 72}}, {"CenterCrop": {"size": SIDE}}, {"ToTensor": None}, normalize]

    def listing(name: str, ops: list[Any]) -> dict[str, Any]:
        lists = {"image_root": str(data), "cls_label_path": str(data / name)}
        return {**lists, "backend": "pil", "transform_ops": ops}

    sampler = {"name": "DistributedRandomIdentitySampler", "batch_size": batch, "num_instances": 4}
    training = {"dataset": listing("train_list.txt", random_ops), "sampler": sampler, "loader": {"num_workers": 0}}
    return {
        "Global": {
            "output_dir": str(output), "device": "cpu", "epochs": 1, "iter_per_epoch": steps, "seed": seed,
            "image_shape": [3, SIDE, SIDE], "drift_interval": 100,
        },
        "Arch": {
            "name": "RecModel",
            "Backbone": {"name": "MobileNetV3_small_x0_5"},
            "Neck": {"name": "FC", "embedding_size": 1280, "class_num": DIM},
        },
        "Loss": {"Train": [loss]},
        "Optimizer": {
            "name": "Adam", "lr": {"name": "Cosine", "learning_rate": lr}, "regularizer": {"name": "L2", "coeff": 1e-4},
        },
        "DataLoader": {
            "Train": training,
            "Eval": {"Gallery": {"dataset": listing("test_list.txt", fixed_ops)}},
        },
        "Metric": {"Eval": [{"Recallk": {"topk": [1, 5]}}, {"mAP": {}}]},
    }  # fmt: skip


def train(folder: Path, settings: Any, pretrained: Path | None = None) -> dict[str, Any]:
    """Trains by the command line, unless it has been done; the last evaluation's record."""
    output = Path(settings["Global"]["output_dir"])
    if pretrained is not None:
        settings["Global"]["pretrained_model"] = str(pretrained)
    done = output / "done.json"
    if not done.exists():
        output.mkdir(parents=True, exist_ok=True)
        file = output / "train.json"  # JSON is YAML
        file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "edgerecall", "train", "-c", str(file), "--resume"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        drifts = [record["drift"] for record in records if "drift" in record]
        last = next(record for record in reversed(records) if record["kind"] == "eval")
        done.write_text(json.dumps({**last, "drift": drifts[len(drifts) // 2] if drifts else None}))
    result: dict[str, Any] = json.loads(done.read_text())
    return result


def main() -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "xbm_gain")
    parser.add_argument("--only", action="append", help="names of contenders; default: all")
    options = parser.parse_args()
    print_machine()
    folder = options.folder.resolve()
    for name, synth in (("other", PRETRAIN), ("products", PRODUCTS)):
        if not (folder / name).exists():
            synthesise(folder / name, synth, "benchmarks/xbm_gain.py", lambda count: None)
    batch_only = {"ContrastiveLoss": {"embedding_size": DIM}}
    train(folder, config(folder / "other", folder / "pretrained", batch_only, 2500, 32, 2e-3, 0))
    losses = {name: loss for name, loss in contenders().items() if not options.only or name in options.only}
    tasks = [(name, seed) for name in losses for seed in SEEDS]

    def run(task: tuple[str, int]) -> dict[str, Any]:
        name, seed = task
        output = folder / f"{name.replace(' ', '_').replace(',', '').replace('%', '')}_seed{seed}"
        settings = config(folder / "products", output, losses[name], STEPS, BATCH, 3e-4, seed)
        result = train(folder, settings, folder / "pretrained" / "latest")
        print(f"{name}, seed {seed}: recall@1 {result['recall1']:.4f}, mAP {result['mAP']:.4f}", flush=True)
        return result

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        results = dict(zip(tasks, pool.map(run, tasks), strict=True))
    print(f"\n{STEPS} steps, batch {BATCH}, {len(SEEDS)} seeds: mean (lowest to highest)\n")
    print("| loss | recall@1 | mAP | mAP@R |\n|---|---:|---:|---:|")
    for name in losses:
        cells = []
        for metric in ("recall1", "mAP", "mAP@R"):
            values = [results[name, seed][metric] for seed in SEEDS]
            cells.append(f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
