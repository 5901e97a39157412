"""Builds the package: five top-level folders become one importable name, plus one CMake-built extension."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent

PACKAGE_DIR = {
    "edgerecall": "python/edgerecall",
    "edgerecall.cli": "python/edgerecall/cli",
    "edgerecall.cross": "python/edgerecall/cross",
    "edgerecall.train": "train",
    "edgerecall.train.backbones": "train/backbones",
    "edgerecall.train.data": "train/data",
    "edgerecall.export": "export",
    "edgerecall.runtimes": "runtimes",
    "edgerecall.bench": "bench",
}


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


setup(
    packages=list(PACKAGE_DIR),
    package_dir=PACKAGE_DIR,
    package_data={"edgerecall": ["py.typed"], "edgerecall.runtimes": ["*.pyi"]},
    ext_modules=[Extension("edgerecall.runtimes._native", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
