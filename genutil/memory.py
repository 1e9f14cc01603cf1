"""How much memory this process may still use, and the message where something would need more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from genutil.errors import ConfigError

_ROOT = Path("/")


def available_memory(root: Path = _ROOT) -> int | None:
    """Bytes that are free, swap included, within the limits of the process's control group; None: not known.

    Args:
        root: where `/proc` and `/sys` are looked for.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
        free = 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    limits = [left for left in (_left_in_group(root, *names) for names in _GROUP_FILES) if left is not None]
    return max(min([free, *limits]), 0)


_GROUP_FILES = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""(folder, limit, use, what a group would give back) of both versions of control groups, as seen inside."""


def _left_in_group(root: Path, folder: str, limit: str, used: str, cached: str) -> int | None:
    group = root / folder
    try:
        most, now = int((group / limit).read_text()), int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such file, or `max`
        return None
    return most - now + int(stat.get(cached, 0))


def require_memory(
    what: str, num_bytes: int, advice: str, available: Callable[[], int | None] = available_memory
) -> None:
    """Refuse what cannot be held in memory, before a kernel that runs out of it ends the process.

    Args:
        what: begins the message, and names the key and its value.
        num_bytes: how much it needs.
        advice: what to do.
        available: gives the bytes that are free.

    Raises:
        ConfigError: it needs more than is free.
    """
    free = available()
    if free is not None and num_bytes > free:
        raise ConfigError(f"{what} needs {gibibytes(num_bytes)}, and {gibibytes(free)} are free; {advice}")


def gibibytes(num_bytes: int) -> str:
    """A size as messages show it."""
    if num_bytes >= 2**80:
        return "more than 10^15 GiB"
    size = num_bytes / 1024**3
    return f"{size:,.0f} GiB" if size >= 10 else f"{size:.2g} GiB"
