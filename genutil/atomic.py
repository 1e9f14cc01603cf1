"""Files that are either whole or not there: see wirings.files."""

from wirings.files import write_atomically

__all__ = ["write_atomically"]
