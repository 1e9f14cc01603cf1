"""The engine's library: compiled at first use, cached, loaded."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from wirings.errors import MissingPackageError, WiringError
from wirings.native.c_interface import Library

KERNELS = Path(__file__).with_name("kernels")
SOURCES = (
    "c_interface.cpp",
    "file.cpp",
    "network.cpp",
    "program.cpp",
    "steps.cpp",
    "targets.cpp",
    "threads.cpp",
)
NAME = "libwirings.so"
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
    return ["-std=gnu++17", "-O3", target, "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-pthread"]


@lru_cache(maxsize=1)
def load_kernels() -> Library:
    """The engine's library. The first call on a machine compiles it, which takes ten seconds.

    It is cached in $TORCH_EXTENSIONS_DIR, else in ~/.cache/wirings, and compiled again if its size or
    checksum differ from those of the build.

    Raises:
        MissingPackageError: there is no C++ compiler.
        WiringError: the compiler fails, or the folder cannot be used.
    """
    if compiler() is None:
        name = os.environ.get("CXX", "").strip()
        raise MissingPackageError(
            "engine native needs a C++ compiler. Install one (Debian: apt-get install g++), name one in "
            f"$CXX, or use another engine{f'; $CXX is {name}, which is not found' if name else ''}"
        )
    folder = _cache() / _key()
    try:
        return _load(folder) or _compile(folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    except subprocess.CalledProcessError as error:
        text = f"{error.stdout}{error.stderr}"
        if os.strerror(errno.ENOSPC) in text:
            raise _unusable(folder, os.strerror(errno.ENOSPC)) from error
        lines = [line for line in text.splitlines() if "error:" in line] or text.splitlines()[-10:]
        raise WiringError(
            "engine native could not be compiled. Use another engine, or another compiler in $CXX; "
            f"{shlex.join(command())} reports:\n" + "\n".join(lines[:10])
        ) from error


def _unusable(folder: Path, reason: object) -> WiringError:
    return WiringError(
        f"engine native cannot be cached in {folder}: {reason}. Set $TORCH_EXTENSIONS_DIR to another folder, "
        "or use another engine"
    )


def _load(folder: Path) -> Library | None:
    """The cached library, or None.

    The file is verified first: the system ends a process that reads a page beyond the end of a truncated
    library.
    """
    if not folder.exists():
        return None
    reason: object = "size or checksum differ from those of the build"
    if _is_intact(folder):
        try:
            return Library(folder / NAME)
        except OSError as error:
            reason = error
    _log.warning("the native engine in %s cannot be loaded and is compiled again: %s", folder, reason)
    return None


def _is_intact(folder: Path) -> bool:
    """Whether the library is, byte for byte, the one that was built."""
    try:
        return (folder / CHECKSUM).read_text(errors="replace") == _checksum(folder / NAME)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _checksum(library: Path) -> str:
    content = library.read_bytes()
    return f"{len(content)} {hashlib.sha256(content).hexdigest()}\n"


def _compile(folder: Path) -> Library:
    """Compile and load the library in a temporary folder, and rename the result to `folder`."""
    _log.info("compiling the native engine, once on this machine, into %s", folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A file that is still open may stay on a network file system.
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as name:
        made, done = Path(name) / NAME, Path(name) / "done"
        _build(made)
        library = Library(made)
        done.mkdir()
        (done / CHECKSUM).write_text(_checksum(made))
        shutil.copy(made, done / NAME)
        _put_in_place(done, folder)
    return library


def _build(path: Path) -> None:
    """Compile the library.

    Raises:
        subprocess.CalledProcessError: the compiler fails.
    """
    sources = [str(KERNELS / name) for name in SOURCES]
    words = command()
    first = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    # Options in $CXX follow ours, so that they take precedence.
    build = [*words[:first], *flags(), "-shared", *sources, "-o", str(path), *words[first:]]
    subprocess.run(build, check=True, capture_output=True, text=True, errors="replace")


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
    """Name of the cached library's folder: a hash of compiler, processor and source."""
    try:
        query = [*command(), "--version"]
        version = subprocess.run(query, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:  # it cannot be run: compiling reports that
        version = ""
    text = [shlex.join(command()), *flags(), platform.machine(), _processor(), version]
    text += [path.read_text() for path in sorted(KERNELS.iterdir())]
    return hashlib.sha256("\0".join(text).encode()).hexdigest()[:16]


def _processor() -> str:
    """Features of the processor: a library for this one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def build_library(path: str | Path) -> None:
    """Compile the library into a file, for programs without Python.

    Raises:
        MissingPackageError: there is no C++ compiler.
        WiringError: the compiler fails.
    """
    load_kernels()  # reports what is missing or fails
    shutil.copy(_cache() / _key() / NAME, path)


if __name__ == "__main__":
    build_library(sys.argv[1])
