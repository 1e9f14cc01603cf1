"""All kinds of inputs: where they are, and how many of the cases are theirs."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.fuzz.engine import Kind

KINDS = {
    "command lines": ("command_lines:CommandLines", 30),
    "YAML": ("yaml_texts:YamlTexts", 20),
    "checkpoints": ("checkpoints:Checkpoints", 15),
    "images": ("images:Images", 20),
    "exported files": ("exported:ExportedFiles", 5),
    "records": ("records:Records", 7),
    "commands": ("commands:Commands", 3),
}
"""Class and share by name."""


def make_kind(name: str, folder: Path) -> Kind:
    """The kind of this name; `folder` is for its valid inputs."""
    module, _, cls = KINDS[name][0].partition(":")
    made: Kind = getattr(importlib.import_module(f"tests.fuzz.{module}"), cls)(folder)
    return made


def counts(kinds: list[str], cases: int) -> dict[str, int]:
    """How many of all `cases` each kind gets; at least one."""
    whole = sum(KINDS[kind][1] for kind in kinds)
    found = {kind: max(1, round(cases * KINDS[kind][1] / whole)) for kind in kinds}
    most = max(found, key=lambda kind: found[kind])
    found[most] = max(1, found[most] + cases - sum(found.values()))
    return found
