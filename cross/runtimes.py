"""Which runtimes the program can be built with for a target, from what the core's backends say of their libraries."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtimes.core.config import suggestion
from ..runtimes.core.errors import InputError
from ..runtimes.core.targets import Target
from ..runtimes.predictor.backend import Backend
from ..runtimes.predictor.registry import core_backends


@dataclass(frozen=True)
class GivenLibrary:
    """A runtime linked from a folder that the user names. option: CMake's; files: what goes beside the program."""

    option: str
    files: str


GIVEN = {
    "mnn": GivenLibrary("EDGERECALL_MNN_DIR", "lib/libMNN*.so*"),
    "tnn": GivenLibrary("EDGERECALL_TNN_DIR", "lib/libTNN*.so*"),
    "lite": GivenLibrary("EDGERECALL_PADDLE_LITE_DIR", "lib/libpaddle_light_api_shared.so*"),
}


def buildable() -> dict[str, Backend]:
    """The core's backends whose library is to be had from a package index, by the name of their artifacts."""
    return {b.artifacts: b for b in core_backends() if b.library and b.library.origin in ("wheel", "source")}


def default_runtimes(target: Target) -> tuple[str, ...]:
    """Those that a target's program is packed with unless told otherwise."""
    return tuple(name for name, backend in buildable().items() if problem(target, backend) is None)


def chosen_runtimes(target: Target, text: str) -> tuple[str, ...]:
    """A comma list, or all. InputError for an unknown runtime, or one that the target cannot have."""
    if text == "all":
        return default_runtimes(target)
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in buildable():
            raise InputError(f"--runtime: no '{name}' to build with{suggestion(name, buildable())}")
        if not target.platforms and from_wheel(name):
            raise InputError(f"{target.name} cannot have {name}: its package has no build for it; take ncnn")
    return names


def from_wheel(name: str) -> bool:
    """Whether a runtime's library comes out of its package, opened when the program runs."""
    library = buildable()[name].library
    return library is not None and library.origin == "wheel"


def problem(target: Target, backend: Backend) -> str | None:
    """Why a target's program does not have a runtime by itself."""
    library = backend.library
    if library is None or library.origin != "wheel":
        return None
    if not target.platforms:
        return "its package has no build for this machine"
    return None if target.glibc >= library.glibc else "its library asks for a newer glibc"
