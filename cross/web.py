"""`edgerecall cross web`: the core as WebAssembly, modules and pages around it, and ONNX Runtime Web, in an archive."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ..runtimes.bundle.web_pages import ARCHIVE, VERSION
from ..runtimes.core.errors import InputError
from ..runtimes.core.files import atomic_file, sha256
from ..runtimes.core.targets import WEB, cache_dir, find_program
from .build import PACKED
from .commands import cmake_build, require_tools, run_logged
from .libraries import build_core_libraries

CORE = {"edgerecall.mjs": "edgerecall.js", "edgerecall.wasm": "edgerecall.wasm"}  # as built, as served
CONTRACT = Path("runtimes/core/contract.json")  # the modules import it
INSTALLED = ".edgerecall-lock"
OTHERS = ("node_modules", "dist")  # what npm made where the sources are


class WebBuild:
    """source: a checkout, or what an installed package has of it."""

    def __init__(self, source: Path, say: Callable[[str], None]) -> None:
        self.source, self.say, self.cache = source, say, cache_dir()
        self.build = (self.cache / "build" if source == PACKED else source / "build" / "cross") / WEB.name
        self.dist = (Path.cwd() if source == PACKED else source) / "dist"
        self.logs, self.package = self.build / "logs", self.build / "package"
        require_tools(WEB.tools)

    def run(self) -> Path:
        """All steps; the archive."""
        core = self._core()
        modules = self._modules()
        shutil.rmtree(self.package, ignore_errors=True)
        shutil.copytree(modules / "dist", self.package)
        for name, served in CORE.items():
            shutil.copyfile(core / name, self.package / served)
        mine = version("edgerecall")
        (self.package / VERSION).write_text(mine + "\n")
        page = self.package / "index.html"
        page.write_text(page.read_text().replace('data-version=""', f'data-version="{mine}"'))
        shutil.copyfile(self.source / "LICENSE", self.package / "LICENSE")
        licences = self.cache / f"core-{WEB.name}" / "licences"
        shutil.copytree(licences, self.package / "licences", dirs_exist_ok=True)
        archive = self.dist / f"{ARCHIVE}.tar.gz"
        with atomic_file(archive) as temporary, tarfile.open(temporary, "w:gz") as packed:
            packed.add(self.package, arcname=ARCHIVE)
        return archive

    def _core(self) -> Path:
        """Built, and tested under node."""
        compiler = find_program("em++")
        if compiler is None:
            raise InputError("needs em++")
        toolchain = [
            f"-DCMAKE_TOOLCHAIN_FILE={self.source / 'cmake' / 'toolchains' / 'web.cmake'}",
            f"-DEDGERECALL_EMSCRIPTEN={Path(compiler).resolve().parent}",
        ]
        self.say("the core's libraries from their sources (minutes, the first time)")
        run_logged("em++", [compiler, "--version"], self.logs / "compiler.log")
        flags = (self.source / "cmake" / "toolchains" / "web.cmake").read_text()
        made_by = (self.logs / "compiler.log").read_text() + flags
        libraries = build_core_libraries(WEB, toolchain, self.cache, self.logs, self.say, made_by)
        self.say("the core")
        place = self.build / "cmake"
        (place / "CMakeCache.txt").unlink(missing_ok=True)  # it would keep an earlier compiler's flags
        command = ["cmake", "--preset", "web", "-S", self.source, "-B", place, *toolchain]
        command.append(f"-DCMAKE_FIND_ROOT_PATH={libraries}")
        run_logged("configuring", command, self.logs / "configure.log", self.source)
        cmake_build("building", place, self.logs / "build.log")
        self.say("tests under node")
        tests = ["ctest", "--test-dir", place, "--output-on-failure", "--no-tests=error"]
        run_logged("tests", tests, self.logs / "ctest.log")
        return place

    def _modules(self) -> Path:
        """web/ in a copy, its packages installed, its types checked, built into `dist`."""
        place = self.build / "modules"
        copy = place / "web"
        shutil.rmtree(copy / "src", ignore_errors=True)
        shutil.copytree(self.source / "web", copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OTHERS))
        (place / CONTRACT).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.source / CONTRACT, place / CONTRACT)
        lock, mark = sha256(copy / "package-lock.json"), copy / "node_modules" / INSTALLED
        if not mark.is_file() or mark.read_text() != lock:
            self.say("npm's packages")
            run_logged("npm ci", ["npm", "ci", "--no-progress"], self.logs / "npm-ci.log", copy)
            mark.write_text(lock)
        self.say("modules and pages")
        for script in ("check", "build"):
            run_logged(f"npm run {script}", ["npm", "run", script], self.logs / f"npm-{script}.log", copy)
        return copy
