"""Furnishes the stand-in host, so that missing isolation shows: names, canaries, the caller itself.

The worker, which is the caller of every container, has what a careless driver would pass on: a
secret variable, an inheritable directory descriptor, a supplementary group, ignored and blocked
signals, a tight umask. Runs once, in the worker.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from typing import Any

import attrs

from execdrv_conformance import kernel
from execdrv_conformance.canary import Place
from execdrv_conformance.canary.files import FileCanary
from execdrv_conformance.canary.ipc import IpcCanary
from execdrv_conformance.canary.network import NetworkCanary
from execdrv_conformance.canary.process import ProcessCanary
from execdrv_conformance.observe import process

#: A supplementary group of the caller, which no job has asked for.
CALLER_GROUP = 54399
CALLER_UMASK = 0o027
#: CAP_CHOWN, which every root has: in the caller's inheritable set, that an exec keeps
#: (CVE-2022-24769).
CALLER_CAPABILITY = 0
#: Small: it must not decide whom the kernel ends.
CALLER_OOM_SCORE_ADJ = 17


@attrs.define(kw_only=True)
class Canaries:
    """All canaries of one stand-in host."""

    place: Place
    hostname: str
    files: FileCanary
    processes: ProcessCanary
    network: NetworkCanary
    ipc: IpcCanary
    #: Name and value of a variable of the caller's.
    variable: tuple[str, str]
    descriptor: int

    def facts(self) -> dict[str, Any]:
        """Everything that probes and judges may know, as plain data."""
        return {
            "hostname": self.hostname,
            "files": self.files.facts(),
            "processes": self.processes.facts(),
            "network": self.network.facts(),
            "ipc": self.ipc.facts(),
            "variable": list(self.variable),
            "descriptor": self.descriptor,
            "group": CALLER_GROUP,
            "namespaces": process.read_namespaces("self"),
        }


def furnish(place: Place) -> Canaries:
    """Make all of it."""
    hostname = f"{place.run}-machine"
    kernel.sethostname(hostname)
    files = FileCanary(place)
    canaries = Canaries(
        place=place,
        hostname=hostname,
        files=files,
        processes=ProcessCanary(place),
        network=NetworkCanary(place),
        ipc=IpcCanary(place),
        variable=("XDC_CALLER", os.urandom(8).hex()),
        descriptor=files.hold_descriptor(),
    )
    _become_careless(canaries)
    return canaries


def _become_careless(canaries: Canaries) -> None:
    name, value = canaries.variable
    # os.environ alone would do for children; the kernel's own list stays as it was.
    os.environ[name] = value
    # Without root the stand-in host is a user namespace in which groups can't be set.
    with contextlib.suppress(OSError):
        os.setgroups(sorted({*os.getgroups(), CALLER_GROUP}))
    with contextlib.suppress(OSError):
        kernel.add_inheritable(CALLER_CAPABILITY)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN + 3})
    os.umask(CALLER_UMASK)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(CALLER_OOM_SCORE_ADJ))
    # The hard limit stays: nothing here may depend on raising one again.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
