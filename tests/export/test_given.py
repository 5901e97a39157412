"""Artifacts of runtimes that the core is linked with only where the user names them: made, and said to be unchecked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgerecall.export import exporter
from edgerecall.export.exporter import checked
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact, describe_file
from edgerecall.runtimes.core.errors import RuntimeUnavailable

REASON = "runtime 'tnn' is not in this build of the core: configure with -DEDGERECALL_TNN_DIR=..."


def missing(*_: object, **__: object) -> None:
    raise RuntimeUnavailable(REASON)


def test_made_and_unchecked_where_the_core_lacks_the_runtime(
    fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "open_predictor", missing)  # whatever this core was built with
    bundle = fake_bundle()
    _, tensors, sealed = bundle.golden()
    files = []
    for role, name in (("model", "model.tnnproto"), ("weights", "model.tnnmodel")):
        (bundle.root / name).write_text("never read")
        files.append(describe_file(bundle.root, bundle.root / name, role))
    made = Artifact(name="tnn", runtime="tnn", targets=("any",), files=tuple(files))
    holds = Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": (made,)}))
    told = checked(made, holds, tensors, sealed)
    assert told.check is None and told.unchecked == REASON


def test_other_runtimes_that_are_missing_are_no_artifacts(
    fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = fake_bundle()
    _, tensors, sealed = bundle.golden()
    monkeypatch.setattr(exporter, "open_predictor", missing)
    with pytest.raises(RuntimeUnavailable, match="not in this build"):
        checked(bundle.manifest.artifacts[0], bundle, tensors, sealed)
