"""Sidecars: found, named, and refused when they are not what they must be."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from edgerecall.runtimes.core import errors
from edgerecall.runtimes.core.errors import InputError, RuntimeUnavailable
from edgerecall.runtimes.sidecars import interpreters, sidecar
from edgerecall.runtimes.sidecars.sidecar import LITE, PADDLE2ONNX, SIDECARS, Sidecar

SIDECAR_MODULES = (
    "core.contract",
    "core.errors",
    "worker.micro_batches",
    "core.text",
    "predictor.backend",
    "predictor.interface",
    "predictor.precision",
    "worker.wire",
    "worker.main",
    "worker.load_test",
    "core.versions",
    "backends.lite_predictor",
)
NOTHING = Sidecar(
    name="nothing",
    package="no_such_package",
    versions=("3.12", "3.10"),
    requirements=("no-such-package",),
    probe="import no_such_package",
    condition="import no_such_package",
    variable="EDGERECALL_NOTHING",
)


def test_found(lite_ready: None) -> None:
    python = LITE.find_python()
    assert python is not None and interpreters.runs(python, LITE.probe)


def test_a_named_interpreter_must_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LITE.variable, sys.executable if sys.version_info >= (3, 11) else "/bin/false")
    with pytest.raises(RuntimeUnavailable, match="cannot import paddlelite with numpy<2"):
        LITE.find_python()


def test_this_interpreter_is_taken_where_it_has_the_package() -> None:
    here = Sidecar("yaml", "yaml", (), (), "import yaml", "import yaml", "EDGERECALL_NOTHING")
    assert here.find_python() == sys.executable
    assert NOTHING.find_python() is None


def test_shims_that_do_not_run_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = tmp_path / "python3.10"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setattr(interpreters, "candidates", lambda versions: iter([str(shim)]))
    monkeypatch.setattr(interpreters, "by_uv", lambda versions, probe: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(InputError, match=r"no_such_package needs CPython 3\.10 or 3\.12 and none was found: install"):
        NOTHING.make()
    assert [path.name for path in tmp_path.iterdir()] == ["python3.10"]  # nothing half-made


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text('#!/bin/sh\nif [ "$2" = venv ]; then mkdir -p "$3"; echo \'no space\'; exit 1; fi\nexit 0\n')
    broken.chmod(0o755)
    monkeypatch.setattr(interpreters, "candidates", lambda versions: iter([str(broken)]))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(RuntimeUnavailable, match=r"venv .*nothing-sidecar' failed: no space"):
        NOTHING.make()
    assert not NOTHING.folder.exists()


def test_an_interpreter_is_fetched_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in without pip of its own, as Debian's packages have it: ours installs into its environment."""
    monkeypatch.setattr(interpreters, "candidates", lambda versions: iter(()))
    monkeypatch.setattr(interpreters, "by_uv", lambda versions, probe: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    fetched = tmp_path / "python3.12"
    fetched.write_text(
        f'#!/bin/sh\n[ "$3" = \'import ensurepip\' ] && exit 1\necho "$@" >> {tmp_path}/calls\n'
        f'[ "$2" = venv ] && mkdir -p $4/bin && cp {fetched} $4/bin/python\nexit 0\n'
    )
    fetched.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fetched))
    asked = []

    def fetch(versions: tuple[str, ...]) -> str:
        asked.append(versions)
        return str(fetched)

    python = NOTHING.make(fetch)
    assert asked == [NOTHING.versions] and python == NOTHING.folder / "bin" / "python"
    venv, install, probe = (tmp_path / "calls").read_text().splitlines()
    assert venv == f"-m venv --without-pip {NOTHING.folder}" and probe.endswith(NOTHING.probe)
    assert install.startswith(f"-m pip --python {python} install") and install.endswith(" no-such-package")


def test_uv_brings_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for uv: it installs nothing, and finds this interpreter."""
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n[ "$2" = find ] && echo {sys.executable}\nexit 0\n')
    uv.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert interpreters.by_uv([mine], interpreters.venv_probe([mine])) is not None
    assert interpreters.by_uv([mine], interpreters.venv_probe(["3.8"])) is None  # it gave another version
    assert (tmp_path / "calls").read_text().splitlines()[:2] == [
        f"python install {mine}",
        f"python find --no-project {mine}",
    ]


def test_the_order_of_the_versions_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the interpreter that asks, which paddle2onnx may have no wheel for."""
    other = tmp_path / "python3.99"
    other.touch()
    monkeypatch.setattr(interpreters.shutil, "which", lambda name: str(other) if name == other.name else None)
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    found = list(interpreters.candidates(["3.99", mine]))
    assert found.index(str(other)) < found.index(sys.executable)


def test_every_sidecar_has_its_own_place() -> None:
    assert len({sidecar.folder for sidecar in SIDECARS.values()}) == len(SIDECARS) == 2
    assert PADDLE2ONNX.folder.name == "paddle2onnx-sidecar"


def test_interpreters_needs_the_standard_library_alone() -> None:
    """scripts/bootstrap.py imports it before anything is installed."""
    for module in (interpreters, errors):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for node in ast.walk(tree):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", SIDECAR_MODULES)
def test_modules_speak_python_3_8(module: str) -> None:
    runtimes = Path(interpreters.__file__).parents[1]
    source = (runtimes / f"{module.replace('.', '/')}.py").read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    third_party = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            third_party |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            third_party.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level]
            assert ".".join([*above, str(node.module)]) in SIDECAR_MODULES
    assert third_party - set(sys.stdlib_module_names) <= {"numpy"}


def test_an_interpreter_is_probed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start costs a third of a second, and a bench opens Lite many times; one that fails is tried again."""
    probed: list[str] = []
    answers = iter([False, True])
    monkeypatch.setattr(sidecar, "runs", lambda python, probe: probed.append(probe) or next(answers))
    monkeypatch.setenv(NOTHING.variable, str(tmp_path / "python"))
    with pytest.raises(RuntimeUnavailable):
        NOTHING.find_python()
    assert NOTHING.find_python() == NOTHING.find_python() == str(tmp_path / "python")
    assert len(probed) == 2
