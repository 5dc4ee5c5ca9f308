"""Checks of `io` (streams) and `tty` (terminals).

stdio_stream         what passes by a stream: all of it, in its order, to the right end
stdio_end            an end of a pipe that somebody holds, or has let go
stdio_terminal       terminals
"""

from __future__ import annotations

from execdrv_conformance.check import Check
from execdrv_conformance.checks import stdio_end, stdio_stream, stdio_terminal

CHECKS: tuple[Check, ...] = (
    *stdio_stream.CHECKS,
    *stdio_end.CHECKS,
    *stdio_terminal.CHECKS,
)
