"""How a runtime describes itself: a `Backend` in the file of its predictor. Whatever else is told of it is derived.

Standard library only: it is read in sidecars too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.versions import Package
from .precision import TOLERANCE

CPP = "cpp-"  # begins the names of what the C++ core drives
WEB = "web-"  # and of what a browser does
CANVAS = "-canvas"  # ends them where the browser makes the pixels too
WEBGPU = "-webgpu"  # and where its GPU computes


@dataclass(frozen=True)
class Library:
    """A runtime's shared library, for the C++ core.

    origin: "wheel", inside the runtime's package and opened when it is used; "source", built into the program; "given",
    linked from a folder that the user names. folder, stem: its place in the package and the beginning of its name.
    variable: of the environment, names another. parts: what a board needs of the wheel, by parts of paths.
    glibc: the least that the library asks of a system.
    """

    origin: str
    folder: str = ""
    stem: str = ""
    variable: str = ""
    parts: tuple[str, ...] = ()
    glibc: tuple[int, int] = (2, 28)


@dataclass(frozen=True)
class Backend:
    """One runtime.

    name: what users write; no colon, which sets a precision apart. predictor: "module:Class" of its `Predictor`.
    title: for tables. package: what it stands on, None for nothing; imports: the module that is imported for it, by
    default the package's. artifacts: the name that its artifacts are listed under in a bundle, by default its own;
    file_format: what they are, for tables. quantisations: of artifacts that it takes. executions, devices: what can be
    asked of it, the first by default; for tables, as its predictor refuses the rest.
    tolerance: of raw embeddings, relative, by precision (see `precision.TOLERANCE`). in_all: whether "all" means it,
    where a bundle has an artifact for it. sidecar: a name of `sidecars.sidecar`, where its package cannot be in this
    interpreter. purpose: for `doctor`. order: in tables, lowest first. library: only for what the C++ core drives.
    """

    name: str
    predictor: str
    title: str = ""
    package: Package | None = None
    imports: str = ""
    artifacts: str = ""
    file_format: str = ""
    quantisations: tuple[str, ...] = ("fp32",)
    executions: tuple[str, ...] = ("fp32",)
    devices: tuple[str, ...] = ("cpu",)
    tolerance: Mapping[str, float] = field(default_factory=lambda: TOLERANCE)
    in_all: bool = True
    sidecar: str = ""
    purpose: str = "run"
    order: int = 100
    library: Library | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "artifacts", self.artifacts or self.name)
        object.__setattr__(self, "imports", self.imports or (self.package.module if self.package else ""))
        if ":" in self.name or ":" not in self.predictor:
            raise ValueError(f"backend {self.name!r}: expected a name without ':' and predictor 'module:Class'")

    @property
    def in_core(self) -> bool:
        """Whether the C++ core drives it."""
        return self.library is not None
