"""What a report says of the machine besides the facts of the stand-in host: to tell machines apart.

Runs in the front end, outside. Reads files of /proc, /sys and /etc; raises nothing for what is not
there.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from execdrv_conformance.observe import group


def describe_surroundings() -> dict[str, Any]:
    """Identity, distribution, control groups, security modules; plain data."""
    return {
        "id": _identify(),
        "distribution": _distribution(),
        "kernel_build": platform.version(),
        "cgroups": dict(sorted(_hierarchies().items())),
        "controllers": _read("/sys/fs/cgroup/cgroup.controllers").split(),
        "lsm": [name for name in _read("/sys/kernel/security/lsm").split(",") if name],
        "capabilities": _capabilities(),
        "in_container": os.path.exists("/run/systemd/container") or os.path.exists("/.dockerenv"),
    }


def _identify() -> str:
    """A word that two machines hardly share, and that gives nothing away (machine-id(5))."""
    known = _read("/etc/machine-id") or platform.node()
    return hashlib.sha256(f"execdrv-conformance {known}".encode()).hexdigest()[:12]


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _hierarchies() -> dict[str, str]:
    try:
        return group.list_hierarchies()
    except OSError:
        return {}


def _capabilities() -> str:
    lines = _read("/proc/self/status").splitlines()
    return next((line.split()[1] for line in lines if line.startswith("CapEff:")), "")


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
