"""Tables of text that read well on a screen and are Markdown: see wirings.tables."""

from wirings.tables import markdown_table

__all__ = ["markdown_table"]
