"""Objects of System V and POSIX IPC, and keys, for jobs to find."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.canary import Place

_IPC_CREAT = 0o1000
#: Of the user keyring and of the session keyring (keyctl(2)).
_SESSION_RING, _USER_RING = -3, -4


class IpcCanary:
    """One segment, semaphore set, queue, shared memory object and message queue; two keys."""

    def __init__(self, place: Place) -> None:
        self.word = os.urandom(8).hex()
        self.key = secrets.randbelow(2**30) + 1
        self.segment = kernel.shmget(self.key, 4096, _IPC_CREAT | 0o666)
        kernel.shm_write(self.segment, self.word.encode())
        self.semaphores = kernel.semget(self.key, 1, _IPC_CREAT | 0o666)
        self.queue = kernel.msgget(self.key, _IPC_CREAT | 0o666)
        self.shared = f"{place.run}-{self.word}"
        Path("/dev/shm", self.shared).write_text(self.word)
        os.chmod(f"/dev/shm/{self.shared}", 0o666)
        self.mqueue = self._make_mqueue()
        self.keyring = self._make_keys(place)

    def _make_mqueue(self) -> bool:
        try:
            os.close(kernel.mq_open(self.shared, os.O_CREAT | os.O_RDWR))
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            return False
        return True

    def _make_keys(self, place: Place) -> bool:
        try:
            kernel.keyctl_join_session(place.run)
            kernel.add_key("user", f"{self.shared}-s", self.word.encode(), _SESSION_RING)
            kernel.add_key("user", f"{self.shared}-u", self.word.encode(), _USER_RING)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
            return False
        return True

    def facts(self) -> dict[str, Any]:
        """Keys, names and the word in each."""
        return {
            "key": self.key,
            "word": self.word,
            "name": self.shared,
            "mqueue": self.mqueue,
            "keyring": self.keyring,
        }

    def look(self) -> dict[str, Any]:
        """What is in the segment, and who has attached it."""
        content = kernel.shm_read(self.segment, 16).decode(errors="replace")
        attached = 0
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            words = line.split()
            if int(words[1]) == self.segment:
                attached = int(words[6])
        return {"content": content, "attached": attached}
