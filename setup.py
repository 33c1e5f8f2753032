"""Hands the native build to CMake. What is built stands in CMakeLists.txt."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configures with ninja, builds, and installs the module where setuptools expects it."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, ("c++", "g++", "clang++")), "")]
        if shutil.which(compiler[0]) is None:
            sys.exit(
                f"infobatch_fast: no C++ compiler found (CXX={os.environ.get('CXX')!r}). Install one with C++20, for instance "
                "'apt-get install g++' or 'xcode-select --install', or name it in CXX, and install again."
            )
        # Not setuptools' build_temp: that is a new directory for each editable install, and nothing would be built incrementally.
        names = [sysconfig.get_platform(), str(sys.implementation.cache_tag), *(Path(word).name for word in compiler)]
        build = ROOT / "build" / "-".join(names)
        (build / "CMakeCache.txt").unlink(missing_ok=True)  # options, tools and compilers of a former build; its objects stay
        configure = [
            "cmake",
            *("-G", "Ninja"),
            *("-S", str(ROOT)),
            *("-B", str(build)),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *(f"-D{name}={os.environ[name]}" for name in ("INFOBATCH_CUDA", "INFOBATCH_SANITIZE") if name in os.environ),
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        jobs = ["--parallel", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        try:
            subprocess.run(configure, check=True)
            subprocess.run(["cmake", "--build", str(build), *jobs], check=True)
            subprocess.run(["cmake", "--install", str(build), "--prefix", str(target)], check=True)
        except subprocess.CalledProcessError as error:
            sys.exit(f"infobatch_fast: the native build failed at {shlex.join(error.cmd[:2])}; the reason stands above.")


if not os.access(ROOT, os.W_OK):  # setuptools and CMake write beside the sources, and setuptools does not say so
    sys.exit(
        f"infobatch_fast: {ROOT} is read-only, and the build writes into it: copy the folder to where you may write, and install "
        "the copy; or make an archive of it once, by python -m build --sdist in a copy, and pip install that"
    )

setup(ext_modules=[Extension("infobatch_fast.engine._core", sources=[])], cmdclass={"build_ext": CMakeBuild})
