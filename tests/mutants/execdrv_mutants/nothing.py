"""No isolation at all: says that it keeps everything, and keeps nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import ClassVar

from execdrv.driver import Box, Defaults, Driver, Isolated, Refusal
from execdrv.errors import StartError
from execdrv.limits import Limits, Receipt
from execdrv.linux.procfs import ProcessId, detect_process, send_signal
from execdrv.offers import Offers, enforced
from execdrv.spec import UNSET
from execdrv_mutants.process import read_environment
from execdrv_native.driver import NativeDriver


class NothingDriver(Driver):
    """Runs the command as a plain child, with the machine's root."""

    name = "nothing"
    contract = 1
    offers = Offers(
        {
            "base": enforced(),
            "fs": enforced(),
            "limits": enforced(),
            "container": enforced(),
            "hardened": enforced(),
            "hostile": enforced(),
        }
    )
    defaults: ClassVar[Defaults] = NativeDriver.defaults

    def check(self, box: Box) -> Sequence[Refusal]:
        return []

    def create(self, box: Box) -> None:
        """Nothing."""

    def isolate(self, box: Box) -> Isolated:
        return Isolated(init=None)

    def limit(self, box: Box, limits: Limits) -> Sequence[Receipt]:
        return [
            Receipt(name=name, status="applied", asked=name, value=name) for name in limits.names()
        ]

    def start(self, box: Box) -> ProcessId:
        pid = os.fork()
        if pid == 0:
            _become_job(box)
        process = detect_process(pid)
        if process is None:
            raise StartError(f"cannot start container {box.id!r}: its command has ended")
        box.facts["job"] = {"pid": process.pid, "start_time": process.start_time}
        return process

    def signal(self, box: Box, signum: int) -> None:
        send_signal(ProcessId(**box.facts["job"]), signum)

    def exit_of(self, box: Box, status: int) -> tuple[int | None, int | None]:
        if os.WIFSIGNALED(status):
            return None, os.WTERMSIG(status)
        return os.WEXITSTATUS(status), None

    def destroy(self, box: Box) -> None:
        job = box.facts.get("job")
        if job is not None:
            send_signal(ProcessId(**job), signal.SIGKILL)


def _become_job(box: Box) -> None:
    try:
        for number, fd in enumerate(box.stdio):
            os.dup2(fd, number)
        os.chdir(box.process.cwd)
        if box.spec.user is not UNSET:
            # The real ids stay: the way back is open.
            os.setegid(box.process.gid)
            os.seteuid(box.process.uid)
        # A plain child has its caller's variables too.
        words = (*read_environment(), *box.process.env)
        environment = dict(word.split(b"=", 1) for word in words)
        os.execvpe(box.process.argv[0], list(box.process.argv), environment)
    finally:
        os._exit(127)
