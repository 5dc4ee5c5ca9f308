"""Specs that checks of several headings share: one container each, for many probes.

A check names the one barrier it proves, and its case takes the others away where the driver lets
it: capabilities for what mounts keep out, the canary's user for what pid namespaces keep out. A new
case costs a container a run; take one of these where it serves.
"""

from __future__ import annotations

from execdrv_conformance.canary.process import USER
from execdrv_conformance.check import Case

#: Nothing is asked: the driver's defaults.
PLAIN = Case(name="plain")
#: Root of the container, with what the driver gives root.
ROOT = Case(name="root", fields={"user": "0"})
#: The same user as the canary process, so that only walls stand between them.
CANARY_USER = Case(name="canary-user", fields={"user": f"{USER}:{USER}"})
#: Root with CAP_SYS_ADMIN: what mounts and namespaces keep, no capability helps to keep.
ADMIN = Case(name="admin", fields={"user": "0", "cap_add": ("SYS_ADMIN",)})
