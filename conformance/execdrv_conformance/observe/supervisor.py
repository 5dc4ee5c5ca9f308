"""The processes of execdrv's own: fork servers, and supervisors of containers.

Found by the kernel's word: who listens on a container's socket (SO_PEERCRED), and the command of a
process. Checks end these processes to see what becomes of containers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from execdrv_conformance.observe import process

#: A fork server's command has this in it, and with it those of the supervisors it forks.
_PROGRAM = b"execdrv.supervisor.server"


def list_servers() -> list[int]:
    """Fork servers, and supervisors that outlived theirs."""
    own = {pid for pid in process.list_pids() if _runs_program(pid)}
    found = []
    for pid in sorted(own):
        with contextlib.suppress(OSError):
            if process.parent_of(pid) not in own:
                found.append(pid)
    return found


def list_supervisors(server: int) -> list[int]:
    """Supervisors of a fork server that live."""
    return [pid for pid in process.list_children(server) if process.is_alive(pid)]


def _runs_program(pid: int) -> bool:
    try:
        return any(_PROGRAM in word for word in process.read_words(pid))
    except OSError:
        return False


def find_supervisor(state: Path, container: str) -> int:
    """The process that listens on a container's socket; 0 if none does.

    Args:
        state: the state directory.
        container: its id.
    """
    with socket.socket(socket.AF_UNIX) as line:
        try:
            # By descriptor: a path may be longer than sun_path.
            directory = os.open(state / "containers" / container, os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return 0
        try:
            line.connect(f"/proc/self/fd/{directory}/socket")
        except OSError:
            return 0
        finally:
            os.close(directory)
        credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iii", credentials)[0])


def kill_together(pids: Iterable[int]) -> list[int]:
    """Kill processes at the same moment: none sees the other's end.

    Returns:
        Those that still live after two seconds.
    """
    chosen = [pid for pid in dict.fromkeys(pids) if pid > 1]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    return process.wait_ended(chosen, timeout_s=2.0)
