"""The native engine's kernels come to be: compilers that fail, folders, second attempts."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from tests.helpers.engines import NEEDS_COMPILER
from tests.helpers.equality import assert_close
from tests.helpers.random_wirings import small_mobilenet
from wirings.compacting import compact
from wirings.errors import WiringError
from wirings.native import build

pytestmark = NEEDS_COMPILER


@pytest.fixture
def fresh_kernels(tmp_path, monkeypatch):
    """As on a machine that has not compiled them yet."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys.modules["wirings.compacting"], "load_kernels", build.load_kernels.__wrapped__)
    return monkeypatch


def test_without_a_compiler(fresh_kernels, caplog):
    fresh_kernels.setenv("CXX", "no-such-compiler")
    model = small_mobilenet()
    with pytest.raises(
        WiringError, match=r"needs a C\+\+ compiler. Install one \(Debian: apt-get install g\+\+\)"
    ):
        compact(model, "native")
    pixels = torch.randn(1, 3, 32, 32)
    assert_close(compact(model)(pixels), model(pixels))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith(
        "engine auto runs on torch's products, which are slower: engine native needs a C++"
    )


def test_a_compiler_that_refuses(fresh_kernels, tmp_path):
    script = tmp_path / "c++"
    script.write_text(
        "#!/bin/sh\ncase $* in *version*|*-v*) echo 13.2.0; exit;; esac\n"
        "echo 'run.cpp:1: error: cannot do that' >&2\nexit 1\n"
    )
    script.chmod(0o755)
    fresh_kernels.setenv("CXX", str(script))
    with pytest.raises(WiringError, match=r"could not be compiled.*\n.*error: cannot do that") as caught:
        compact(small_mobilenet(), "native")
    assert len(str(caught.value).splitlines()) < 15
    assert not list((tmp_path / "cache").glob("*/*.so"))


RETRY = """
import os, sys
from pathlib import Path
from wirings.errors import WiringError
from wirings.native import build

folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
os.environ["CXX"] = sys.argv[1]
try:
    build.load_kernels()
except WiringError:
    print("refused")
del os.environ["CXX"]
broken = folder / build._key()
broken.mkdir()
(broken / "libwirings.so").write_bytes(b"cut off")
build.load_kernels()
build.load_kernels.cache_clear()
build.load_kernels()
print(sorted(path.name for path in broken.iterdir()))
"""


@pytest.mark.slow
def test_a_second_attempt_after_a_failure(tmp_path):
    """In one process, with what is left of a library in the place of one."""
    script = tmp_path / "c++"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", RETRY, script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout == "refused\n['checksum', 'libwirings.so']\n", done.stderr[-3000:]


