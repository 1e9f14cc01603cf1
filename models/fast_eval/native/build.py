"""The kernels: compiled when first asked for, kept for the next time, loaded as operators of torch."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from torch import library

from genutil.errors import UserError

KERNELS = Path(__file__).with_name("kernels")
SOURCES = ("operator.cpp", "product.cpp", "run.cpp", "threads.cpp")
NAME = "wirings_native"

log = logging.getLogger(__name__)


def compiler() -> str | None:
    """Path of the C++ compiler, $CXX or else c++; None where there is none."""
    return shutil.which(shlex.split(os.environ.get("CXX") or "c++")[0])


def flags() -> list[str]:
    """For this machine's own processor; everything that IEEE 754 says of values stays."""
    own = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    return ["-O3", own, "-fno-math-errno", "-fno-trapping-math"]


@lru_cache(maxsize=1)
def load_kernels() -> None:
    """Makes `torch.ops.wirings_native` usable. The first time on a machine it compiles, for ten seconds.

    Compiled kernels are kept in $TORCH_EXTENSIONS_DIR, else in ~/.cache/wirings.

    Raises:
        UserError: there is no C++ compiler, or it refuses, or the folder cannot be used.
    """
    if _loaded():  # a second time the operators would be defined twice, which ends the process
        return
    found = compiler()
    if found is None:
        raise UserError(
            "engine native needs a C++ compiler. Install one (Debian: apt-get install g++), name one in "
            "$CXX, or take another --engine"
        )
    folder = _cache() / _key(found)
    try:
        if not _load(folder / f"{NAME}.so"):
            _compile(folder)
    except OSError as error:
        raise UserError(
            f"engine native cannot be kept in {folder}: {error}. Name another folder in "
            "$TORCH_EXTENSIONS_DIR, or take another --engine"
        ) from error
    except (RuntimeError, ImportError, subprocess.SubprocessError) as error:
        lines = [line for line in str(error).splitlines() if "error:" in line] or [str(error)]
        raise UserError(
            "engine native could not be compiled. Take another --engine, or another compiler in $CXX; "
            f"{found} says:\n" + "\n".join(lines[:10])
        ) from error
    _register_fakes()


def _loaded() -> bool:
    return hasattr(torch.ops.wirings_native, "run")


def _load(compiled: Path) -> bool:
    """Whether there were kernels to load; a file that cannot be loaded is removed."""
    if not compiled.exists():
        return False
    try:
        torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
    except OSError as error:
        log.warning("%s cannot be loaded and is compiled anew: %s", compiled, error)
        shutil.rmtree(compiled.parent)
        return False
    return True


def _compile(folder: Path) -> None:
    """Compiles and loads the kernels; they come to their place whole or not at all."""
    log.info("compiling the native engine, once on this machine, into %s", folder)
    # At import it warns if there is no CUDA, which nothing here needs.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import cpp_extension

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        sources = [str(KERNELS / name) for name in SOURCES]
        cpp_extension.load(NAME, sources, extra_cflags=flags(), build_directory=place, is_python_module=False)
        done = Path(place, "done")
        done.mkdir()
        (made,) = Path(place).glob("*.so")  # a second attempt of a process has another name
        shutil.copy(made, done / f"{NAME}.so")
        try:
            done.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster
                raise


def _cache() -> Path:
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / "wirings"
    except RuntimeError as error:
        raise UserError(
            f"the native engine has no place to be kept: {error} Name one in $TORCH_EXTENSIONS_DIR"
        ) from error


def _key(found: str) -> str:
    """Another compiler, processor, torch or source makes another library."""
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    text = [os.environ.get("CXX", ""), *flags(), torch.__version__, platform.machine(), _processor(), version]
    text += [path.read_text() for path in sorted(KERNELS.iterdir())]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


def _processor() -> str:
    """What the processor can do: a library for this one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _register_fakes() -> None:
    @library.register_fake(f"{NAME}::run")
    def run(images, steps, integers, values, normalisation, space, classes, threads, seconds=None):  # type: ignore[no-untyped-def]
        return images.new_empty(len(images), classes, dtype=torch.float32)

    @library.register_fake(f"{NAME}::product")
    def product(sources, starts, columns, weights, threads):  # type: ignore[no-untyped-def]
        return sources.new_empty(len(starts) - 1, sources.shape[1])
