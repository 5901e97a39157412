"""`edgerecall cross`: from source to an archive with the program, its runtimes, and proof that it runs."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ..runtimes.bundle.bundle import Bundle
from ..runtimes.core.errors import InputError
from ..runtimes.core.files import atomic_file
from ..runtimes.core.targets import CORTEX_A72, Target, cache_dir
from .commands import cmake_build, require_tools, run_logged
from .libraries import build_ncnn
from .licences import copy_licences
from .packages import runtime_libraries
from .runtimes import GIVEN, from_wheel
from .sysroot import make_sysroot
from .toolchain import toolchain

Say = Callable[[str], None]
PROGRAM = "edgerecall-device"
TEST_BUNDLE = Path("tests/golden/bundle")
PACKED = Path(__file__).resolve().parent / "source"  # in an installed package
RUN_SCRIPT = f"""#!/bin/sh
# Runs the program from wherever this folder lies, with the libraries beside it.
exec "$(dirname "$0")/{PROGRAM}" "$@"
"""


def source_root(given: Path | None) -> Path:
    """The checkout given or around this folder, else the source inside the installed package. InputError for none."""
    for folder in [given] if given else [Path.cwd(), *Path.cwd().parents, PACKED]:
        if (folder / "CMakePresets.json").is_file() and (folder / "cpp" / "tools").is_dir():
            return folder.resolve()
    raise InputError(f"the program is built from a checkout of EdgeRecall: found none in {given or Path.cwd()}")


class CrossBuild:
    """One target's build. runtimes: of `onnxruntime`, `openvino`, `ncnn`; given: folders of the libraries of others, by
    the names of `GIVEN`.
    """

    def __init__(
        self, source: Path, target: Target, runtimes: Sequence[str], say: Say, given: Mapping[str, Path] | None = None
    ) -> None:
        self.source, self.target, self.runtimes, self.say, self.given = source, target, runtimes, say, given or {}
        self.cache = cache_dir()
        self.build = (self.cache / "build" if source == PACKED else source / "build" / "cross") / target.name
        self.dist = (Path.cwd() if source == PACKED else source) / "dist"
        self.logs = self.build / "logs"
        self.package = self.build / "package"
        require_tools(target.tools)

    def run(self) -> Path:
        """All steps; the archive."""
        self.compile()
        self._assemble()
        self._test()
        return self._pack()

    def compile(self) -> Path:
        """The program alone."""
        options = list(self.compiler)
        if "ncnn" in self.runtimes:
            self.say("ncnn from its source (minutes, the first time)")
            options.append(f"-DEDGERECALL_NCNN_DIR={build_ncnn(self.target, self.compiler, self.cache, self.logs)}")
        options += [f"-D{GIVEN[name].option}={folder.resolve()}" for name, folder in self.given.items()]
        self.say("the program")
        (self.build / "cmake" / "CMakeCache.txt").unlink(missing_ok=True)  # it would keep an earlier toolchain's flags
        place = self.build / "cmake"
        command = ["cmake", "--preset", self.preset, "-S", self.source, "-B", place, *options]
        run_logged("configuring", command, self.logs / "configure.log", self.source)
        cmake_build("building", place, self.logs / "build.log")
        return place / PROGRAM

    @property
    def core(self) -> Path:
        """The library that the program is made of, once it is compiled."""
        return self.build / "cmake" / "libedgerecall_core.a"

    @cached_property
    def compiler(self) -> list[str]:
        """CMake's options that choose the compiler and the libraries; what they name is made first."""
        return toolchain(self.target, self.source, self.logs, self.say)

    @property
    def preset(self) -> str:
        """Of CMakePresets.json."""
        if self.target.zig:
            return "zig"
        return self.target.name if self.target.qemu else "host"

    def _assemble(self) -> None:
        """The folder that is packed: program, script, licences, libraries."""
        shutil.rmtree(self.package, ignore_errors=True)
        self.package.mkdir(parents=True)
        shutil.copyfile(self.build / "cmake" / PROGRAM, self.package / PROGRAM)
        (self.package / "run.sh").write_text(RUN_SCRIPT)
        for name in (PROGRAM, "run.sh"):
            (self.package / name).chmod(0o755)
        shutil.copyfile(self.source / "LICENSE", self.package / "LICENSE")
        for name, folder in self.given.items():
            into = self.package / "lib" / name
            into.mkdir(parents=True)
            for library in folder.glob(GIVEN[name].files):
                shutil.copyfile(library, into / library.name)
        ncnn = self.cache / f"ncnn-{self.target.name}" if "ncnn" in self.runtimes else None
        copy_licences(self.target, ncnn, self.package / "licences", self.say)
        for runtime in filter(from_wheel, self.runtimes):
            self.say(f"{runtime}'s library")
            runtime_libraries(runtime, self.target.platforms, self.package / "lib" / runtime, self.logs)

    def _test(self) -> None:
        """The core's tests, then the packed program: golden images in every runtime, good and damaged images."""
        self.say("tests" + (" under QEMU" if self.target.qemu else ""))
        if self.target.qemu and not self.target.static:
            make_sysroot(self.target, self.logs, self.say)  # what programs load there
        if self.preset != "zig":
            tests = self.build / "cmake"
            command = ["ctest", "--test-dir", tests, "--output-on-failure", "--no-tests=error"]
            run_logged("tests", command, self.logs / "ctest.log")
            if self.target.qemu == CORTEX_A72:  # once more where int8 products have their own instructions
                newer = ["neoverse-n1" if part == CORTEX_A72[-1] else part for part in self.target.emulator]
                command = [*newer, tests / "edgerecall_tests", "-tc=search equals*,small galleries*"]
                run_logged("tests of search", command, self.logs / "neoverse.log")
        self.verify(self.source / TEST_BUNDLE)

    def verify(self, bundle: Path) -> None:
        """The packed program on a bundle, every runtime that was asked for. RuntimeFailed when one does not hold."""
        there = {artifact.runtime for artifact in Bundle.open(bundle).manifest.artifacts}
        wanted = [name for name in (*self.runtimes, *self.given) if name in there]
        program = [*self.target.emulator, self.package / PROGRAM]
        command = [*program, "verify", bundle, "--runtime", ",".join(wanted)]
        run_logged(f"{PROGRAM} verify {bundle.name}", command, self.logs / "verify.log")
        for line in (self.logs / "verify.log").read_text(errors="replace").splitlines():
            if line.split(" ")[0] in ("pixels", *wanted):  # runtimes print too
                self.say(f"  {line}")

    def _pack(self) -> Path:
        name = f"{PROGRAM}-{self.target.name}"
        archive = self.dist / f"{name}.tar.gz"
        with atomic_file(archive) as temporary, tarfile.open(temporary, "w:gz") as packed:
            packed.add(self.package, arcname=name)
        return archive


def program_size(package: Path) -> int:
    """Bytes of the program alone."""
    return (package / PROGRAM).stat().st_size
