"""The runtimes there are: every `BACKENDS` of a file in `backends/`, and of installed packages that name theirs in the
entry point group `edgerecall.backends` (an entry point gives a `Backend` or several).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points

from ..core.config import suggestion
from ..core.errors import InputError
from ..core.text import one_line
from ..core.versions import ALWAYS, PACKAGES, Package, installed_versions
from .backend import Backend
from .interface import ModelIO, Predictor, RunOptions, open_backend

GROUP = "edgerecall.backends"
FOLDER = "edgerecall.runtimes.backends"
FAKE = "fake"  # for tests: known, and told to nobody


@dataclass(frozen=True)
class Found:
    """The backends by name, in the order of tables; and why an entry point could not be used, by its name."""

    backends: dict[str, Backend]
    broken: dict[str, str]


@functools.cache
def found() -> Found:
    """All there are. An entry point that fails to load, or takes a name already there, is left out with its reason."""
    folder = importlib.import_module(FOLDER)
    collected: dict[str, Backend] = {}
    broken: dict[str, str] = {}
    for info in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{FOLDER}.{info.name}")
        collected.update({backend.name: backend for backend in getattr(module, "BACKENDS", ())})
    for entry in entry_points(group=GROUP):
        try:
            loaded, taken = entry.load(), dict[str, Backend]()
            for backend in (loaded,) if isinstance(loaded, Backend) else tuple(loaded):
                if not isinstance(backend, Backend):
                    raise TypeError(f"expected a Backend, got {type(backend).__name__}")
                if backend.name in collected or backend.name in taken:
                    raise ValueError(f"there is a runtime '{backend.name}' already")
                taken[backend.name] = backend
            collected.update(taken)
        except Exception as error:  # whatever somebody else's module raises
            broken[entry.name] = f"{type(error).__name__}: {one_line(error)}"
    ordered = sorted(collected.values(), key=lambda backend: (backend.order, backend.name))
    return Found({backend.name: backend for backend in ordered}, broken)


def backend(name: str) -> Backend:
    """The description of a runtime. InputError for an unknown name, with those that are known."""
    known = found().backends
    if name not in known:
        raise InputError(f"runtime: no '{name}'{suggestion(name, names())}")
    return known[name]


def names() -> tuple[str, ...]:
    """All runtimes that users can name."""
    return tuple(name for name in found().backends if name != FAKE)


def all_names() -> tuple[str, ...]:
    """The runtimes that "all" means, of those that a bundle has something of (`Bundle.runtimes`)."""
    return tuple(backend.name for backend in found().backends.values() if backend.in_all)


def markdown_table() -> str:
    """The runtimes as a Markdown table, for the README and the site."""
    lines = ["| runtime | what | package | artifact | quantisations | executes |", "|---|---|---|---|---|---|"]
    for name in names():
        one = backend(name)
        own = "`edgerecall cross web`" if "browser" in one.devices else "the C++ core's own build"
        package = one.package.distribution if one.package else own
        cells = (f"`{name}`", one.title, package, one.file_format)
        lines.append(f"| {' | '.join((*cells, ', '.join(one.quantisations), ', '.join(one.executions)))} |")
    return "\n".join(lines) + "\n"


def core_backends() -> tuple[Backend, ...]:
    """Those that the C++ core drives."""
    return tuple(backend for backend in found().backends.values() if backend.in_core)


def packages() -> dict[str, Package]:
    """Every optional package, by the module that is imported: the runtimes' and the others. Of two that bring the same
    module, the first runtime's.
    """
    mine = [backend.package for backend in found().backends.values() if backend.package]
    return {**{package.module: package for package in reversed(mine)}, **PACKAGES}


def distributions() -> tuple[str, ...]:
    """What artifacts and results name with its version."""
    theirs: Iterable[str] = (name for package in packages().values() if package.shown for name in package.distributions)
    return tuple(dict.fromkeys((*ALWAYS, *theirs)))


def tool_versions() -> dict[str, str]:
    """Distribution name to version of what is installed here, for artifacts and results."""
    return installed_versions(distributions())


def open_files(runtime: str, files: dict[str, str], io: ModelIO, options: RunOptions) -> Predictor:
    """Loads artifact files (`role -> path`) into a runtime, in this process: `open_backend` by name."""
    return open_backend(backend(runtime), files, io, options)
