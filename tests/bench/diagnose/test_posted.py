"""Why a device's row differs, by what it handed in: its tensor of an image, its embeddings of the golden tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted import seal_again

from edgerecall.bench.diagnose.posted import explain_posted
from edgerecall.bench.schema.group_result import Evidence
from edgerecall.runtimes.bundle.bundle import Bundle

Make = Callable[..., Bundle]
NOTHING = Evidence("fake", "fp32", None, None, None)


def noisy(golden: Any, noise: float) -> Any:
    return golden + np.float32(noise) * np.random.default_rng(5).standard_normal(golden.shape, dtype=np.float32)


def test_nothing_that_differs(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    paths, tensors, sealed = bundle.golden()
    assert explain_posted(bundle, NOTHING) is None
    assert explain_posted(bundle, replace(NOTHING, golden=sealed, image=paths[1], tensor=tensors[1])) is None


def test_a_runtime_there_that_computes_something_else(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    evidence = replace(NOTHING, golden=noisy(bundle.golden()[2], 0.01))
    assert explain_posted(bundle, evidence) == (
        "fake here gives what is sealed, from the same fake: it is what ran there"
    )


@pytest.mark.parametrize(("quantisation", "holds"), [("fp32", False), ("int8", True)])
def test_rounding_of_an_artifact_is_its_own(fake_bundle: Make, quantisation: str, holds: bool) -> None:
    """An int8 artifact is not sealed to the last digit: within its tolerance it is sound, here and there."""
    bundle = fake_bundle(noise=0.01)
    manifest = json.loads((bundle.root / "bundle.json").read_text())
    manifest["artifacts"][0]["quantisation"] = quantisation
    (bundle.root / "bundle.json").write_text(json.dumps(manifest))
    bundle = Bundle.open(bundle.root)
    evidence = replace(NOTHING, quantisation=quantisation, golden=noisy(bundle.golden()[2], 0.02))
    cause = explain_posted(bundle, evidence)
    assert (cause is None) == holds, cause
    far = explain_posted(bundle, replace(evidence, golden=-bundle.golden()[2]))
    assert far is not None
    assert ("it is what ran there" in far) == holds, far
    assert ("another, which does not hold either" in far) != holds, far


def test_an_artifact_that_is_wrong_here_too(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    sealed = bundle.golden()[2]
    (bundle.root / bundle.manifest.artifacts[0].files[0].path).write_text(json.dumps({"noise": 0.1}))
    bundle = seal_again(bundle.root)
    there = sealed + np.float32(0.1) * np.random.default_rng(1).standard_normal(
        (1, sealed.shape[1])
    )  # as the fake does
    cause = explain_posted(bundle, replace(NOTHING, golden=there.astype(np.float32)))
    assert cause is not None and cause.startswith("fake here gives the same, from the same fake: ")


def test_a_tensor_names_its_fault(fake_bundle: Make) -> None:
    """And both are told where both differ, the graph first."""
    bundle = fake_bundle()
    paths, tensors, sealed = bundle.golden()
    swapped = np.ascontiguousarray(tensors[2][:, :, ::-1])
    evidence = replace(NOTHING, image=paths[2], tensor=swapped)
    cause = explain_posted(bundle, evidence)
    assert cause is not None and cause.startswith("input differs (its tensor: ") and paths[2].name in cause
    assert "flipped" in cause or "mirrored" in cause, cause
    both = explain_posted(bundle, replace(evidence, golden=noisy(sealed, 0.01)))
    assert both == f"fake here gives what is sealed, from the same fake: it is what ran there; {cause}"


def test_a_runtime_that_is_not_here(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    evidence = replace(NOTHING, runtime="onnxruntime", golden=-bundle.golden()[2])
    cause = explain_posted(bundle, evidence)
    assert cause is not None and cause.startswith("why is not known: ") and "\n" not in cause
