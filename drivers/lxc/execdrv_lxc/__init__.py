"""The lxc driver of execdrv: containers made by liblxc, through its Python bindings."""

from __future__ import annotations

from collections.abc import Sequence

from execdrv.driver import Driver
from execdrv.hookspecs import hookimpl
from execdrv_lxc.driver import LxcDriver

__all__ = ["LxcDriver", "plugin"]


class Plugin:
    """What the entry point `lxc` names."""

    @hookimpl
    def execdrv_drivers(self) -> Sequence[type[Driver]]:
        return [LxcDriver]


plugin = Plugin()
