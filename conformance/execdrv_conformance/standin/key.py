"""Keys of a run in the user keyring: no namespace has one of its own, so they outlive processes.

The canary puts one there for jobs to find (canary/ipc.py); who ends a stand-in host, or sweeps,
removes it. Runs outside the stand-in host, as the same user.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from execdrv_conformance import kernel

#: KEY_SPEC_USER_KEYRING (keyctl(2)).
USER_RING = -4
_PATIENCE_S = 2.0


def list_keys(beginning: str) -> dict[int, str]:
    """The user keyring's keys whose name begins so, by number (proc_keys(5)).

    Those of a session keyring end with its last process, whenever the kernel comes to it.
    """
    found = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/keys").read_text().splitlines():
            words = line.split(None, 8)
            name = words[8].partition(":")[0] if len(words) == 9 else ""
            in_user_ring = name.startswith(beginning) and name.endswith("-u")
            if words[7:8] == ["user"] and in_user_ring:
                found[int(words[0], 16)] = name
    return found


def remove_keys(beginning: str) -> list[str]:
    """Take keys out of the user keyring, which ends them; may be repeated.

    Returns:
        The names of those that are left.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while keys := list_keys(beginning):
        for number in keys:
            with contextlib.suppress(OSError):
                kernel.keyctl_unlink(number, USER_RING)
        if time.monotonic() > deadline:
            return sorted(keys.values())
        time.sleep(0.005)
    return []
