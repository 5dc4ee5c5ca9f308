"""A whole driver: bubblewrap builds the walls, execdrv's init and groups do the rest."""

import os

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import IsolationError
from execdrv.hookspecs import hookimpl
from execdrv.limits import Limits, Receipt
from execdrv.linux.cgroups import apply_limits
from execdrv.linux.procfs import ProcessId, detect_process
from execdrv.linux.spawn import arrange_fds, spawn
from execdrv.offers import Offers, absent, enforced

BWRAP = "/usr/bin/bwrap"
WALLS = "--die-with-parent --as-pid-1 --cap-add ALL --unshare-pid --unshare-net --unshare-ipc"
WALLS += " --unshare-uts --unshare-cgroup --proc /proc --dev /dev --tmpfs /tmp"
LATER = absent("not looked at yet")


class BwrapDriver(Driver):
    name = "bwrap"
    contract = 1
    uses_group = True
    defaults = Defaults(uid=0, gid=0, capabilities=frozenset(), root_mode="read-only", net="none")
    offers = Offers(
        {"base": enforced(), "fs": LATER, "container": LATER, "hardened": LATER, "hostile": LATER}
        | {"limits": LATER, "mem.*": enforced(), "pids.*": enforced(), "cpu.quota": enforced()}
        | {"cpu.quota-sum": enforced(), "uts.hostname": enforced(), "fs.root": enforced()}
    )

    def check(self, box: Box) -> list[Refusal]:
        return [] if os.access(BWRAP, os.X_OK) else [Refusal(message=f"cannot find {BWRAP!r}")]

    def create(self, box: Box) -> None: ...

    def isolate(self, box: Box) -> Isolated:
        link, groups = box.init, box.group.procs_fds()

        def become_bwrap() -> None:
            for fd in groups:
                os.write(fd, b"0")
            root = os.readlink(f"/proc/self/fd/{box.root}")
            memfd, gate = arrange_fds(
                stdio=box.stdio, passed=box.passed, keep=[link.memfd, link.gate_fd]
            )
            walls = [*WALLS.split(), "--hostname", box.hostname, "--ro-bind", root, "/"]
            # Mounts are made in the order given: the root first.
            walls = [*walls[-3:], *walls[:-3]]
            os.execv(BWRAP, [BWRAP, *walls, "--", f"/proc/self/fd/{memfd}", str(gate)])

        process = detect_process(spawn(become_bwrap))
        if process is None:
            raise IsolationError("cannot isolate the container: bwrap ended at once")
        box.facts["bwrap"] = process.pid
        self._process = process
        link.wait_ready()
        return Isolated(init=process)

    def limit(self, box: Box, limits: Limits) -> list[Receipt]:
        return apply_limits(box.group, limits)

    def start(self, box: Box) -> ProcessId:
        box.init.open_gate(box.process)
        return self._process

    def destroy(self, box: Box) -> None: ...


class Plugin:
    @hookimpl
    def execdrv_drivers(self) -> list[type[Driver]]:
        return [BwrapDriver]


plugin = Plugin()
