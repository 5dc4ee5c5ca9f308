"""The native driver of execdrv: Linux namespaces and control groups, without other software."""

from __future__ import annotations

from collections.abc import Sequence

from execdrv.driver import Driver
from execdrv.hookspecs import hookimpl
from execdrv_native.driver import NativeDriver

__all__ = ["NativeDriver", "plugin"]


class Plugin:
    """What the entry point `native` names."""

    @hookimpl
    def execdrv_drivers(self) -> Sequence[type[Driver]]:
        return [NativeDriver]


plugin = Plugin()
