"""`python -m wirings`: see wirings.command."""

import sys

from wirings.command import main

if __name__ == "__main__":
    sys.exit(main())
