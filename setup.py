"""Builds the package: top-level folders become one importable name, plus one CMake-built extension.

Environment: CMAKE_ARGS (options for CMake), and for wheels that leave the machine (scripts/make_wheels.py)
EDGERECALL_DEVICE_PROGRAM (the program to pack) and EDGERECALL_LICENCES (a folder of what is linked in).
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# Top-level folders by the name that they are imported under; their sub-packages follow from the folders.
PACKAGE_DIR = {
    "edgerecall": "python/edgerecall",
    "edgerecall.bench": "bench",
    "edgerecall.cli": "cli",
    "edgerecall.configs": "configs",
    "edgerecall.cross": "cross",
    "edgerecall.export": "export",
    "edgerecall.runtimes": "runtimes",
    "edgerecall.serve": "serve",
    "edgerecall.train": "train",
}
# What 'edgerecall cross' builds from where there is no checkout.
SOURCES = (
    "CMakeLists.txt",
    "CMakePresets.json",
    "LICENSE",
    "cmake",
    "cpp",
    "runtimes/bundle/bundle.schema.json",
    "runtimes/core/contract.json",
    "tests/golden",
    "web",
)


def packages() -> "dict[str, str]":
    """Every package and its folder."""
    found = dict(PACKAGE_DIR)
    for package, folder in PACKAGE_DIR.items():
        for init in sorted((ROOT / folder).rglob("__init__.py")):
            inner = init.parent.relative_to(ROOT / folder).parts
            found[".".join([package, *inner])] = init.parent.relative_to(ROOT).as_posix()
    return found


class CMakeBuild(build_ext):
    """Configures and builds `_native` with CMake, into the place setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        build_dir = Path(self.build_temp).resolve() / ext.name
        build_dir.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build_dir),
            "-DCMAKE_BUILD_TYPE=Release",
            "-DEDGERECALL_BUILD_PYTHON=ON",
            f"-DEDGERECALL_PYTHON_OUTPUT_DIR={output.parent}",
            f"-DPython_EXECUTABLE={sys.executable}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        subprocess.run(configure, check=True)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
        subprocess.run(["cmake", "--build", str(build_dir), "--parallel", jobs], check=True)


class PackedBuild(build_py):
    """Adds what is no Python: the core's source, the program for this machine, licences of what is linked in."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "edgerecall"
        shutil.rmtree(package / "cross" / "source", ignore_errors=True)
        for name in SOURCES:
            target = package / "cross" / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("node_modules", "dist"))
            else:
                shutil.copy2(ROOT / name, target)
        program, licences = (os.environ.get(f"EDGERECALL_{name}") for name in ("DEVICE_PROGRAM", "LICENCES"))
        if program:
            (package / "bin").mkdir(parents=True, exist_ok=True)
            shutil.copy2(program, package / "bin" / "edgerecall-device")
        if licences:
            shutil.copytree(licences, package / "licences", dirs_exist_ok=True)


setup(
    packages=sorted(packages()),
    package_dir=packages(),
    package_data={
        "edgerecall": ["py.typed"],
        "edgerecall.configs": ["*.yaml"],
        "edgerecall.runtimes": ["*.pyi"],
        "": ["*.json", "*.j2", "web/*"],
    },
    ext_modules=[Extension("edgerecall.runtimes._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": PackedBuild},
)
