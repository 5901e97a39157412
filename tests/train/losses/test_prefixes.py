"""Embeddings whose first numbers serve as smaller ones: trained by a loss's `prefixes`, exported by `Arch.prefix`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.loss import ContrastiveMemoryOptions
from edgerecall.train.config.training import load_config
from edgerecall.train.evaluate import encode_sets
from edgerecall.train.setup import build_network
from edgerecall.train.trainer import Trainer

PREFIXES = "Loss.Train.0.ContrastiveLoss_XBM.prefixes"


def test_trained_and_refused(config_file: Path) -> None:
    trainer = Trainer(load_config(config_file, [f"{PREFIXES}=[8,16]"]))
    values: list[float] = []
    trainer.run(lambda report: values.append(report.loss), lambda epoch, scores: None)
    assert len(values) == 3 and np.isfinite(values).all()
    assert (config_file.parent / "run" / "latest.pdparams").is_file()
    with pytest.raises(InputError, match="fewer than the 32 dimensions, got 32"):
        Trainer(load_config(config_file, [f"{PREFIXES}=[8,32]"]))
    with pytest.raises(InputError, match=r"Arch\.prefix is for eval and export"):
        Trainer(load_config(config_file, ["Arch.prefix=8"]))
    with pytest.raises(InputError, match="embedding has 32 dimensions, got 64"):
        build_network(load_config(config_file, ["Arch.prefix=64"]))
    with pytest.raises(ValidationError, match="expected different numbers, got 8, 8"):
        ContrastiveMemoryOptions(xbm_size=8, prefixes=(8, 8))


def test_the_first_numbers_are_evaluated_and_exported(
    trained: Path, tmp_path: Path, edgerecall: Callable[..., Any]
) -> None:
    found = {}
    for prefix in (None, 8):
        config = load_config(trained / "train.yaml", [f"Arch.prefix={prefix}"] if prefix else [])
        state = build_network(config, trained / "run" / "latest").state_dict()
        found[prefix] = encode_sets(config, state)[0].embeddings
    cut = found[None][:, :8]
    np.testing.assert_allclose(found[8], cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    options = ("-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "-o", "Arch.prefix=8")
    result = edgerecall("export", tmp_path / "bundle", *options, "--formats", "paddle,onnx")
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.spec.embedding_dim == 8
    assert [artifact.name for artifact in bundle.manifest.artifacts] == ["paddle", "onnx"]
