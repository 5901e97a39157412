"""Repositories for a private apt: this machine's own, of Debian and Ubuntu, or another release of them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from edgerecall.cross import apt
from edgerecall.runtimes.core.errors import InputError

DEBIAN = "Debian|http://mirror.example/debian|trixie\nDebian|http://mirror.example/debian|trixie-updates\n"
SECURITY = "Debian|http://mirror.example/debian-security|trixie-security\n"
UBUNTU = "Ubuntu|http://mirror.example/ubuntu|noble\nUbuntu|http://mirror.example/ubuntu|noble-security\n"
OTHER = "Node|http://mirror.example/node|nodistro\n"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has apt tell these repositories."""

    def tell(text: str) -> None:
        answer = subprocess.CompletedProcess([], 0, text, "")
        monkeypatch.setattr(apt.subprocess, "run", lambda *arguments, **options: answer)
        monkeypatch.setattr(apt.shutil, "which", lambda name: "/usr/bin/apt-get")

    return tell


def without_keys(lines: list[str]) -> list[str]:
    return [" ".join(part for part in line.split() if "signed-by" not in part) for line in lines]


def test_debian_s_own(says: Any) -> None:
    says(DEBIAN + SECURITY + OTHER)
    assert without_keys(apt.own_sources()) == [
        f"{kind} http://mirror.example/{place} main"
        for place in ("debian trixie", "debian trixie-updates", "debian-security trixie-security")
        for kind in ("deb", "deb-src")
    ]


def test_ubuntu_s_own_with_universe(says: Any) -> None:
    says(UBUNTU + OTHER)
    lines = without_keys(apt.own_sources())
    assert lines[0] == "deb http://mirror.example/ubuntu noble main universe" and len(lines) == 4


def test_known_by_its_place_before_the_lists_were_read(says: Any) -> None:
    says(DEBIAN.replace("Debian|", "|") + OTHER)
    assert len(apt.own_sources()) == 4


def test_another_release_comes_from_the_main_archive_alone(says: Any) -> None:
    says(DEBIAN + SECURITY)
    assert without_keys(apt.own_sources("bookworm")) == [
        "deb http://mirror.example/debian bookworm main",
        "deb-src http://mirror.example/debian bookworm main",
    ]


@pytest.mark.parametrize(("text", "release"), [(OTHER, ""), (UBUNTU, "bookworm")])
def test_no_repository_of_the_kind(says: Any, text: str, release: str) -> None:
    says(text)
    with pytest.raises(InputError, match="no Debian repository"):
        apt.own_sources(release)
