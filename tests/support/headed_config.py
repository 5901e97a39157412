"""The tests' small training config with a class head and several losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgerecall.train.config.training import load_config
from edgerecall.train.trainer import Trainer

ARC = {"name": "ArcMargin", "embedding_size": 32, "class_num": 12, "margin": 0.2, "scale": 30}
BOTH = [
    {"CELoss": {"weight": 1.0, "epsilon": 0.1}},
    {"ContrastiveLoss_XBM": {"weight": 0.5, "xbm_size": 48, "embedding_size": 32}},
    {"CenterLoss": {"weight": 0.01, "num_classes": 12, "feat_dim": 32}},
]


def headed(config_file: Path, losses: list[Any] = BOTH, **changes: Any) -> Path:
    """The small config with a head and these losses, over shuffled batches."""
    data = yaml.safe_load(config_file.read_text())
    data["Arch"]["Head"] = ARC
    data["Loss"]["Train"] = losses
    data["DataLoader"]["Train"]["sampler"] = {"name": "DistributedBatchSampler", "batch_size": 16}
    data["Global"].update(changes)
    config_file.write_text(yaml.safe_dump(data))
    return config_file


def run(path: Path, *overrides: str, resume: bool = False) -> Trainer:
    """Trains to the end."""
    trainer = Trainer(load_config(path, overrides), resume)
    trainer.run(lambda report: None, lambda epoch, scores: None)
    return trainer
