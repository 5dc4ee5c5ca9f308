"""The chroot driver of execdrv: a directory as root, a user of its own, and no capability."""

from __future__ import annotations

from collections.abc import Sequence

from execdrv.driver import Driver
from execdrv.hookspecs import hookimpl
from execdrv_chroot.driver import ChrootDriver

__all__ = ["ChrootDriver", "plugin"]


class Plugin:
    """What the entry point `chroot` names."""

    @hookimpl
    def execdrv_drivers(self) -> Sequence[type[Driver]]:
        return [ChrootDriver]


plugin = Plugin()
