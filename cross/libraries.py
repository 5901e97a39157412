"""Libraries built here for a target, once, and kept: ncnn, and the image libraries where Debian's do not fit."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..runtimes.core.files import atomic_folder
from ..runtimes.core.targets import WEB, Target
from .apt import PrivateApt, own_architecture
from .commands import cmake_build, run_logged
from .packages import ncnn_source, same_version

STAMP = "edgerecall-library"
NCNN_OPTIONS = (
    "-DNCNN_SHARED_LIB=OFF",
    "-DNCNN_BUILD_TOOLS=OFF",
    "-DNCNN_BUILD_EXAMPLES=OFF",
    "-DNCNN_BUILD_BENCHMARK=OFF",
    "-DNCNN_BUILD_TESTS=OFF",
    "-DNCNN_PYTHON=OFF",
    "-DNCNN_VULKAN=OFF",
    "-DNCNN_SIMPLEOMP=ON",  # its own threads: no OpenMP library to bring along
    "-DNCNN_RUNTIME_CPU=ON",  # dot products and half precision where the CPU has them
    "-DNCNN_DISABLE_RTTI=OFF",
    "-DNCNN_DISABLE_EXCEPTION=OFF",
    "-DNCNN_SIMPLEOCV=OFF",
    "-DNCNN_PIXEL=OFF",
    "-DNCNN_PIXEL_ROTATE=OFF",
    "-DNCNN_PIXEL_AFFINE=OFF",
    "-DNCNN_PIXEL_DRAWING=OFF",
)
# Source packages, in the order in which they need each other.
CORE_SOURCES: dict[str, tuple[str, ...]] = {
    "zlib": (),
    "libjpeg-turbo": ("-DENABLE_SHARED=OFF", "-DWITH_TURBOJPEG=OFF"),
    "libpng1.6": ("-DPNG_SHARED=OFF", "-DPNG_TESTS=OFF", "-DPNG_EXECUTABLES=OFF", "-DPNG_TOOLS=OFF"),
    "highway": (
        "-DBUILD_SHARED_LIBS=OFF",
        "-DBUILD_TESTING=OFF",
        "-DHWY_ENABLE_CONTRIB=OFF",
        "-DHWY_ENABLE_EXAMPLES=OFF",
        "-DHWY_ENABLE_TESTS=OFF",
    ),
    "nlohmann-json3": ("-DJSON_BuildTests=OFF",),
}
# WebAssembly has no vectors of libjpeg-turbo's and libpng's; emscripten 3.1.6 measures size_t wrongly.
WEB_OPTIONS: dict[str, tuple[str, ...]] = {
    "libjpeg-turbo": ("-DWITH_SIMD=OFF", "-DHAVE_SIZE_T=TRUE", "-DSIZE_T=4"),
    "libpng1.6": ("-DPNG_HARDWARE_OPTIMIZATIONS=OFF",),
}
DOCTEST = "doctest-dev"  # headers alone
ZLIB = ("zlibstatic", ("libz.a", "zlib.h", "zconf.h"))  # its install wants a shared library too


def cmake_library(
    title: str,
    source: Path,
    options: tuple[str, ...],
    toolchain: list[str],
    prefix: Path,
    logs: Path,
    built: str = "install",
    files: tuple[str, ...] = (),
) -> None:
    """Configures and builds a library into a prefix. built: CMake's target, after which `files` are copied."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-build-") as build:
        common = ["-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_INSTALL_PREFIX={prefix}", "-DCMAKE_INSTALL_LIBDIR:STRING=lib"]
        older = ["-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
        log = logs / title
        command = ["cmake", "-S", source, "-B", build, *common, *older, *toolchain, *options]
        run_logged(f"configuring {title}", command, log.with_suffix(".configure.log"))
        cmake_build(f"building {title}", Path(build), log.with_suffix(".build.log"), "--target", built)
        for name in files:
            place = prefix / ("lib" if name.endswith(".a") else "include")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(next(path for path in (Path(build) / name, source / name) if path.is_file()), place / name)


def marked(prefix: Path, mark: str) -> bool:
    """Whether a prefix was made from just this."""
    stamp = prefix / STAMP
    return stamp.is_file() and stamp.read_text() == mark


def build_ncnn(target: Target, toolchain: list[str], cache: Path, logs: Path) -> Path:
    """ncnn's installation for a target."""
    mark = hashlib.sha256(repr((target, NCNN_OPTIONS, same_version("ncnn"))).encode()).hexdigest()
    prefix = cache / f"ncnn-{target.name}"
    if not marked(prefix, mark):
        with atomic_folder(prefix, STAMP) as folder, tempfile.TemporaryDirectory(prefix="edgerecall-ncnn-") as work:
            source = ncnn_source(Path(work), logs)
            number = f"-DNCNN_VERSION={source.name.rpartition('.')[2]}"  # else it takes today's date for its version
            cmake_library("ncnn", source, (*NCNN_OPTIONS, number), toolchain, folder, logs)
            shutil.copyfile(source / "LICENSE.txt", folder / "LICENSE.txt")
            (folder / STAMP).write_text(mark)
    return prefix


def core_sources(target: Target) -> dict[str, tuple[str, ...]]:
    """Source packages of what the core links for a target, with CMake's options."""
    if target != WEB:
        return CORE_SOURCES
    return {name: (*options, *WEB_OPTIONS.get(name, ())) for name, options in CORE_SOURCES.items()}


def build_core_libraries(
    target: Target, toolchain: list[str], cache: Path, logs: Path, say: Callable[[str], None], compiler: str = ""
) -> Path:
    """All that the core links, static, for a target whose C library is not Debian's; their licences in `licences/`.

    compiler: another makes them anew.
    """
    sources = core_sources(target)
    mark = hashlib.sha256(repr((target, sources, compiler)).encode()).hexdigest()
    prefix = cache / f"core-{target.name}"
    if not marked(prefix, mark):
        with atomic_folder(prefix, STAMP) as folder, tempfile.TemporaryDirectory(prefix="edgerecall-src-") as work:
            apt = PrivateApt(Path(work) / "apt", own_architecture(), logs, say)  # sources are the same for all
            apt.update()
            (folder / "licences").mkdir()
            for name, options in sources.items():
                source = apt.source(name, Path(work) / "sources" / name)
                if name == "zlib":  # Debian leaves out what only Windows compiles, CMake wants to see it
                    (source / "win32").mkdir(exist_ok=True)
                    (source / "win32" / "zlib1.rc").touch()
                found = [f"-DCMAKE_PREFIX_PATH={folder}", f"-DCMAKE_FIND_ROOT_PATH={folder}"]
                if name == "libjpeg-turbo" and target.machine == "x86_64":
                    options = (*options, "-DREQUIRE_SIMD=ON")  # without nasm it would be slow, and say nothing
                only = ZLIB if name == "zlib" else ()
                cmake_library(name, source, options, [*toolchain, *found], folder, logs, *only)
                shutil.copyfile(source / "debian" / "copyright", folder / "licences" / f"{name}.txt")
            if target == WEB:
                apt.unpack([DOCTEST], Path(work) / "tests")
                shutil.copytree(Path(work) / "tests/usr/include/doctest", folder / "include/doctest")
            (folder / STAMP).write_text(mark)
    return prefix
