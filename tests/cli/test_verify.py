"""`edgerecall verify` of what was sealed unchecked: told, and no failure, unless it is asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from edgerecall.cli.verify import command
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact, describe_file
from edgerecall.runtimes.core.errors import RuntimeUnavailable
from edgerecall.runtimes.embed import verify


@pytest.mark.parametrize("unchecked", [True, False])
def test_an_artifact_of_a_runtime_that_is_not_here(
    fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, unchecked: bool
) -> None:
    bundle = fake_bundle()
    (bundle.root / "model.tnnproto").write_text("never read")
    file = describe_file(bundle.root, bundle.root / "model.tnnproto", "model")
    sealed = {"unchecked": "as it is not here"} if unchecked else {}
    (fake,) = bundle.manifest.artifacts
    made = fake.model_copy(update={"name": "tnn", "runtime": "tnn", "files": (file,), **sealed})
    if unchecked:
        made = Artifact.model_validate({**made.model_dump(), "check": None})
    Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": (fake, made)})).save()
    honest: Any = verify.open_predictor

    def without_tnn(bundle: Bundle, runtime: str, *more: Any, **named: Any) -> Any:
        if runtime == "tnn":
            raise RuntimeUnavailable("runtime 'tnn' is not in this build of the core")
        return honest(bundle, runtime, *more, **named)

    monkeypatch.setattr(verify, "open_predictor", without_tnn)
    monkeypatch.setenv("COLUMNS", "200")
    whole = CliRunner().invoke(command, [str(bundle.root), "--runtime", "all,fake"], standalone_mode=False)
    named = CliRunner().invoke(command, [str(bundle.root), "--runtime", "tnn"], standalone_mode=False)
    told = "unchecked: runtime 'tnn' is not in this build of the core"
    assert (told in whole.stdout, whole.return_value) == ((True, 0) if unchecked else (False, 1)), whole.output
    assert told not in named.stdout and named.return_value == 1
