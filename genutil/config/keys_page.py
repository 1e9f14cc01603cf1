"""The page of all keys, made from the schema: `python -m genutil.config.keys_page > docs/keys.md`."""

from __future__ import annotations

from genutil.config.command_line import explain, metavar
from genutil.config.schema import GROUPS


def keys_page() -> str:
    """Markdown: one table a group of keys."""
    lines = [
        "# The keys of an experiment",
        "",
        "Each can be set in a YAML file or on the command line (`--key value`). This page is generated from",
        "the schema by `python -m genutil.config.keys_page`; `python runner.py --help` prints the same.",
    ]
    for group in GROUPS:
        lines += [
            "",
            f"## {str(group.__doc__).capitalize()}",
            "",
            "| key | takes | meaning |",
            "|---|---|---|",
        ]
        for key, field in group.model_fields.items():
            takes = metavar(field).replace("|", " \\| ") or "true \\| false"
            lines.append(f"| `{key}` | {takes} | {explain(key, field).replace('%%', '%')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(keys_page(), end="")
