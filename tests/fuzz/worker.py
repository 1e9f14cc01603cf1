"""A process of `tests.fuzz.pool`: FOLDER SEED COUNTS, the last as JSON by kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.fuzz.pool import work

if __name__ == "__main__":
    work(json.loads(sys.argv[3]), int(sys.argv[2]), Path(sys.argv[1]))
