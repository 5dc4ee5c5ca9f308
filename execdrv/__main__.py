"""`python -m execdrv`: the same as the command `execdrv`."""

from __future__ import annotations

import sys

from execdrv.cli import main

if __name__ == "__main__":
    sys.exit(main())
