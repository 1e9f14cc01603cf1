"""What git ignores."""

import shutil
import subprocess

from tests.conftest import ROOT


def test_what_is_built_here_is_ignored(tmp_path):
    """A link to an environment elsewhere, what `pip install .` builds, folders of runs."""
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "environment").mkdir()
    (tmp_path / ".venv").symlink_to(tmp_path / "environment")
    for folder in ("build/lib", "runs/x", "checkpoints/x", "fig/build"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file.py").write_text("")
    done = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["?? .gitignore", "?? fig/build/file.py"]
