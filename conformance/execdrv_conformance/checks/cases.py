"""Specs that checks of several headings share: one container each, for many probes.

A check names the one barrier it proves, and its case takes the others away where the driver lets
it: capabilities for what mounts keep out, the canary's user for what pid namespaces keep out. A new
case costs a container a run; take one of these where it serves.
"""

from __future__ import annotations

from typing import Any

from execdrv_conformance.bench import Bench
from execdrv_conformance.canary.process import USER
from execdrv_conformance.check import Case

#: Numbers of users and groups to draw from: no canary's, and no system account's.
_IDS = range(20_000, 50_000)

#: Nothing is asked: the driver's defaults.
PLAIN = Case(name="plain")
#: Root of the container, with what the driver gives root.
ROOT = Case(name="root", fields={"user": "0"})
#: The same user as the canary process, so that only walls stand between them.
CANARY_USER = Case(name="canary-user", fields={"user": f"{USER}:{USER}"})
#: Root with CAP_SYS_ADMIN: what mounts and namespaces keep, no capability helps to keep.
ADMIN = Case(name="admin", fields={"user": "0", "cap_add": ("SYS_ADMIN",)})


def _draw_stranger(bench: Bench) -> dict[str, Any]:
    if bench.is_control:
        # Who asks for another user and is not heard is root still.
        return {}
    user, group, *more = bench.rng.sample(_IDS, 4)
    # A name may have dots and capitals, and all of it is what was asked for.
    hostname = f"{bench.nonce()}.Example"
    return {"user": f"{user}:{group}", "groups": tuple(more), "hostname": hostname}


#: A user, groups and a host name that the seed has drawn; the control stays what its caller is.
STRANGER = Case(name="stranger", more_fields=_draw_stranger)