def test_a_folder_that_cannot_be_used(fresh_kernels, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(WiringError, match=r"cannot be cached in .*cache/.*Set \$TORCH_EXTENSIONS_DIR"):
        compact(small_mobilenet(), "native")


@pytest.fixture
def fast_build(fresh_kernels, tmp_path):
    """Kernels that are compiled by copying a file; gives the folder they are kept in and what was loaded."""
    content, loaded = bytes(range(256)) * 64, []

    def load(path):
        loaded.append(path.read_bytes())
        return path

    fresh_kernels.setattr(build, "_build", lambda path: path.write_bytes(content))
    fresh_kernels.setattr(build, "Library", load)
    build.load_kernels.__wrapped__()
    assert loaded == [content]
    return tmp_path / "cache" / build._key(), loaded


def truncated(length):
    def damage(folder):
        with open(folder / "libwirings.so", "r+b") as file:
            file.truncate(length)

    return damage


def flipped(place):
    def damage(folder):
        content = bytearray((folder / "libwirings.so").read_bytes())
        content[place] ^= 1
        (folder / "libwirings.so").write_bytes(content)

    return damage


def without_checksum(folder):
    (folder / "checksum").unlink()


def with_checksum(text):
    return lambda folder: (folder / "checksum").write_bytes(text)


def without_library(folder):
    (folder / "libwirings.so").unlink()


def emptied(folder):
    without_checksum(folder)
    without_library(folder)


def as_a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("no folder")


DAMAGES = {
    **{f"truncated to {length}": truncated(length) for length in (0, 1, 4096, 16383)},
    **{f"bit {place} flipped": flipped(place) for place in (0, 9000, 16383)},
    "longer": truncated(16385),
    "no checksum": without_checksum,
    "empty checksum": with_checksum(b""),
    "wrong checksum": with_checksum(b"16384 " + b"0" * 64 + b"\n"),
    "no text": with_checksum(b"\xff\xfe\x00"),
    "no library": without_library,
    "nothing": emptied,
    "a file": as_a_file,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_kernels_are_not_loaded_but_compiled_again(fast_build, name, caplog):
    folder, loaded = fast_build
    DAMAGES[name](folder)
    build.load_kernels.__wrapped__()
    assert loaded == [loaded[0]] * 2
    assert "is compiled again: size or checksum differ from those of the build" in caplog.text
    caplog.clear()
    build.load_kernels.__wrapped__()  # from the cache
    assert loaded == [loaded[0]] * 3
    assert not caplog.records
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_interrupted_build_leaves_nothing_that_is_loaded(fast_build, monkeypatch):
    folder, loaded = fast_build
    shutil.rmtree(folder)
    copy = shutil.copy

    def interrupted(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:4096])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.load_kernels.__wrapped__()
    assert not folder.exists()
    monkeypatch.setattr(shutil, "copy", copy)
    killed = folder.parent / "tmpkilled" / "done"  # what a killed process leaves
    killed.mkdir(parents=True)
    (killed / "libwirings.so").write_bytes(b"part")
    build.load_kernels.__wrapped__()
    assert loaded == [loaded[0]] * 3
    assert build._is_intact(folder)


def test_two_processes_that_compile_at_the_same_time(fast_build, monkeypatch, tmp_path):
    """The second finds the first one's kernels in their place and keeps them; damaged ones are replaced."""
    folder, _ = fast_build
    first = (folder / "libwirings.so").stat().st_ino

    def private():
        made = tmp_path / "private" / str(len(list(tmp_path.glob("private/*"))))
        done = made / "done"
        shutil.copytree(folder, done)
        return done

    build._put_in_place(private(), folder)
    assert (folder / "libwirings.so").stat().st_ino == first
    done = private()
    truncated(4096)(folder)
    with open(folder / "libwirings.so", "rb") as used:  # as a process that has loaded them
        build._put_in_place(done, folder)
        assert len(used.read()) == 4096
    assert build._is_intact(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_is_full_or_read_only(fresh_kernels, number, caplog):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    fresh_kernels.setattr(build.tempfile, "TemporaryDirectory", refuse)
    expected = rf"cannot be cached in .*{os.strerror(number)}.*Set \$TORCH_EXTENSIONS_DIR to another"
    with pytest.raises(WiringError, match=expected):
        compact(small_mobilenet(), "native")
    model, pixels = small_mobilenet(), torch.randn(1, 3, 32, 32)
    assert_close(compact(model)(pixels), model(pixels))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("engine auto runs on torch's products, which are slower: engine native cannot be")


def test_a_disk_that_is_full_for_the_compiler(fresh_kernels, tmp_path):
    with_compiler(
        fresh_kernels, tmp_path, "echo 'ld: final link failed: No space left on device' >&2; exit 1"
    )
    with pytest.raises(WiringError, match=r"cannot be cached in .*: No space left on device. Set"):
        compact(small_mobilenet(), "native")


def with_compiler(monkeypatch, folder, body, variable="{}"):
    """A compiler in $CXX that notes its arguments and does `body`. Gives the file of the notes."""
    script, notes = folder / "wrapper", folder / "notes"
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {notes}\ncase $* in *version*|*-v*) echo 13.2.0; exit;; esac\n{body}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", variable.format(script))
    return notes


@pytest.mark.parametrize(
    ("variable", "words", "options"),
    [("{} g++", ["g++"], []), ("{} -O0", [], ["-O0"]), (" {}  g++ -O1 -DA=1 ", ["g++"], ["-O1", "-DA=1"])],
)
def test_a_compiler_with_arguments(fresh_kernels, tmp_path, variable, words, options):
    """They are used, and those of ours that contradict them are not."""
    notes = with_compiler(fresh_kernels, tmp_path, "echo 'run.cpp:1: error: no'; exit 1", variable)
    before = os.environ["CXX"]
    with pytest.raises(WiringError, match=r"could not be compiled.*\n.*error: no"):
        compact(small_mobilenet(), "native")
    assert os.environ["CXX"] == before
    compiled = [line.split() for line in notes.read_text().splitlines() if ".cpp" in line]
    assert compiled
    for given in compiled:
        assert given[: len(words)] == words
        if options:
            last = [option for option in given if option in ("-O3", *options)]
            assert last[-len(options) :] == options


@pytest.mark.parametrize("given", [" ", "", "\t"])
def test_a_blank_name_means_the_default(monkeypatch, given):
    monkeypatch.setenv("CXX", given)
    blank = build.command(), build._key()
    monkeypatch.delenv("CXX")
    assert blank == (["c++"], build._key())


@pytest.mark.slow
@pytest.mark.parametrize("given", [" ", "g++ -O0"])
def test_kernels_by_an_unusual_name(tmp_path, given):
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache"), "CXX": given}
    code = "from wirings.native import load_kernels; load_kernels()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "cache").glob("*/libwirings.so"))) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/nonexistent", r"needs a C\+\+ compiler.*\$CXX is /nonexistent, which is not found"),
        ("g++ '", r"cannot read \$CXX=g\+\+ ': No closing quotation"),
    ],
)
def test_a_compiler_that_cannot_be_found(fresh_kernels, given, message):
    fresh_kernels.setenv("CXX", given)
    with pytest.raises(WiringError, match=message):
        compact(small_mobilenet(), "native")


def slow(value):
    """A value that is tried in `make test-all` alone."""
    return pytest.param(value, marks=pytest.mark.slow)


TRUNCATED = """
import shutil, sys
from pathlib import Path
from wirings.native import build

good, length = Path(sys.argv[1]), int(sys.argv[2])
build._build = lambda path: shutil.copy(good, path)
folder = build._cache() / build._key()
folder.mkdir(parents=True)
(folder / "libwirings.so").write_bytes(good.read_bytes()[:length])
build.load_kernels()
print("whole" if (folder / "libwirings.so").read_bytes() == good.read_bytes() else "damaged")
"""


@pytest.mark.parametrize("part", [slow(0.3), 0.6, slow(0.95)])
def test_a_truncated_library_does_not_end_the_process(tmp_path, part):
    build.load_kernels()
    (good,) = (build._cache() / build._key()).glob("*.so")
    length = int(good.stat().st_size * part)
    environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", TRUNCATED, str(good), str(length)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-3000:]
