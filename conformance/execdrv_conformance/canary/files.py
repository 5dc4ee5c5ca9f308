"""Files of the machine outside every root: a secret, a writable directory, a shared mount."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from execdrv_conformance import kernel
from execdrv_conformance.canary import Place


class FileCanary:
    """A directory whose name no job can guess, with a secret that everybody may read."""

    def __init__(self, place: Place) -> None:
        self.word = os.urandom(8).hex()
        # Every user may pass: what keeps a job out must be its walls, not a mode.
        self.directory = place.scratch / f"canary-{os.urandom(4).hex()}"
        self.directory.mkdir(mode=0o777)
        self.directory.chmod(0o777)
        self.secret = self.directory / "secret"
        self.secret.write_text(self.word)
        self.secret.chmod(0o666)
        self.shared = self.directory / "shared"
        self.shared.mkdir()
        kernel.mount("xdc", str(self.shared), "tmpfs", 0, "size=1m")

    def facts(self) -> dict[str, Any]:
        """Paths, the word, and what tells the machine's root from another."""
        root = os.stat("/")
        secret = os.stat(self.secret)
        return {
            "directory": str(self.directory),
            "secret": str(self.secret),
            "word": self.word,
            "shared": str(self.shared),
            "root_device": root.st_dev,
            "root_inode": root.st_ino,
            "device": secret.st_dev,
            "inode": secret.st_ino,
        }

    def look(self) -> dict[str, Any]:
        """Content, times and neighbours of the secret."""
        found = os.stat(self.secret)
        return {
            "content": self.secret.read_text(),
            "mtime_ns": found.st_mtime_ns,
            "mode": found.st_mode,
            "owner": [found.st_uid, found.st_gid],
            "entries": sorted(os.listdir(self.directory)),
        }

    def hold_descriptor(self) -> int:
        """A descriptor of the directory that a plain child inherits."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        os.set_inheritable(fd, True)
        return fd

    def restore(self) -> None:
        """Put the secret back as it was."""
        if not self.secret.exists() or self.secret.read_text() != self.word:
            Path(self.secret).write_text(self.word)
