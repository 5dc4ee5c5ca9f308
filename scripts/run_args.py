"""Becomes `execdrv run` with the arguments in $ARGS, split as a shell would split them.

Quotes and backslashes work as in a shell; variables, globs and command substitutions are left
alone: what stands in quotes reaches the job's own shell.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path


def main() -> None:
    try:
        arguments = shlex.split(os.environ.get("ARGS", ""))
    except ValueError as error:
        sys.exit(f"cannot read ARGS: {str(error).lower()}")
    program = Path(sys.executable).with_name("execdrv")
    os.execv(program, [str(program), "run", *arguments])


if __name__ == "__main__":
    main()
