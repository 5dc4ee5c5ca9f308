"""Inits with one change each, built from the C file of execdrv when they are first needed.

Needs gcc and a static C library, as execdrv's own installation does. The programs are kept in a
directory of the temporary directory that belongs to the caller alone.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import execdrv.init
from execdrv.driver import Box
from execdrv.errors import IsolationError
from execdrv.init.binary import seal_program

#: Name of the change -> what is replaced in the source, once each, and by what.
CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "exit-code-1": (("? info->si_status << 8", "? (info->si_status ? 1 : 0) << 8"),),
    "exit-code-7-bits": (("? info->si_status << 8", "? (info->si_status & 0x7f) << 8"),),
    "signal-0": ((": info->si_status | (info->si_code == CLD_DUMPED ? 0x80 : 0)", ": 0"),),
    "sigpipe-ignored": (
        ("    set_signals(0, 0);\n", "    set_signals(0, 0);\n    signal(SIGPIPE, SIG_IGN);\n"),
    ),
    "sigterm-ignored": (
        ("    set_signals(0, 0);\n", "    set_signals(0, 0);\n    signal(SIGTERM, SIG_IGN);\n"),
    ),
    "signals-blocked": (
        ("    set_signals(0, 0);\n", "    set_signals(0, 1ul << (SIGUSR1 - 1));\n"),
    ),
    "no-reaper": (
        # It looks at the job alone, so that orphans stay zombies.
        ("SYS_waitid, P_ALL, 0, &info,", "SYS_waitid, P_PID, job, &info,"),
    ),
    "deaf": (
        # It hears neither its supervisor's death nor the end of its gate.
        (
            "    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* died already?",
            "    /* died already?",
        ),
        ("    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a change of", "    /* a change of"),
        (
            "            if (read(gate, scratch, sizeof scratch) <= 0)\n                _exit(0);",
            "            if (read(gate, scratch, sizeof scratch) <= 0)\n"
            "                watched[0].fd = -1;",
        ),
    ),
    "no-chdir": (
        ('    umask(0);\n    if (chdir("/") < 0)', "    umask(0);\n    if (0)"),
        (
            "if (chdir(order->cwd) < 0)",
            "if (!order->cwd[1])\n        return;\n    if (chdir(order->cwd) < 0)",
        ),
    ),
}


def build_init(name: str) -> Path:
    """The program with a change, built if it is not there yet.

    Raises:
        ValueError: the source does not hold what is to be replaced.
        subprocess.CalledProcessError: it can't be compiled.
    """
    source = (Path(execdrv.init.__file__).parent / "execdrv-init.c").read_text()
    for old, new in CHANGES[name]:
        if source.count(old) != 1:
            raise ValueError(f"the source holds {old!r} {source.count(old)} times")
        source = source.replace(old, new)
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    program = _cache_directory() / f"{name}-{digest}"
    if not program.exists():
        draft = program.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-std=gnu11", "-O2", "-static", "-s", "-x", "c", "-", "-o", str(draft)]
        # A supervisor has no environment, and so no PATH.
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        subprocess.run(command, input=source.encode(), check=True, env=environment)
        draft.rename(program)
    return program


def _cache_directory() -> Path:
    path = Path(tempfile.gettempdir()) / f"execdrv-mutants-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is not a directory of our own")
    return path


def use_init(box: Box, name: str) -> None:
    """Have this container's init be the one with a change."""
    if box.init is None:
        raise IsolationError(f"cannot isolate container {box.id!r}: it was given no init")
    box.init.memfd = seal_program(build_init(name).read_bytes())
