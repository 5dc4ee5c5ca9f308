"""Checks of `io`: the bandwidth of block devices."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from execdrv.spec import Bind
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks.limit_cpu import TOLERANCE
from execdrv_conformance.finding import Arm, Finding, expect


def _bind_disk(bench: Bench) -> dict[str, Any]:
    return {"binds": (Bind(source=str(bench.canaries.files.directory), target="/mnt"),)}


#: With a directory that is on a disk: a private root may be in memory.
DISK = Case(name="disk", more_fields=_bind_disk, exclusive=True)

#: Far below what any disk does, and what a limit would be set to.
SLOW_BYTES_PER_S = 1 << 20
SLOW_OPS_PER_S = 8


def _disks(look: Look) -> list[str]:
    """The bound directory, under its own name where there are no walls; else one of the root's."""
    return [str(look.canaries.files.directory), "/mnt", "/tmp"]


def _read_written(look: Look) -> dict[str, Any]:
    for line in Path(f"/proc/{look.pid}/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return {"written": int(value), "at_s": time.monotonic()}
    return {}


def _judge_bandwidth(arm: Arm) -> Finding:
    rate = arm.inside.decimal("bytes_per_s")
    return expect(rate <= SLOW_BYTES_PER_S * (1 + TOLERANCE), f"{rate / 2**20:.1f} MiB/s")


def _judge_operations(arm: Arm) -> Finding:
    rate = arm.inside.decimal("ops_per_s")
    return expect(rate <= SLOW_OPS_PER_S * (1 + TOLERANCE), f"{rate:.0f} operations/s")


def _written_per_s(arm: Arm) -> float:
    before = arm.outside.table("before")
    written = arm.outside.number("written") - int(before["written"])
    return written / (arm.outside.decimal("at_s") - float(before["at_s"]))


def _judge_written(arm: Arm) -> Finding:
    rate = _written_per_s(arm)
    return expect(rate <= SLOW_BYTES_PER_S * (1 + TOLERANCE), f"{rate / 2**20:.1f} MiB/s")


def _judge_written_blocks(arm: Arm) -> Finding:
    rate = _written_per_s(arm) / 4096
    return expect(rate <= SLOW_OPS_PER_S * (1 + TOLERANCE), f"{rate:.0f} blocks/s")


CHECKS = (
    Check(
        id="io.bps",
        cases=(DISK,),
        probe="limit:write_blocks",
        arguments=lambda look: {"directories": _disks(look), "size": 1 << 20, "count": 4},
        before=_read_written,
        observe=_read_written,
        inside=_judge_bandwidth,
        outside=_judge_written,
        likely="no throttle is set",
    ),
    Check(
        id="io.iops",
        cases=(DISK,),
        probe="limit:write_blocks",
        arguments=lambda look: {"directories": _disks(look), "size": 4096, "count": 32},
        before=_read_written,
        observe=_read_written,
        inside=_judge_operations,
        outside=_judge_written_blocks,
        likely="no throttle is set",
    ),
)
