"""Where a job finds what the kit has put somewhere on the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from execdrv_conformance.bench import Bench, Look

#: User of jobs and files that is neither root nor a canary's.
STRANGER = 54321
#: Changes of users and owners, which native roots have by default and a bare chroot has not.
OWNER_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")


def name_in_job(look: Look, path: Path) -> str:
    """The name by which a job has a path of its root; the control has the machine's root."""
    return str(path) if look.container is None else f"/{path.relative_to(look.root)}"


def writable_place(look: Look) -> str:
    """A directory that the job may write to; the control's is not the machine's own."""
    return str(look.bench.scratch) if look.container is None else "/tmp"


def plant_directory(bench: Bench, name: str) -> Path:
    """A new directory /srv/NAME in the root, with files `old` and `other`, and a directory."""
    path = bench.root / "srv" / name
    shutil.rmtree(path, ignore_errors=True)
    (path / "under").mkdir(parents=True)
    for name in ("old", "other"):
        (path / name).write_text(name)
    for one in (path.parent, path, path / "under", path / "old", path / "other"):
        one.chmod(0o755 if one.is_dir() else 0o644)
    return path
