"""Sleeping processes of several users, for jobs to find, signal and trace."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from execdrv_conformance.canary import Place
from execdrv_conformance.observe import process

#: User and group of the canary that is not root; jobs of `pid.*` run as this user too.
USER = 54321


class ProcessCanary:
    """One process of root, one of USER; both end with the stand-in host.

    Each carries a secret in its environment, and has a random word in its memory.
    """

    def __init__(self, place: Place) -> None:
        self.secret = os.urandom(8).hex()
        self._name = f"{place.run}-canary"
        # Where this stand-in host has one user only, made without root, its canary is root's too.
        self.uid = USER if _is_mapped(USER) else 0
        self.pids = {uid: self._start(uid) for uid in sorted({0, self.uid})}

    def _start(self, uid: int) -> int:
        pid = os.fork()
        if pid:
            self._wait_named(pid)
            return pid
        try:
            for number in range(3):
                os.dup2(os.open("/dev/null", os.O_RDWR), number)
            os.closerange(3, 4096)
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            environment = {"XDC_CANARY": self.secret}
            os.execve("/bin/sleep", [self._name, "86400"], environment)
        finally:
            os._exit(127)

    def _wait_named(self, pid: int) -> None:
        deadline = time.monotonic() + 5
        while process.read_words(pid)[:1] != [self._name.encode()]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"canary process {pid} did not start")
            time.sleep(0.001)

    def facts(self) -> dict[str, Any]:
        """Numbers, name and secret."""
        return {
            "root": self.pids[0],
            "user": self.pids[self.uid],
            "uid": self.uid,
            "name": self._name,
            "secret": self.secret,
        }

    def look(self) -> dict[str, Any]:
        """Whether each lives, is traced, stopped, or has signals pending."""
        seen: dict[str, Any] = {}
        for name, uid in (("root", 0), ("user", self.uid)):
            pid = self.pids[uid]
            if not process.is_alive(pid):
                seen[name] = {"alive": False}
                continue
            status = process.read_status(pid)
            seen[name] = {
                "alive": True,
                "tracer": int(status["TracerPid"]),
                "pending": int(status["SigPnd"], 16) | int(status["ShdPnd"], 16),
                "state": status["State"][:1],
            }
        return seen

    def revive(self) -> None:
        """Start again what a job has ended or stopped."""
        for uid, pid in self.pids.items():
            if not process.is_alive(pid):
                self.pids[uid] = self._start(uid)
            else:
                os.kill(pid, signal.SIGCONT)


def _is_mapped(uid: int) -> bool:
    """Whether this user namespace has a user of that number (user_namespaces(7))."""
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= uid < first + count:
            return True
    return False
