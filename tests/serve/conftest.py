"""Servers of the fake bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from served import Client, serving

from edgerecall.runtimes.bundle.bundle import Bundle

Make = Callable[..., Bundle]


@pytest.fixture
def server(tmp_path: Path, fake_bundle: Make) -> Iterator[Client]:
    """A server without a gallery."""
    fake_bundle()
    with serving(tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def shared_server(data: Path, fake_bundle_in: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One for tests that change nothing."""
    folder = tmp_path_factory.mktemp("served")
    fake_bundle_in(folder / "bundle", sorted(data.glob("*_final/*.JPG"))[:4])
    with serving(folder) as client:
        yield client


@pytest.fixture(scope="session")
def clients(root: Path) -> Path:
    """Programs that ask servers, in an environment of their own: tritonclient wants another protobuf."""
    programs = root / "build" / "clients-env" / "bin"
    if not (programs / "st").exists():
        pytest.fail("no tritonclient and schemathesis: run 'make build/clients-env/installed'")
    return programs
