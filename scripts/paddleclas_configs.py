"""Which of PaddleClas's recognition configs load as they are and train: a Markdown table.

    python scripts/paddleclas_configs.py CHECKOUT [NAME ...]

Each config is read unchanged. Those that load take two training steps and an evaluation on a miniature data set, with
nothing overridden but what names files, downloads, devices, sizes of batches and numbers of classes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgerecall.runtimes.core.errors import EdgeRecallError
from edgerecall.train.config.training import TrainConfig, load_config
from edgerecall.train.data.synth import SynthOptions, synthesise

FOLDERS = (
    "metric_learning",
    "GeneralRecognition",
    "GeneralRecognitionV2",
    "reid",
    "Vehicle",
    "Products",
    "Cartoonface",
    "Logo",
)
CLASSES, BATCH = 6, 4


def market(root: Path, data: Path) -> None:
    """The miniature data set under Market-1501's names."""
    home = root / "market1501" / "Market-1501-v15.09.15"
    for folder, lists in (("bounding_box_train", "train"), ("query", "test"), ("bounding_box_test", "test")):
        (home / folder).mkdir(parents=True)
        for number, line in enumerate((data / f"{lists}_list.txt").read_text().splitlines()):
            path, label = line.split()
            name = f"{int(label) + 1:04d}_c{number % 2 + 1}s1_{number:06d}_00.jpg"
            (home / folder / name).write_bytes((data / path).read_bytes())


def overrides(config: TrainConfig, root: Path, out: Path) -> list[str]:
    """Files, downloads, devices, sizes of batches and numbers of classes."""
    given = [
        f"Global.output_dir={out}",
        "Global.device=cpu",
        "Global.epochs=1",
        "Global.iter_per_epoch=2",
        "Global.eval_interval=1",
        "Global.start_eval_epoch=0",
        "Global.pretrained_model=null",
        "Arch.Backbone.pretrained=False",
        "DataLoader.Train.loader.num_workers=0",
        f"DataLoader.Train.sampler.batch_size={BATCH}",
    ]
    if config.Arch.Head is not None:
        given.append(f"Arch.Head.class_num={CLASSES}")
    for index, entry in enumerate(config.Loss.Train):
        if entry.CenterLoss is not None:
            given.append(f"Loss.Train.{index}.CenterLoss.num_classes={CLASSES}")
        if getattr(entry.options, "xbm_size", None):
            given.append(f"Loss.Train.{index}.{entry.name}.xbm_size=64")
    classifies = config.Global.eval_mode == "classification"
    gallery = "Eval" if classifies else "Eval.Gallery"
    parts = {"Train": config.DataLoader.Train, gallery: config.DataLoader.Eval.Gallery}
    if config.DataLoader.Eval.Query is not None:
        parts["Eval.Query"] = config.DataLoader.Eval.Query
    for name, part in parts.items():
        where = f"DataLoader.{name}.dataset"
        if part.dataset.name == "Market1501":
            given.append(f"{where}.image_root={root}")
        else:
            lists = "train" if name == "Train" or classifies else "test"  # a classifier is of known classes
            given += [f"{where}.image_root={root / 'data'}", f"{where}.cls_label_path={root / 'data' / lists}_list.txt"]
    sampler = config.DataLoader.Train.sampler
    for name in ("num_instances", "sample_per_id"):
        if hasattr(sampler, name):
            given.append(f"DataLoader.Train.sampler.{name}=2")
    return given


def result(path: Path, root: Path) -> str:
    """What came of a config, in words."""
    try:
        config = load_config(path)
    except EdgeRecallError as error:
        return f"refused: {str(error).partition(': ')[2]}"
    with tempfile.TemporaryDirectory() as out:
        given = [word for one in overrides(config, root, Path(out) / "run") for word in ("-o", one)]
        command = [sys.executable, "-m", "edgerecall", "train", "-c", str(path), *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"loads; then: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        if "[Eval]" not in done.stdout:
            return "loads; no evaluation"
    return "loads and trains"


def main() -> None:
    checkout, wanted = Path(sys.argv[1]), sys.argv[2:]
    configs = checkout / "ppcls" / "configs"
    found = sorted(path for folder in FOLDERS for path in (configs / folder).rglob("*.yaml"))
    found = [path for path in found if not wanted or any(word in str(path) for word in wanted)]
    good = 0
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        synthesise(root / "data", SynthOptions(CLASSES, 4, 4, size=64, seed=1), "scripts", lambda count: None)
        market(root, root / "data")
        print("| config | result |\n|---|---|", flush=True)
        for path in found:
            told = result(path, root)
            good += told == "loads and trains"
            print(f"| {path.relative_to(configs)} | {told.replace('|', '/')[:200]} |", flush=True)
    print(f"\n{good} of {len(found)} load as they are and train.")


if __name__ == "__main__":
    main()
