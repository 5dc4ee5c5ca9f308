"""The demonstration of `make run`: one command under every driver, and what it could see.

Each driver gets the limits that it offers; the memory limit is what the kernel says of it (the
receipt). Then one driver is asked for what it can't keep, to show how that is refused. It uses the
command line only, as a stranger would.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXECDRV = Path(sys.executable).with_name("execdrv")
STATUS = 7  #: What the job exits with: any other number is not the job's.
REFUSED = 125
TIMEOUT_S = 120  #: The first run also makes the default root file system.

LIMITS = {
    "native": ("--memory=64M", "--pids=16", "--cpus=0.5"),
    "lxc": ("--memory=64M", "--pids=16", "--cpus=0.5"),
    "chroot": ("--rlimit=nofile=256",),
}
REFUSAL = ("--driver=chroot", "--memory=64M")

#: Prints one value a line, in the order of COLUMNS; an empty line is something it can't see.
#: Counted with the shell's own means, so that the counting adds no process.
JOB = f"""
uname -n
set -- /proc/[0-9]*; if [ -e "$1" ]; then echo $#; else echo; fi
echo $(ip -o link 2>/dev/null | while read -r number name rest; do echo "${{name%:}}"; done)
id -u
exit {STATUS}
"""
COLUMNS = ("driver", "host name", "processes", "interfaces", "uid", "memory limit", "exit status")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [EXECDRV, "run", *arguments, "--", "sh", "-c", JOB],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def last_line(text: str) -> str:
    """The error of a command that wrote its progress before."""
    return text.strip().rpartition("\n")[2]


def show_progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def memory_limit(outcome: dict[str, Any]) -> str:
    """The memory limit as the kernel holds it, from the receipt."""
    for receipt in outcome["receipts"]:
        if receipt["name"] == "memory":
            return f"{int(receipt['value']) >> 20}M"
    return ""


def why_unavailable(driver: str) -> str:
    """Why a driver can't work here at all, or an empty text."""
    command = [EXECDRV, "drivers", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    entries = {entry["name"]: entry for entry in json.loads(done.stdout)}
    return entries[driver]["problem"] or "" if driver in entries else "it is not installed"


def make_row(driver: str) -> tuple[tuple[str, ...], str]:
    """One row of the table, and what the driver had to say when it ran nothing."""
    start = time.monotonic()
    show_progress(f"running under {driver} ...")
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory, "result")
        done = run(f"--driver={driver}", f"--result={result}", *LIMITS[driver])
        outcome = json.loads(result.read_text()) if result.exists() else {"receipts": []}
    show_progress(f" {time.monotonic() - start:.1f} s\n")
    if done.returncode == REFUSED:
        reason = why_unavailable(driver)
        word = "unavailable" if reason else "refused"
        return (driver, *["-"] * (len(COLUMNS) - 2), word), reason or last_line(done.stderr)
    seen = (done.stdout.split("\n") + [""] * len(COLUMNS))[: len(COLUMNS) - 3]
    values = (value or "-" for value in (*seen, memory_limit(outcome)))
    remark = "" if done.returncode == STATUS else last_line(done.stderr)
    return (driver, *values, str(done.returncode)), remark


def main() -> None:
    results = [make_row(driver) for driver in LIMITS]
    rows = [COLUMNS, *(row for row, _ in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    print()
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    for row, remark in results:
        if remark:
            print(f"\n{row[0]}: {remark}")
    print(f"\n$ execdrv run {' '.join(REFUSAL)} -- true")
    print(last_line(run(*REFUSAL).stderr))


if __name__ == "__main__":
    main()
