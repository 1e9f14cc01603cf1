"""Kernels: compiled at first use, cached, loaded as operators of torch."""

from __future__ import annotations

import errno
import hashlib
import itertools
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import library

from wirings.errors import MissingPackageError, WiringError

KERNELS = Path(__file__).with_name("kernels")
SOURCES = ("operator.cpp", "product.cpp", "run.cpp", "threads.cpp")
NAME = "wirings_native"
CHECKSUM = "checksum"
"""File next to the library with its size in bytes and its SHA-256."""

_log = logging.getLogger(__name__)


def command() -> list[str]:
    """Words of $CXX, such as `ccache g++ -O0`; `c++` if it is not set or blank.

    Raises:
        WiringError: it has an opening quote without a closing one.
    """
    try:
        return shlex.split(os.environ.get("CXX", "")) or ["c++"]
    except ValueError as error:
        raise WiringError(f"engine native cannot read $CXX={os.environ['CXX']}: {error}") from error


def compiler() -> str | None:
    """Path of the C++ compiler, the first word of `command`; None: it is not installed."""
    return shutil.which(command()[0])


def flags() -> list[str]:
    """Compiler flags for this machine's processor; arithmetic stays that of IEEE 754."""
    target = "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"
    return ["-O3", target, "-fno-math-errno", "-fno-trapping-math"]


@lru_cache(maxsize=1)
def load_kernels() -> None:
    """Load `torch.ops.wirings_native`. The first call on a machine compiles, which takes ten seconds.

    Compiled kernels are cached in $TORCH_EXTENSIONS_DIR, else in ~/.cache/wirings. They are compiled again if
    size or checksum differ from those of the build.

    Raises:
        MissingPackageError: there is no C++ compiler, or no ninja.
        WiringError: the compiler fails, or the folder cannot be used.
    """
    if _loaded():  # a second time the operators would be defined twice, which ends the process
        return
    if compiler() is None:
        name = os.environ.get("CXX", "").strip()
        raise MissingPackageError(
            "engine native needs a C++ compiler. Install one (Debian: apt-get install g++), name one in "
            f"$CXX, or use another engine{f'; $CXX is {name}, which is not found' if name else ''}"
        )
    folder = _cache() / _key()
    try:
        if not _load(folder):
            _compile(folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    except (RuntimeError, ImportError, subprocess.SubprocessError) as error:
        text = str(error)
        if os.strerror(errno.ENOSPC) in text:
            raise _unusable(folder, os.strerror(errno.ENOSPC)) from error
        lines = [line for line in text.splitlines() if "error:" in line] or text.splitlines()[-10:]
        raise WiringError(
            "engine native could not be compiled. Use another engine, or another compiler in $CXX; "
            f"{shlex.join(command())} reports:\n" + "\n".join(lines[:10])
        ) from error
    _register_fakes()


def _unusable(folder: Path, reason: object) -> WiringError:
    return WiringError(
        f"engine native cannot be cached in {folder}: {reason}. Set $TORCH_EXTENSIONS_DIR to another folder, "
        "or use another engine"
    )


def _loaded() -> bool:
    return hasattr(torch.ops.wirings_native, "run")


def _load(folder: Path) -> bool:
    """Load cached kernels. Returns whether there were any.

    The file is verified first: the system ends a process that reads a page beyond the end of a truncated
    library.
    """
    if not folder.exists():
        return False
    reason: object = "size or checksum differ from those of the build"
    if _is_intact(folder):
        try:
            torch.ops.load_library(folder / f"{NAME}.so")  # type: ignore[no-untyped-call]
            return True
        except OSError as error:
            reason = error
    _log.warning("the native engine in %s cannot be loaded and is compiled again: %s", folder, reason)
    return False


def _is_intact(folder: Path) -> bool:
    """Whether the library is, byte for byte, the one that was built."""
    try:
        return (folder / CHECKSUM).read_text(errors="replace") == _checksum(folder / f"{NAME}.so")
    except (FileNotFoundError, NotADirectoryError):
        return False


def _checksum(library: Path) -> str:
    content = library.read_bytes()
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}\n"


def _compile(folder: Path) -> None:
    """Compile and load the kernels in a temporary folder, and rename the result to `folder`."""
    _log.info("compiling the native engine, once on this machine, into %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A file that is still open may stay on a network file system.
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
        private = Path(name)
        made, done = _build(private), private / "done"
        done.mkdir()
        (done / CHECKSUM).write_text(_checksum(made))
        shutil.copy(made, done / f"{NAME}.so")
        _put_in_place(done, folder)


def _build(private: Path) -> Path:
    """Compile the kernels in an empty folder and load them. Returns the library's file."""
    # At import it warns if there is no CUDA, which is not needed here.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import cpp_extension

    sources = [str(KERNELS / name) for name in SOURCES]
    with _environment(CXX=_program(private), PATH=_path_with_ninja()):
        cpp_extension.load(
            NAME, sources, extra_cflags=flags(), build_directory=str(private), is_python_module=False
        )
    (made,) = private.glob("*.so")  # in a second attempt of a process it has another name
    return made


def _program(private: Path) -> str:
    """The compiler as one file, as torch requires: for more than one word, a script in this folder.

    The options in $CXX also follow those of the build, so that they take precedence.
    """
    words = command()
    if len(words) == 1:
        return words[0]
    script = private / "c++"
    options = shlex.join(itertools.dropwhile(lambda word: not word.startswith("-"), words))
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@" {options}\n')
    script.chmod(0o700)
    return str(script)


def _path_with_ninja() -> str:
    """$PATH with ninja, for torch. pip may have installed it next to a Python that is not on $PATH.

    Raises:
        MissingPackageError: there is none.
    """
    path, scripts = os.environ.get("PATH", os.defpath), sysconfig.get_path("scripts")
    for folders in (path, os.pathsep.join([path, scripts])):
        if shutil.which("ninja", path=folders) is not None:
            return folders
    raise MissingPackageError(
        "engine native is compiled by torch, which needs ninja: pip install ninja, or use another engine"
    )


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Context in which these variables are set, for torch; a blank $CXX is an error there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _put_in_place(done: Path, folder: Path) -> None:
    """Rename `done` to `folder`, unless another process has put intact kernels there.

    Damaged kernels are moved, not deleted: a process that has loaded them still uses them.
    """
    while True:
        try:
            done.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        if _is_intact(folder):
            return
        with suppress(FileNotFoundError):  # another process has moved it
            folder.rename(Path(tempfile.mkdtemp(dir=done.parent)) / "old")


def _cache() -> Path:
    folder = os.environ.get("TORCH_EXTENSIONS_DIR")
    try:
        return Path(folder).expanduser() if folder else Path.home() / ".cache" / "wirings"
    except RuntimeError as error:
        raise WiringError(
            f"the native engine has no cache folder: {error} Set $TORCH_EXTENSIONS_DIR to one"
        ) from error


def _key() -> str:
    """Name of the cached library: a hash of compiler, processor, torch and source."""
    try:
        query = [*command(), "--version"]
        version = subprocess.run(query, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:  # it cannot be run: compiling reports that
        version = ""
    text = [shlex.join(command()), *flags(), torch.__version__, platform.machine(), _processor(), version]
    text += [path.read_text() for path in sorted(KERNELS.iterdir())]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


def _processor() -> str:
    """Features of the processor: a library for this one may not run on another."""
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
